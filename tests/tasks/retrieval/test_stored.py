"""A teacher whose vectors lie in a file, and nothing else of it: what is read, what is refused, and that it teaches alike."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.errors import CompatibilityError, DataError, RecipeError, StillaError
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.tasks.retrieval import vectors
from stilla.tasks.retrieval.told import embed
from tests.tasks.retrieval.setting import encoder, folder, lines, loaded, scored, search, texts, tokenizer
from tests.tasks.retrieval.test_runs import QUICK

NAMES = ("a", "b", "c é")
ROWS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def stored(path: Path, keys: Sequence[str] = NAMES, rows: Any = ROWS) -> str:
    if path.suffix == ".jsonl":
        return lines(path, [{"text": key, "vector": [float(one) for one in row]} for key, row in zip(keys, rows)])
    if path.suffix == ".npz":
        np.savez(path, texts=np.array(keys), vectors=np.asarray(rows))
        return str(path)
    kind = pa.list_(pa.float32(), 4) if path.stem == "fixed" else pa.list_(pa.float64())
    pq.write_table(pa.table({"text": pa.array(keys), "vector": pa.array([[*map(float, row)] for row in rows], kind)}), path)
    return str(path)


@pytest.mark.parametrize("name", ["v.jsonl", "v.npz", "v.parquet", "fixed.parquet"])
def test_a_vector_of_every_key_is_read_from_each_format(tmp_path: Path, name: str) -> None:
    keys, rows = vectors.read(stored(tmp_path / name))
    assert keys == NAMES
    assert rows.dtype == np.float32
    assert rows.flags.writeable  # of others torch makes tensors with a warning
    np.testing.assert_array_equal(rows, ROWS)


def test_the_same_vector_twice_is_one_and_another_is_refused(tmp_path: Path) -> None:
    keys, rows = vectors.read(stored(tmp_path / "same.npz", ("a", "b", "a"), ROWS[[0, 1, 0]]))
    assert keys == ("a", "b")
    assert rows.shape == (2, 4)
    with pytest.raises(DataError, match=r"two different vectors of 'a', in rows 1 and 3"):
        vectors.read(stored(tmp_path / "other.npz", ("a", "b", "a")))


@pytest.mark.parametrize(("name", "made", "words"), [
    ("v.jsonl", '{"text": "a", "vector": [1, 2]}\n{"text": "b", "vector": [1]}\n', "vectors of 1 or 2 numbers"),
    ("v.jsonl", '{"text": "a", "vector": [1, 2]}\n{"text": "b", "vector": [0, 0]}\n', "1 of 2 vectors have no "
                                                                                      "direction.*'b'"),
    ("v.jsonl", '{"text": "a", "vector": [1, NaN]}\n', "1 of 1 vectors have no direction"),
    ("v.jsonl", '{"text": "a", "vector": [1, "x"]}\n', "no lists of numbers"),
    ("v.jsonl", '{"text": "a", "vector": [1]}\n{"text": null, "vector": [2]}\n', "1 of 2 vectors have no text"),
    ("v.jsonl", '{"text": "a", "vector": [1]}\n{"vector": [2]}\n', "line 2: expected an object with the fields of the first"),
    ("v.jsonl", '{"text": "a", "one": [1], "two": [2]}\n', "which column is the vectors.*'one' and 'two'"),
    ("v.jsonl", '{"title": "a", "body": "b", "two": [2]}\n', "which column is whose the vectors are"),
    ("v.jsonl", "{", "line 1: no JSON"), ("v.jsonl", "", "has no lines"),
    ("v.parquet", "no", "cannot be read as Parquet"), ("v.npz", "no", "cannot be read"),
])
def test_files_that_do_not_say_it_are_refused_in_words(tmp_path: Path, name: str, made: str, words: str) -> None:
    (tmp_path / name).write_text(made)
    with pytest.raises(DataError, match=words):
        vectors.read(str(tmp_path / name))


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", texts=np.array(["a"], object), vectors=ROWS[:1], allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read.*could run code"):
        vectors.read(str(tmp_path / "v.npz"))


def _said(*files: str) -> list[str]:
    """All texts of some data, as they stand there."""
    rows = [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]
    whole = [f"{row['title']} {row['text']}" if "title" in row else value for row in rows
             for name, value in row.items() if isinstance(value, str) and not name.startswith("_") and name != "title"]
    return [*dict.fromkeys(whole)]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Data, the model that nobody has, what it said, and a student of its own."""
    place = tmp_path_factory.mktemp("stored")
    teacher = loaded(folder(place / "teacher"))
    found = search(place / "search")
    train, validation = texts(place / "t.jsonl"), scored(place / "v.jsonl")
    data = {"train": train, "validation": validation, "test": found, "score_range": [0, 5], "pooling": "mean"}
    said = _said(train, validation, f"{found}/corpus.jsonl", f"{found}/queries.jsonl")
    encoder(2, 16, 5).save_pretrained(place / "given")
    tokenizer().save_pretrained(place / "given")
    rows = embed(teacher, said, [None] * len(said)).astype(np.float32)
    return {"task": "embedding", "data": data, "student": {"model": str(place / "given")}, **QUICK, "place": place,
            "teacher": stored(place / "said.npz", said, rows), "said": said, "rows": rows}


