"""Questions to a server with faults: what is asked, what is stored, what is never asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stilla.api import Question, Store, forecast
from stilla.api.asking import Asked, ask
from stilla.api.purse import CeilingError
from stilla.errors import BusyError, CompatibilityError, RecipeError
from stilla.recipe.api import Api
from tests.api.server import Server, served

PRICE = {"input": 1.0, "output": 2.0}
KEY = "a-key-that-nobody-may-see-4711"


def api_of(server: Server, **more: Any) -> Api:
    return Api.model_validate({"url": server.url, "max_tokens": 20, "timeout": 5.0, **more})


def questions(api: Api, number: int = 6, answers: int = 1) -> list[Question]:
    return [Question.of(api, "m", [{"role": "user", "content": f"question {one}"}], again)
            for one in range(number) for again in range(answers)]


def asked(folder: Path, api: Api, number: int = 6) -> tuple[Asked, Store]:
    with Store(folder) as store:
        return ask(api, questions(api, number), store), store


def test_every_answer_is_stored_and_nothing_is_asked_twice(server: Server, tmp_path: Path) -> None:
    server.script.answer = lambda body: body["messages"][-1]["content"].upper()
    api = api_of(server, system="Be brief.", temperature=0.5, body={"top_p": 0.9})
    done, _ = asked(tmp_path, api)
    assert done.requests == 6
    stored = Store(tmp_path)
    assert [stored.replies[one.key].text for one in questions(api)] == [f"QUESTION {one}" for one in range(6)]
    again, _ = asked(tmp_path, api, number=8)
    assert again.requests == 2
    assert set(server.script.times().values()) == {1}
    assert {
        "model": "m", "top_p": 0.9, "temperature": 0.5, "max_tokens": 20,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "question 0"}],
    } in server.script.asked


def test_another_model_prompt_or_temperature_is_another_question(server: Server) -> None:
    one = api_of(server)
    said = [{"role": "user", "content": "x"}]
    keys = {Question.of(one, "m", said).key, Question.of(one, "n", said).key, Question.of(one, "m", said, 1).key,
            *(Question.of(api_of(server, **{name: value}), "m", said).key
              for name, value in (("temperature", 0.1), ("max_tokens", 9), ("system", "s")))}
    assert len(keys) == 6
    assert Question.of(api_of(server, concurrency=3, price=PRICE, ceiling=9.0), "m", said).key in keys


def test_the_last_field_says_the_limit_as_the_server_calls_it(server: Server) -> None:
    body = Question.of(api_of(server, limit_as="max_completion_tokens"), "m", []).body
    assert body == {"model": "m", "messages": [], "max_completion_tokens": 20}


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "wrong json", "no choices"])
def test_what_passes_is_asked_again(server: Server, tmp_path: Path, fault: str) -> None:
    server.script.faults = [fault, fault]
    done, store = asked(tmp_path, api_of(server, price=PRICE))
    assert len(store.replies) == 6
    assert done.requests == 8
    assert sum(done.failures.values()) == 2


def test_an_answer_that_takes_too_long_is_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.script.faults = ["slow"]
    done, store = asked(tmp_path, api_of(server, timeout=0.2), number=1)
    assert len(store.replies) == 1
    assert done.failures == {"ReadTimeout": 1}


def test_a_server_that_says_when_to_come_again_is_obeyed_by_all(server: Server, tmp_path: Path) -> None:
    server.script.faults = ["later"]
    begun = time.monotonic()
    asked(tmp_path, api_of(server, concurrency=1), number=3)
    assert time.monotonic() - begun >= 0.3


def test_half_a_character_at_the_end_of_an_answer_is_none(server: Server, tmp_path: Path) -> None:
    """What a server writes that cuts an emoji in two."""
    server.script.answer = lambda body: "well \ud83d"
    _, store = asked(tmp_path, api_of(server), number=1)
    (reply,) = store.replies.values()
    assert reply.text == "well \ufffd"
    assert reply.text.encode()


@pytest.mark.parametrize("count", [10**400, -3, 1.5, True, "7", None])
def test_a_count_that_is_none_is_not_known(server: Server, tmp_path: Path, count: Any) -> None:
    server.script.usage = {"prompt_tokens": count, "completion_tokens": 5}
    _, store = asked(tmp_path, api_of(server, price=PRICE), number=1)
    (reply,) = store.replies.values()
    assert (reply.asked, reply.answered) == (None, 5)
    assert reply.cost > 0  # the most that it can be


def test_after_a_failure_what_waits_for_room_is_not_sent(server: Server, tmp_path: Path) -> None:
    """The first of two is refused while the second waits until the ceiling has room."""
    api = api_of(server, price=PRICE, concurrency=2)
    most = api.price.of(questions(api, 1)[0].most, api.max_tokens)  # type: ignore[union-attr]
    server.script.faults, server.script.delay = ["401"], 0.1
    with pytest.raises(CompatibilityError, match="refuses"):
        asked(tmp_path, api.model_copy(update={"ceiling": 1.5 * most}), number=2)
    assert len(server.script.asked) == 1


def test_a_full_disk_is_said_as_such_and_ends_the_asking(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "begin", full)
    with pytest.raises(OSError, match="No space left"):
        asked(tmp_path, api_of(server, price=PRICE, ceiling=0.0005), number=50)
    assert not server.script.asked


def test_after_the_last_attempt_the_run_stops_and_goes_on_later(server: Server, tmp_path: Path) -> None:
    server.script.faults = [""] * 3 + ["500"] * 99
    api = api_of(server, attempts=2, concurrency=1)
    with pytest.raises(CompatibilityError, match=r"no answer after 2 attempts, the last: 500: fault 500.*goes on where"):
        asked(tmp_path, api)
    assert len(Store(tmp_path).replies) == 3
    server.script.faults = []
    done, store = asked(tmp_path, api)
    assert done.requests == 3
    assert len(store.replies) == 6


def test_a_server_that_refuses_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    server.script.faults = ["401"] * 99
    with pytest.raises(CompatibilityError, match=r"refuses: 401: fault 401.*teacher.api.key_env"):
        asked(tmp_path, api_of(server, concurrency=2), number=50)
    assert len(server.script.asked) <= 4


def test_a_question_that_the_server_rejects_is_kept_as_such(server: Server, tmp_path: Path) -> None:
    server.script.faults = ["400"]
    api = api_of(server, concurrency=1)
    _, store = asked(tmp_path, api)
    assert [store.replies[one.key].why for one in questions(api)] == ["rejected"] + ["stop"] * 5
    assert asked(tmp_path, api)[0].requests == 0


def test_where_all_questions_are_rejected_the_recipe_is_at_fault(server: Server, tmp_path: Path) -> None:
    server.script.faults = ["400"] * 99
    with pytest.raises(CompatibilityError, match=r"none of the questions: 400: fault 400.*limit_as"):
        asked(tmp_path, api_of(server, concurrency=1), number=50)
    assert len(server.script.asked) == 5
    assert not Store(tmp_path).replies


def test_questions_rejected_in_a_row_in_the_same_words_are_asked_again(server: Server, tmp_path: Path) -> None:
    api = api_of(server, concurrency=1)
    server.script.faults = [*[""] * 3, *["400"] * 99]  # as after the last of what was paid for
    with pytest.raises(CompatibilityError, match=r"rejects 20 .* in the same words: 400: fault 400.*payment"):
        asked(tmp_path, api, number=50)
    assert len(server.script.asked) == 23
    assert len(Store(tmp_path).replies) == 3
    server.script.faults = []
    done, store = asked(tmp_path, api, number=50)
    assert (done.requests, {one.why for one in store.replies.values()}) == (47, {"stop"})


def test_no_more_are_under_way_than_allowed(server: Server, tmp_path: Path) -> None:
    server.script.delay = 0.02
    asked(tmp_path, api_of(server, concurrency=3), number=9)
    assert server.script.most_at_once <= 3


# --- what it costs ---


def test_costs_are_counted_by_what_the_server_says(server: Server, tmp_path: Path) -> None:
    done, store = asked(tmp_path, api_of(server, price=PRICE))
    assert done.cost == pytest.approx(6 * (10 * 1.0 + 5 * 2.0) / 1e6)
    assert Store(tmp_path).spent == pytest.approx(done.cost) == store.spent


def test_what_was_asked_before_there_was_a_price_counts_by_it(server: Server, tmp_path: Path) -> None:
    asked(tmp_path, api_of(server))
    priced = api_of(server, price=PRICE, ceiling=1.0)
    spent = Store(tmp_path, priced.price).spent
    assert spent == pytest.approx(6 * (10 * 1.0 + 5 * 2.0) / 1e6)
    assert forecast(priced, questions(priced), Store(tmp_path, priced.price)).spent == pytest.approx(spent)


def test_where_the_server_counts_nothing_the_most_counts(server: Server, tmp_path: Path) -> None:
    server.script.usage = None
    api = api_of(server, price=PRICE)
    most = api.price.of(questions(api)[0].most, 20) if api.price else 0.0
    assert asked(tmp_path, api)[0].cost == pytest.approx(6 * most)


def test_what_nobody_counted_when_there_was_no_price_is_not_taken_for_free(server: Server, tmp_path: Path) -> None:
    server.script.usage = None
    asked(tmp_path, api_of(server))
    server.script.usage = {"prompt_tokens": 10, "completion_tokens": 5}
    asked(tmp_path, api_of(server), number=8)
    priced = api_of(server, price=PRICE, ceiling=1.0)
    store = Store(tmp_path, priced.price)
    assert (store.unknown, store.spent) == (6, pytest.approx(2 * (10 * 1.0 + 5 * 2.0) / 1e6))
    assert "what 6 stored answers cost is not known" in str(forecast(priced, questions(priced, 9), store))


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_ceiling_is_never_passed(server: Server, tmp_path: Path, concurrency: int) -> None:
    api = api_of(server, price=PRICE, concurrency=concurrency)
    assert api.price is not None
    most = api.price.of(questions(api)[0].most, 20)
    server.script.usage = {"prompt_tokens": questions(api)[0].most, "completion_tokens": 20}  # each costs the most
    api = api.model_copy(update={"ceiling": 3.5 * most})
    with pytest.raises(CeilingError, match=r"teacher.api.ceiling.*goes on"):
        asked(tmp_path, api, number=9)
    assert len(server.script.asked) == 3
    assert Store(tmp_path).spent <= 3.5 * most
    with pytest.raises(CeilingError):
        asked(tmp_path, api, number=9)
    assert len(server.script.asked) == 3
    done, store = asked(tmp_path, api.model_copy(update={"ceiling": 9.5 * most}), number=9)
    assert (done.requests, len(store.replies)) == (6, 9)


def test_requests_that_may_have_been_paid_for_count(server: Server, tmp_path: Path) -> None:
    server.script.faults = ["cut", "wrong json", "429", "500", "504"]
    api = api_of(server, price=PRICE, concurrency=1)
    done, _ = asked(tmp_path, api, number=1)
    assert api.price is not None
    most = api.price.of(questions(api)[0].most, 20)
    assert done.cost == pytest.approx(3 * most + 20 / 1e6)
    assert Store(tmp_path).spent == pytest.approx(done.cost)


def test_a_forecast_knows_what_is_stored(server: Server, tmp_path: Path) -> None:
    api = api_of(server, price=PRICE)
    asked(tmp_path, api, number=4)
    found = forecast(api, questions(api, 10), Store(tmp_path))
    assert (found.requests, found.all, found.answered, found.most_answered) == (6, 10, 6 * 5, 6 * 20)
    assert found.likely is not None
    assert found.most is not None
    assert found.likely == pytest.approx((found.asked + 2 * 30) / 1e6)
    assert found.likely < found.most == pytest.approx((found.most_asked + 2 * 120) / 1e6)
    assert "6 requests (4 more are answered already)" in str(found)


# --- log-probabilities ---


def tokens(**likely: float) -> dict[str, Any]:
    """One token, the likeliest of these, with the others, as OpenAI writes it."""
    best = max(likely, key=lambda name: likely[name])
    return {"content": [{"token": best, "logprob": likely[best], "bytes": None, "top_logprobs": [
        {"token": name, "logprob": log, "bytes": None} for name, log in likely.items() if name != best]}]}


def test_what_could_have_stood_in_an_answer_is_asked_for_and_stored(server: Server, tmp_path: Path) -> None:
    server.script.likely = lambda body: tokens(yes=-0.1, no=-9999.0)
    api = api_of(server, logprobs=5)
    asked(tmp_path, api, number=1)
    assert (server.script.asked[0]["logprobs"], server.script.asked[0]["top_logprobs"]) == (True, 5)
    (reply,) = Store(tmp_path).replies.values()
    assert reply.likely == [("yes", {"no": -9999.0, "yes": -0.1})]
    assert questions(api)[0].key != questions(api_of(server))[0].key


@pytest.mark.parametrize("said", [
    None, {}, {"content": None}, {"content": []}, {"content": [{"token": "a"}]}, tokens(yes=0.7), tokens(yes=float("nan")),
    {"content": [{"token": 3, "logprob": -1.0, "top_logprobs": []}]}, {"content": [{"token": [], "logprob": -1.0,
                                                                                   "top_logprobs": []}]}, "none", 3,
    {"content": [{"token": "a", "logprob": "low", "top_logprobs": []}]}])
def test_what_are_no_log_probabilities_is_none_and_the_answer_stays(server: Server, tmp_path: Path, said: Any) -> None:
    server.script.likely = lambda body: said
    asked(tmp_path, api_of(server, logprobs=5), number=1)
    (reply,) = Store(tmp_path).replies.values()
    assert (reply.text, reply.likely) == ("an answer", None)


# --- keys ---


def test_the_key_is_sent_and_written_nowhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    server.script.answer = lambda body: f"your key is {KEY}"
    server.script.escape = True
    server.script.likely = lambda body: {"content": [{"token": part, "logprob": 0.0, "top_logprobs": []}
                                                     for part in (KEY[:9], KEY[9:])]}
    api = api_of(server, key_env="MY_API_KEY", logprobs=2)
    asked(tmp_path, api)
    assert server.script.keys == [f"Bearer {KEY}"] * 6
    server.script.faults = ["echo"] * 9
    with pytest.raises(CompatibilityError) as caught:
        asked(tmp_path, api, number=9)
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in repr(error)
        error = error.__cause__
    assert "bad key" in str(caught.value)
    assert KEY not in "".join(capfd.readouterr())
    assert all(one.likely is None for one in Store(tmp_path).replies.values())
    assert all(KEY not in file.read_text(encoding="utf-8") for file in tmp_path.rglob("*") if file.is_file())


def test_a_proxy_does_not_read_the_key_that_stays_on_this_machine(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with served() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        asked(tmp_path, api_of(server, key_env="MY_API_KEY"), number=1)
        assert not proxy.script.keys
    assert server.script.keys == [f"Bearer {KEY}"]


def test_who_sends_elsewhere_is_not_followed_with_the_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    with served() as other:
        server.script.faults = [f"elsewhere {other.url}/chat/completions"] * 9
        with pytest.raises(CompatibilityError, match=f"it sends on to {other.url}"):
            asked(tmp_path, api_of(server, key_env="MY_API_KEY"))
        assert not other.script.asked


def test_a_key_is_known_however_it_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    server.script.faults = ["escaped"] * 9
    with pytest.raises(CompatibilityError) as caught:
        asked(tmp_path, api_of(server, key_env="MY_API_KEY", attempts=2), number=1)
    assert "is no chat completion" in str(caught.value)
    assert "4711" not in str(caught.value)


def test_without_a_key_nothing_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_API_KEY", raising=False)
    with pytest.raises(RecipeError, match="variable MY_API_KEY is not set"):
        asked(tmp_path, api_of(server, key_env="MY_API_KEY"))
    monkeypatch.setenv("MY_API_KEY", KEY)
    with pytest.raises(RecipeError, match="over http everybody on the way reads the key"):
        asked(tmp_path, Api(url="http://example.org/v1", key_env="MY_API_KEY"))
    assert not server.script.asked


# --- what a kill leaves ---

PROGRAM = """
import sys
from pathlib import Path
from stilla.api import Store
from stilla.api.asking import ask
from tests.api.test_asking import questions
from stilla.recipe.api import Api
api = Api(url=sys.argv[1], max_tokens=20, concurrency=3, price={"input": 1.0, "output": 2.0})
with Store(Path(sys.argv[2])) as store:
    ask(api, questions(api, 60), store)
