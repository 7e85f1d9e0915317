"""Tables of events and lists of items: a row for every user, and what is held out of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from stilla import data
from stilla.errors import DataError
from stilla.recipe import Split
from stilla.tasks.recommendation.sections import RecommendationData as Section

EVENTS = [("a", "x", 3), ("b", "y", 1), ("a", "y", 1), ("a", "z", 2), ("b", "x", 2), ("b", "w", 5), ("a", "x", 9)]


def table(path: Path, rows: list[tuple[Any, ...]], names: str = "user_id,item_id,timestamp") -> str:
    path.write_text("\n".join([names, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return str(path)


def load(path: str, **said: Any) -> dict[str, Dataset]:
    return data.load(Section(train=path, **said), seed=0)


def rows(split: Dataset) -> dict[str, Any]:
    return {row["user"]: (row["items"], row["next"]) if "next" in row else row["items"] for row in split}


def many(path: Path, users: int = 40, each: int = 8) -> str:
    draw = np.random.default_rng(0)
    return table(path, [(f"u{user}", f"i{draw.integers(12)}", 1000 + 10 * step + draw.random())
                        for user in range(users) for step in range(each)])


# --- reading ---


@pytest.mark.slow
@pytest.mark.parametrize(("name", "between"), [("ratings.dat", "::"), ("u.data", "\t")])
def test_movielens_files_are_read_by_the_names_that_the_recipe_gives_their_columns(
    tmp_path: Path, name: str, between: str
) -> None:
    path = tmp_path / name
    path.write_text("".join(between.join([user, item, "5", str(time)]) + "\n" for user, item, time in EVENTS))
    named = ["user_id", "item_id", "rating", "timestamp"]
    plain = load(table(tmp_path / "events.csv", EVENTS), hold_out="last")
    assert {split: rows(found) for split, found in load(str(path), header=named, hold_out="last").items()} == {
        split: rows(found) for split, found in plain.items()}
    with pytest.raises(DataError, match=r"begins with 'a', 'x', '5' and '3'\. Say what they are, .*data\.header"):
        load(str(path))
    with pytest.raises(DataError, match=r"line 1 has 4 fields .* names 3: user_id, item_id and timestamp"):
        load(str(path), header=["user_id", "item_id", "timestamp"])
    path.write_text(path.read_text() + "\nx" + between + "y\n")
    with pytest.raises(DataError, match="line 9 has 2 fields"):
        load(str(path), header=named)
    if between == "\t":
        headed = "\n".join(["\t".join(["userID", "itemID", "timestamp"]), *("\t".join(map(str, row)) for row in EVENTS)])
        path.write_text(headed)
        assert rows(load(str(path), user="userID", item="itemID", hold_out="last")["train"]) == rows(plain["train"])
        assert rows(load(str(path), header=["timestamp", "userID", "itemID"], user="userID", item="itemID",
                         hold_out="last")["train"]) == rows(plain["train"])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_text("1::2")
    (tmp_path / "folder" / "events.csv").write_text((tmp_path / "events.csv").read_text())
    assert rows(load(str(tmp_path / "folder"), hold_out="last")["train"]) == rows(plain["train"])


def test_events_become_a_row_for_every_user_in_the_order_of_time(tmp_path: Path) -> None:
    found = load(table(tmp_path / "events.csv", EVENTS), hold_out="last")
    assert rows(found["train"]) == {"a": ["y", "z"], "b": ["y"]}
    assert rows(found["validation"]) == {"a": (["y", "z"], "x"), "b": (["y"], "x")}
    assert rows(found["test"]) == {"a": (["y", "z", "x"], "x"), "b": (["y", "x"], "w")}


@pytest.mark.parametrize("suffix", ["parquet", "inter", "jsonl"])
def test_other_formats_say_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"events.{suffix}"
    frame = pd.DataFrame(EVENTS, columns=["user_id", "item_id", "timestamp"])
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        header = "user_id:token\titem_id:token\ttimestamp:float"
        path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in EVENTS)]) + "\n", encoding="utf-8")
    plain = load(table(tmp_path / "plain.csv", EVENTS), hold_out="last")
    assert [rows(one) for one in load(str(path), hold_out="last").values()] == [rows(one) for one in plain.values()]


@pytest.mark.parametrize(("name", "text"), [
    ("lists.jsonl", '{"user": "a", "items": [1, 2, 3]}\n{"user": "b", "items": [2, 1]}\n'),
    ("lists.inter", "user_id:token\titem_id:token_seq\na\t1 2 3\nb\t2 1\n"),
])
def test_a_row_with_a_list_is_a_user_already(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = load(str(tmp_path / name), hold_out="last")
    assert rows(found["train"]) == {"a": ["1"], "b": ["2", "1"]}
    assert rows(found["test"]) == {"a": (["1", "2"], "3")}


def test_a_type_that_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.inter").write_text("user_id:token\titem_id\na\tb\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'item_id' has no type that is known; expected one behind a colon, token, float"):
        load(str(tmp_path / "e.inter"))


def test_dates_are_times(tmp_path: Path) -> None:
    dates = ["2024-05-17 12:30:00", "2024-05-16", "2024-05-18T01:00:00Z"]
    path = table(tmp_path / "events.csv", [("a", item, date) for item, date in zip("xyz", dates)])
    assert rows(load(path, hold_out="last")["test"]) == {"a": (["y", "x"], "z")}


def test_without_a_time_rows_stand_in_order(tmp_path: Path) -> None:
    path = table(tmp_path / "events.csv", [row[:2] for row in EVENTS], "user,item")
    found = load(path)
    assert rows(found["test"]) == {"a": (["x", "y", "z"], "x"), "b": (["y", "x"], "w")}


def test_whole_numbers_with_gaps_are_the_ids_that_they_were(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pd.DataFrame({"user": [1.0, 1.0, 1.0, None], "item": [7, 8, 9, 7]}).to_parquet(path)
    assert rows(load(str(path), broken="skip")["test"]) == {"1": (["7", "8"], "9")}


def test_what_all_events_of_a_user_say_stays_with_him(tmp_path: Path) -> None:
    path = table(tmp_path / "events.csv", [(*row, {"a": "old", "b": "new"}[row[0]], row[2]) for row in EVENTS],
                 "user,item,time,segment,stars")
    found = load(path, hold_out="last")["test"]
    assert found["segment"][:] == ["old", "new"]
    assert "stars" not in found.column_names


# --- what is held out ---


def test_no_event_of_the_test_is_earlier_than_any_that_was_learnt(tmp_path: Path) -> None:
    path = many(tmp_path / "events.csv")
    found = load(path, validation=Split(split=0.2), test=Split(split=0.2))
    times = {(str(user), str(item), when) for user, item, when in pd.read_csv(path).itertuples(index=False)}
    latest = {name: max(max(row) for row in split["times"] if row) for name, split in found.items()}
    learnt = latest["train"]
    for name in ("validation", "test"):
        for row in found[name]:
            (moment,) = [when for user, item, when in times
                         if user == row["user"] and when > max(row["times"]) and item == row["next"]
                         and when == min(later for one, _, later in times if one == user and later > max(row["times"]))]
            assert moment > learnt
    assert len(found["test"]) > 10


def test_where_there_are_times_they_part_the_data_by_default(tmp_path: Path) -> None:
    path = many(tmp_path / "events.csv")
    assert load(path)["test"].to_dict() == load(path, hold_out="time")["test"].to_dict()


def test_leave_last_out_says_that_it_looks_ahead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(many(tmp_path / "events.csv"), hold_out="last")
    assert "lies in the past of what was learnt of others; hold_out: time does not" in caplog.text


def test_whole_users_are_drawn_and_none_of_them_is_learnt(tmp_path: Path) -> None:
    found = load(many(tmp_path / "events.csv"), hold_out="users", test=Split(split=0.25))
    users = [set(split["user"]) for split in found.values()]
    assert [len(one) for one in users] == [26, 4, 10]
    assert len(set.union(*users)) == 40


def test_users_of_a_file_go_on_where_they_stopped(tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", [("a", "x", 10), ("a", "y", 27), ("b", "x", 15)])
    later = table(tmp_path / "test.csv", [("a", "z", 40), ("a", "w", 51), ("c", "x", 33)])
    found = load(train, test=later, validation=table(tmp_path / "val.csv", [("a", "v", 30)]), users="same")
    assert rows(found["validation"]) == {"a": (["x", "y"], "v")}
    assert rows(found["test"]) == {"a": (["x", "y", "v"], "z")}
    apart = load(train, test=later, validation=later, users="apart")
    assert rows(apart["test"]) == {"a": (["z"], "w")}


def test_a_limit_is_of_users_who_are_learnt(tmp_path: Path) -> None:
    found = load(many(tmp_path / "events.csv"), hold_out="last", limit=5)
    assert (len(found["train"]), len(found["test"])) == (5, 40)


# --- what is refused ---


@pytest.mark.parametrize(("rows", "names", "said", "why"), [
    (EVENTS, "who,item,time", {}, r"data\.user: which column says the user\? None is called user, user_id, userid or uid"),
    (EVENTS, "user,item,time", {"time": "tiem"}, r"data\.time: there is no column 'tiem'\. Did you mean time\?"),
    ([*EVENTS, ("a", "x", 9)], "user,item,time", {},
     r"the same user, item and time stand there before in 1 of 8 events \(rows 7\)"),
    ([*EVENTS, ("", "x", 9)], "user,item,time", {}, r"data\.train: 'user' is null in 1 of 8 events \(rows 7\)"),
    ([*EVENTS, ("a", "x", "soon")], "user,item,time", {},
     r"'time' is no time: expected numbers, or dates .* in 1 of 8 events"),
    ([("a", "x", 0), ("a", "y", 1), ("b", "y", 0), ("b", "z", 1)], "user,item,time", {},
     r"'time' is no time: it only counts the events of every user.*data\.order: time"),
    (EVENTS, "user,item,n", {"order": "n", "hold_out": "time"}, r"hold_out: time: there is no column of times"),
    ([("a", "x", 1), ("b", "x", 7)], "user,item,time", {"hold_out": "last"}, r"no user has three events or more"),
    (EVENTS, "user,item,time", {"hold_out": "last", "test": Split(split=0.2)},
     r"data\.test: a share, and hold_out: last takes"),
    (EVENTS, "user,item,time", {"items": "item"}, r"data\.items: 'item' holds no lists"),
])
def test_events_that_cannot_be_meant_are_refused_in_words(
    tmp_path: Path, rows: list[tuple[Any, ...]], names: str, said: dict[str, Any], why: str
) -> None:
    with pytest.raises(DataError, match=why):
        load(table(tmp_path / "events.csv", rows, names), **said)


def test_what_cannot_be_read_is_left_out_where_the_recipe_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path / "events.csv", [*EVENTS, ("a", "x", 9), ("b", "", 7), ("a", "q", "soon")])
    with caplog.at_level(logging.WARNING):
        found = load(path, hold_out="last", broken="skip")
    assert rows(found["test"]) == {"a": (["y", "z", "x"], "x"), "b": (["y", "x"], "w")}
    assert caplog.text.count("left out") == 3


def test_users_of_the_same_id_in_two_files_are_asked_about(tmp_path: Path) -> None:
    path = table(tmp_path / "events.csv", EVENTS)
    with pytest.raises(DataError, match=r"2 of its 2 users have the same id as one of data\.train\. Say data\.users: same"):
        load(path, validation=path)


def test_a_file_to_measure_goes_with_no_other_way_of_holding_out(tmp_path: Path) -> None:
    path = table(tmp_path / "events.csv", EVENTS)
    with pytest.raises(DataError, match=r"hold_out: last parts the training data .* and data\.test is there already"):
        load(path, test=path, users="apart", hold_out="last")