def _recipe(setting: Mapping[str, Any], output: Path, **changes: Any) -> dict[str, Any]:
    made = {name: value for name, value in setting.items() if name not in ("place", "said", "rows")}
    return {**made, "output": str(output), **changes, "data": {**setting["data"], **changes.get("data", {})}}


@pytest.mark.slow
def test_a_check_needs_no_model_of_the_teacher(setting: Mapping[str, Any], tmp_path: Path) -> None:
    found = check(from_options(_recipe(setting, tmp_path / "run")))
    assert not found.problems
    assert found.estimate is not None


@pytest.mark.slow
def test_texts_without_a_vector_are_named_and_counted_before_a_run(setting: Mapping[str, Any], tmp_path: Path) -> None:
    said = setting["said"]
    lacking = stored(tmp_path / "some.npz", said[1:-2], setting["rows"][1:-2])
    for problems in (check(from_options(_recipe(setting, tmp_path / "run", teacher=lacking))).problems,
                     _raised(_recipe(setting, tmp_path / "run", teacher=lacking))):
        train, test = problems
        assert re.search(rf"of data\.train, .*no vectors of 1 of 48 different texts: '{said[0][:20]}", train)
        assert re.search(rf"of data\.test, .*no vectors of 2 of 39 different texts: '{said[-2][:20]}.* and "
                         rf"'{said[-1][:20]}", test)
        assert "teacher.data: {text: id}" in train
    assert not (tmp_path / "run" / "student").exists()


def _raised(recipe: Mapping[str, Any]) -> Sequence[str]:
    with pytest.raises(DataError) as caught:
        stilla.distill(recipe)
    return caught.value.problems


@pytest.mark.parametrize("student", [{"layers": 2}, {"config": {"hidden_size": 8}}, {"vocabulary": "data"}, {"size": 0.3}])
def test_students_that_need_the_teachers_model_are_refused(
    setting: Mapping[str, Any], tmp_path: Path, student: Mapping[str, Any]
) -> None:
    problems = check(from_options(_recipe(setting, tmp_path / "run", student=student))).problems
    wanted = r"student.*[Gg]ive (a model|the student).*student: \{model: ...\}"
    assert any(re.search(wanted, one) for one in problems), problems


@pytest.mark.parametrize(("changes", "words"), [
    ({"teacher": {"model": "said.npz", "train": {}}}, "train: got it beside 'said.npz'"),
    ({"teacher": {"model": "said.npz", "processor": "x", "precision": "int8"}}, "and processor and precision"),
    ({"task": "text-classification", "data": {"train": "t.csv"}, "student": {"layers": 1}}, None)])
def test_what_only_a_model_has_is_refused_beside_a_file(tmp_path: Path, changes: dict[str, Any], words: str | None) -> None:
    asked = {"task": "embedding", "teacher": "said.npz", "student": {"model": "x"}, "data": {"train": "t.jsonl"},
             "output": str(tmp_path / "run"), **changes}
    if words is not None:
        with pytest.raises(RecipeError, match=words):
            from_options(asked)
        return
    (tmp_path / "t.csv").write_text("text,label\n" + "a,0\nb,1\n" * 20)
    asked |= {"data": {"train": str(tmp_path / "t.csv")}, "teacher": stored(tmp_path / "said.npz")}
    problems = check(from_options(asked)).problems
    assert any("only task: embedding learns from one" in one for one in problems), problems


