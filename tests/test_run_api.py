"""Whole runs with a teacher behind an address: the recipes that come along, against a server of ours with faults."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stilla
from stilla.after import evaluate_run
from stilla.api import asking
from stilla.check import check
from stilla.errors import StillaError
from stilla.recipe.file import read
from stilla.report.table import markdown_facts
from tests import tiny
from tests.api.server import Server, served
from tests.tasks import pairs, tiny_lm

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[1] / "recipes"
KEY = "a-key-that-nobody-may-see-4711"
FAULTS = ["429", "500", "cut", "wrong json", "no choices", "503"]
TEMPLATE = ("{% for one in messages %}{{ one['role'] }}: {% if one['role'] == 'assistant' %}{% generation %}"
            "{{ one['content'] }}{{ eos_token }}{% endgeneration %}{% else %}{{ one['content'] }}\n{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served() as running:
        yield running


@pytest.fixture(autouse=True)
def _asked_anew(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.script = type(server.script)(faults=list(FAULTS))
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)


def overrides(server: Server, *more: str) -> list[str]:
    return [f"teacher.api.url={server.url}", "teacher.api.requests_per_minute=null", "distill.max_steps=3",
            "distill.batch_size=8", "distill.precision=float32", "evaluate.resamples=100", "evaluate.speed=false", *more]


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def topics(folder: Path) -> list[str]:
    files = tiny.texts(folder / "data", train=30, validation=12, test=24)
    pool = Path(tiny.texts(folder / "pool", train=24, seed=5)["train"])
    rows = [{"text": json.loads(line)["text"]} for line in pool.read_text(encoding="utf-8").splitlines()]
    return [*(f"data.{split}={path}" for split, path in files.items()), "data.limit=null", "data.label=topic",
            f"data.unlabelled.examples={lines(folder / 'pool.jsonl', rows)}", "data.unlabelled.split=null",
            f"student.model={tiny.bert(folder / 'student', layers=2, width=16)}", "teacher.api.measured=10"]


def topic_of(body: Any) -> str:
    """What a teacher would say that knows which words give a topic away; once in a while it does not."""
    text = body["messages"][-1]["content"].partition("Text: ")[2].partition("\n")[0]
    found = [topic for topic, words in tiny.TOPICS.items() if set(words) & set(text.split())]
    return f"Sure! The class is: **{found[0]}**." if len(found) == 1 else "No idea."


def prompts(folder: Path) -> list[str]:
    files = {split: lines(folder / f"{split}.jsonl", [{"instruction": f"count to {number}", "response": f"one, two, {number}"}
                                                      for number in range(first, last)])
             for split, first, last in (("train", 0, 24), ("validation", 24, 32), ("test", 32, 40))}
    student = tiny_lm.folder(folder / "student", tiny_lm.gpt2(), tiny_lm.byte_tokenizer())
    return [*(f"data.{split}={path}" for split, path in files.items()), f"student.model={student}", "data.limit=null",
            "data.max_length=128"]


def talks(folder: Path) -> list[str]:
    def talk(number: int) -> dict[str, Any]:
        return {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"hello {number}"},
                             {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and now?"},
                             {"role": "assistant", "content": "nothing"}]}
    files = {split: lines(folder / f"{split}.jsonl", [talk(number) for number in range(first, first + size)])
             for split, first, size in (("train", 0, 20), ("validation", 100, 8), ("test", 200, 8))}
    student = tiny_lm.folder(folder / "student", tiny_lm.gpt2(), tiny_lm.byte_tokenizer(template=TEMPLATE))
    return [*(f"data.{split}={path}" for split, path in files.items()), f"student.model={student}", "data.limit=null",
            "data.max_length=128"]


def summaries(folder: Path) -> list[str]:
    rows = pairs.pairs(48)
    examples = [dict(zip(("source", "summary"), row)) for row in zip(*rows.values())]
    files = {split: lines(folder / f"{split}.jsonl", examples[first:last])
             for split, first, last in (("train", 0, 24), ("validation", 24, 36), ("test", 36, 48))}
    return [*(f"data.{split}={path}" for split, path in files.items()), "evaluate.generation.max_new_tokens=4",
            f"student.model={pairs.folder(folder / 'student', 't5')}", "teacher.api.measured=6"]


def summary_of(body: Any) -> str:
    return pairs.translated(body["messages"][-1]["content"].partition("\n\n")[0])


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    yield from ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def test_classes_are_read_from_answers(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    server.script.answer = topic_of
    run = stilla.distill(RECIPES / "api-classification.yaml", *overrides(server), *topics(tmp_path))
    assert set(run.scores.subjects) == {"student", "baseline"}
    assert run.scores.difference is not None
    assert (run.scores.gap, run.scores.retention, run.scores.ratio) == (None, None, None)
    assert "known by its answers alone" in run.scores.verdict
    page = run.report.read_text(encoding="utf-8")
    assert "not measured by class" in page
    assert "Ratios are against the teacher" not in page
    assert "retention" not in markdown_facts(run.scores)
    assert "student − labels alone" in markdown_facts(run.scores)
    said = "\n".join(run.scores.notes)
    found = re.search(r"24 asked for, (\d+) learnt(; left out: (\d+) not understood)?\..* spent", said)
    assert found
    assert int(found[1]) + int(found[3] or 0) == 24
    assert "an accuracy of" in said
    assert "on 10 labelled examples" in said
    assert "its time, memory and energy are not known here" in said
    assert max(server.script.times().values()) <= 1 + len(FAULTS)
    assert sum(server.script.times().values()) == 34 + len(FAULTS)

    kept = read(run.folder / "recipe.yaml")
    assert kept.distill[0].objectives is not None
    assert [one.kind for one in kept.distill[0].objectives] == ["labels"]
    again = stilla.distill(RECIPES / "api-classification.yaml", *overrides(server), *topics(tmp_path))
    assert again.scores == run.scores
    stilla.distill(RECIPES / "api-classification.yaml", *overrides(server), *topics(tmp_path), overwrite=True)
    assert set(evaluate_run(run.folder, tmp_path / "data" / "validation.jsonl").subjects) == {"student", "baseline"}
    assert sum(server.script.times().values()) == 34 + len(FAULTS)

    # a key that the server throws back is nowhere either
    server.script.faults = ["echo"] * 9
    with pytest.raises(StillaError) as caught:
        stilla.distill(RECIPES / "api-classification.yaml", *overrides(server, "output=runs/other"), *topics(tmp_path))
    assert "bad key Bearer ***" in str(caught.value)
    assert set(server.script.keys) == {f"Bearer {KEY}"}
    assert not [path for path, content in written(tmp_path) if KEY.encode() in content]
    assert KEY not in "".join(capfd.readouterr()) + caplog.text
    assert "server refuses: 401" in str(caught.value)


def test_how_sure_it_is_of_each_class_is_learnt(server: Server, tmp_path: Path) -> None:
    names = list(tiny.TOPICS)

    def likely(body: Any) -> Any:
        """Nine tenths for the topic that a text gives away, what is left for the others."""
        said = topic_of(body)
        best = next((name for name in names if name in said), names[0])
        chances = {name: 0.9 if name == best else 0.1 / (len(names) - 1) for name in names}
        others = [{"token": name, "logprob": math.log(chance)} for name, chance in chances.items()]
        return {"content": [{"token": best, "logprob": math.log(0.9), "top_logprobs": others}]}

    server.script.answer = lambda body: likely(body)["content"][0]["token"]
    server.script.likely = likely
    asked = [*overrides(server, "teacher.api.logprobs=5", "distill.max_steps=1", "evaluate.baseline=false",
                        "teacher.api.measured=0"),
             *(one for one in topics(tmp_path) if not one.startswith("teacher.api.measured")), "distill.batch_size=64",
             "distill.objectives=[{kind: logits, temperature: 1.0}]"]
    assert check(read(RECIPES / "api-classification.yaml", asked)).problems == ()
    run = stilla.distill(RECIPES / "api-classification.yaml", *asked)
    assert "24 learnt; of all of these how likely each class is" in "\n".join(run.scores.notes)
    lines = (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    (loss,) = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
    # a student that knows nothing is as far from certain labels as ln C, and from the others less by their entropy
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1 / (len(names) - 1)))
    assert loss == pytest.approx(math.log(len(names)) - entropy * 24 / 54, abs=0.1)


def test_reasons_are_learnt_beside_answers(server: Server, tmp_path: Path) -> None:
    server.script.answer = lambda body: f"It says so: {body['messages'][-1]['content'][:20]}. Answer: one, two"
    asked = overrides(server, "teacher.api.reasons={weight: 0.5}", "teacher.api.answers=1", "distill.max_steps=1",
                      "evaluate.baseline=false", "teacher.api.measured=0")
    run = stilla.distill(RECIPES / "api-generation.yaml", *asked, *prompts(tmp_path))
    assert "24 asked for, 24 learnt; with their reasons, of which a token counts 0.5." in "\n".join(run.scores.notes)
    assert all("Then write Answer: and" in body["messages"][-1]["content"] for body in server.script.asked)


def test_instructions_are_answered_and_repeated_answers_left_out(server: Server, tmp_path: Path) -> None:
    answers = iter(range(10**6))
    server.script.answer = lambda body: ("" if body["messages"][-1]["content"].endswith("3") else
                                         "I'm sorry, but no." if next(answers) % 7 == 0 else "the same")
    run = stilla.distill(RECIPES / "api-generation.yaml", *overrides(server), *prompts(tmp_path))
    said = "\n".join(run.scores.notes)
    assert "48 asked for" in said
    assert re.search(r"left out: .*\d+ repeated", said)
    assert "refused" in said
    assert len({(body["messages"][1]["content"]) for body in server.script.asked}) <= 24
    assert {body["messages"][0]["role"] for body in server.script.asked} == {"system"}


def test_the_last_word_of_conversations_is_learnt(server: Server, tmp_path: Path) -> None:
    server.script.answer = lambda body: f"well, {len(body['messages'])}"
    run = stilla.distill(RECIPES / "api-conversation.yaml", *overrides(server), *talks(tmp_path))
    assert "20 asked for, 20 learnt." in "\n".join(run.scores.notes)
    assert [one["role"] for one in server.script.asked[0]["messages"]] == ["system", "user", "assistant", "user"]


def test_summaries_are_learnt_and_the_teacher_is_measured_by_its_own(server: Server, tmp_path: Path) -> None:
    server.script.answer = summary_of
    server.script.usage = {"prompt_tokens": 60, "completion_tokens": 96}
    with pytest.raises(StillaError, match=r"teacher\.api\.ceiling: .* is the limit"):
        stilla.distill(RECIPES / "api-summarisation.yaml", *overrides(server, "teacher.api.ceiling=0.0055"),
                       *summaries(tmp_path))
    there = len(server.script.asked)
    assert 0 < there < 27 + len(FAULTS)
    run = stilla.distill(RECIPES / "api-summarisation.yaml", *overrides(server), *summaries(tmp_path))
    said = "\n".join(run.scores.notes)
    assert "24 asked for, 24 learnt" in said
    assert "its answers to 6 examples of the data reach rougeL 1, rouge1 1, rouge2" in said
    assert max(server.script.times().values()) <= 1 + len(FAULTS)
    assert sum(server.script.times().values()) <= 30 + len(FAULTS)
    assert run.report.exists()
    assert "gpt-5-mini" in (run.student / "README.md").read_text(encoding="utf-8")


def test_check_says_what_it_costs_and_asks_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read(RECIPES / "api-summarisation.yaml", [*overrides(server), *summaries(tmp_path)])
    found = check(recipe)
    assert not found.problems
    assert any(re.search(r"teacher.api: 27 requests, about .* tokens asked and 2,592 answered .*: about .*, at most", one)
               for one in found.notes)
    assert found.estimate is not None
    assert "completions" not in found.estimate.seconds
    assert not server.script.asked
    dear = read(RECIPES / "api-summarisation.yaml", [*overrides(server, "teacher.api.ceiling=0.001"), *summaries(tmp_path)])
    assert any("teacher.api.ceiling: 0.001 is the limit" in one for one in check(dear).problems)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert any("OPENAI_API_KEY is not set" in one for one in check(recipe).problems)


def test_what_such_a_teacher_cannot_do_is_refused_in_words(server: Server, tmp_path: Path) -> None:
    wrong = ["student.model=null", "student.layers=1", "distill.objectives=[{kind: labels}, {kind: logits}]",
             "completions.num_beams=4", "cache.form=top_k"]
    recipe = read(RECIPES / "api-summarisation.yaml", [*overrides(server), *summaries(tmp_path), *wrong])
    found = "\n".join(check(recipe).problems)
    assert "no layers that could be cut" in found
    assert "objectives[1]: logits asks the teacher for more than texts" in found
    assert "got num_beams" in found
    assert "cache.form: nothing of a teacher behind an address" in found