"""


@pytest.mark.slow
def test_a_kill_asks_nothing_twice_but_what_was_under_way(server: Server, tmp_path: Path) -> None:
    server.script.delay = 0.05
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, server.url, str(tmp_path)], env=environment)
    while len(server.script.asked) < 20:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    before = Store(tmp_path)
    assert 10 <= len(before.replies) < 60
    api = api_of(server, concurrency=3, price=PRICE)
    assert api.price is not None
    under_way = len(server.script.asked) - len(before.replies)
    assert 1 <= under_way <= 3
    paid = sum(one.cost for one in before.replies.values())
    assert before.spent > paid
    asked(tmp_path, api, number=60)
    again = [question for question, times in server.script.times().items() if times > 1]
    assert len(again) <= under_way
    assert len(Store(tmp_path).replies) == 60


def test_half_a_line_is_what_a_kill_leaves(server: Server, tmp_path: Path) -> None:
    api = api_of(server)
    asked(tmp_path, api, number=3)
    file = tmp_path / "answers.jsonl"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[:-40], encoding="utf-8")
    done, store = asked(tmp_path, api, number=3)
    assert done.requests == 1
    assert len(store.replies) == len(Store(tmp_path).replies) == 3


def test_a_line_that_somebody_changed_is_asked_again(server: Server, tmp_path: Path) -> None:
    api = api_of(server)
    asked(tmp_path, api, number=3)
    file = tmp_path / "answers.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("an answer", "another one", 1), encoding="utf-8")
    assert asked(tmp_path, api, number=3)[0].requests == 1


def test_two_processes_do_not_ask_into_one_folder(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(BusyError, match="another run is asking"), Store(tmp_path):
        pass


def test_lines_can_be_read_by_people(server: Server, tmp_path: Path) -> None:
    asked(tmp_path, api_of(server), number=1)
    begun, ended = map(json.loads, (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines())
    assert set(begun) == {"event", "key", "most", "check"}
    assert ended["question"] == [{"role": "user", "content": "question 0"}]
    assert (ended["text"], ended["why"]) == ("an answer", "stop")