def test_a_file_that_is_not_there_is_no_name_of_the_hub(setting: Mapping[str, Any], tmp_path: Path) -> None:
    problems = check(from_options(_recipe(setting, tmp_path / "run", teacher=str(tmp_path / "none.parquet")))).problems
    assert any(re.search(r"none\.parquet.*no such file", one) for one in problems), problems


def test_a_student_is_no_file_and_has_to_say_how_it_pools(setting: Mapping[str, Any], tmp_path: Path) -> None:
    for changes, words in (({"student": {"model": setting["teacher"]}}, "is a file of what a model has said"),
                           ({"data": {"pooling": None}}, r"Set data\.pooling")):
        problems = check(from_options(_recipe(setting, tmp_path / "run", **changes))).problems
        assert any(re.search(words, one) for one in problems), problems


def test_objectives_over_layers_say_that_there_are_none(setting: Mapping[str, Any], tmp_path: Path) -> None:
    hidden = {**QUICK["distill"], "objectives": [{"kind": "embedding"}, {"kind": "hidden", "pooling": "mean"}]}
    found = check(from_options(_recipe(setting, tmp_path / "run", distill=hidden)))
    assert found.problems


@pytest.mark.slow
def test_keys_stand_in_for_texts(setting: Mapping[str, Any], tmp_path: Path) -> None:
    said = [json.loads(line)["text"] for line in Path(setting["data"]["train"]).read_text().splitlines()]
    keyed = lines(tmp_path / "keyed.jsonl", [{"text": one, "id": f"k{number}"} for number, one in enumerate(said)])
    places = [setting["said"].index(one) for one in said]
    rest = setting["said"]
    keys, rows = [*(f"k{number}" for number in range(len(said))), *rest], setting["rows"][[*places, *range(len(rest))]]
    teacher = {"model": stored(tmp_path / "keys.npz", keys, rows), "data": {"text": "id"}}
    assert not check(from_options(_recipe(setting, tmp_path / "run", teacher=teacher, data={"train": keyed, "text": "text"}))
                     ).problems
    only = {"model": stored(tmp_path / "only.npz", keys[1:], rows[1:]), "data": {"text": "id"}}
    found = check(from_options(_recipe(setting, tmp_path / "run", teacher=only, data={"train": keyed, "text": "text"})))
    assert any("no vectors of 1 of 48 different texts: 'k0'" in one for one in found.problems), found.problems


@pytest.mark.slow
def test_what_a_teacher_said_teaches_as_the_teacher_does(setting: Mapping[str, Any], tmp_path: Path) -> None:
    run = stilla.distill(_recipe(setting, tmp_path / "said", export=["onnx"]))
    there = stilla.distill(_recipe(setting, tmp_path / "there", teacher=str(setting["place"] / "teacher"),
                                   data={"pooling": None}, cache={"form": "none"}))
    ours, theirs = loaded(run.student).model.state_dict(), loaded(there.student).model.state_dict()
    for name in ours:
        if not name.endswith("key.bias"):  # which moves no attention: its gradient is rounding alone
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=0)
    assert run.scores.teacher.quality["test"]["ndcg_at_10"].value == pytest.approx(
        there.scores.teacher.quality["test"]["ndcg_at_10"].value, abs=1e-9)
    assert run.scores.teacher.cost.parameters is None
    assert OnnxModel(run.folder / "export/onnx/model.onnx").output == "sentence_embedding"
    assert "from answers alone" in run.scores.verdict
    with pytest.raises(StillaError, match=r"has no vectors of 5 of 5 different texts"):
        evaluate_run(run.folder, texts(tmp_path / "new.jsonl", 5, 77))


def test_a_processor_without_a_tokenizer_says_so(setting: Mapping[str, Any]) -> None:
    from stilla.recipe import ModelSource
    from stilla.tasks.retrieval.stored import load

    made = load(ModelSource(model=setting["teacher"]))
    with pytest.raises(CompatibilityError, match="a file of vectors, whose model nobody has here"):
        _ = made.processor.tokenizer
    told = embed(made, setting["said"][:3], [None] * 3)
    np.testing.assert_allclose(told, setting["rows"][:3], atol=1e-7)
