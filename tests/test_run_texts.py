"""Whole runs of models that write: what the student learns, what is written and measured, what is skipped."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from transformers import LlamaForCausalLM

import stilla
from stilla import data, tasks
from stilla.check import check
from stilla.check.estimate import FASTER, SLOWER, Range
from stilla.check.estimate.writing import TOKENS, Pace, pace
from stilla.errors import RecipeError, StillaError
from stilla.evaluate.generate import Decoding, generate
from stilla.recipe.file import from_options, read
from stilla.stages.defaults import resolved_writing
from stilla.tasks.base import Prepared
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.translations import CUT
from stilla.tasks.language.writing import Writes
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks import pairs
from tests.tasks.tiny_lm import byte_tokenizer, folder, llama

QUICK = {"max_steps": 4, "batch_size": 8, "precision": "float32", "learning_rate": 1e-3}


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    teacher = folder / "teacher"
    if not teacher.exists():
        pairs.trained("bart").save_pretrained(teacher)
        pairs.tokenizer("bart").save_pretrained(teacher)
    return {
        "task": "seq2seq", "data": pairs.files(folder / "data", train=40, validation=16, test=16),
        "teacher": str(teacher), "student": {"layers": {"encoder": 1, "decoder": 1}}, "distill": QUICK,
        "evaluate": {"baseline": True, "resamples": 100, "speed": False, "generation": {"max_new_tokens": 7}},
        "output": str(folder / "run"), **changes}


@pytest.mark.slow
def test_texts_are_measured_and_are_the_headline(tmp_path: Path) -> None:
    run = stilla.distill(**recipe(tmp_path))
    assert run.scores.metric == "bleu"
    assert list(run.scores.teacher.quality["test"]) == ["bleu", "chrf", "perplexity", "token_accuracy"]
    assert run.scores.teacher["bleu"] > 0.5 > run.scores.student["bleu"]
    assert run.scores.gap is not None
    assert run.scores.difference is not None
    assert run.scores.student.kl["test"] > 0
    assert "BLEU" in run.report.read_text(encoding="utf-8")
    assert "bleu" in (run.student / "README.md").read_text(encoding="utf-8")
    kept = read(run.folder / "recipe.yaml").evaluate.generation
    assert kept is not None
    assert kept.metrics == ("bleu", "chrf")


@pytest.mark.slow
def test_written_texts_are_measured_by_slices_and_on_other_data(tmp_path: Path) -> None:
    files = pairs.files(tmp_path / "mine", train=40, validation=16, test=80)
    rows = [json.loads(line) for line in Path(files["test"]).read_text(encoding="utf-8").splitlines()]
    Path(files["test"]).write_text("".join(
        json.dumps({**row, "domain": "ab"[number // 2 % 2]}) + "\n" for number, row in enumerate(rows)), encoding="utf-8")
    other = pairs.files(tmp_path / "other", test=32)["test"]
    evaluate = {"resamples": 100, "speed": False, "baseline": True, "slices": "domain",
                "generation": {"max_new_tokens": 7, "limit": 40}}
    run = stilla.distill(**recipe(tmp_path, data={**files, "shifted": {"other": other}}, evaluate=evaluate, export=["onnx"]))
    assert run.scores.metric == "bleu"
    assert [(one.name, one.examples) for one in run.scores.slices] == [("a", 20), ("b", 20)]
    assert [(one.name, one.examples) for one in run.scores.shifted] == [("other", 32)]
    for one in (*run.scores.slices, *run.scores.shifted):
        assert set(one.quality) == {"teacher", "student", "baseline", "onnx"}
    assert run.scores.shifted[0].gap is not None
    assert run.scores.subjects["student"].quality["shifted.other"]["perplexity"].value > 1


@pytest.mark.slow
def test_speed_is_that_of_writing(tmp_path: Path) -> None:
    evaluate = {"resamples": 100, "baseline": True, "generation": {"max_new_tokens": 7, "limit": 8}}
    run = stilla.distill(**recipe(tmp_path, evaluate=evaluate, export=["onnx"]))
    costs = {name: one.cost for name, one in run.scores.subjects.items()}
    assert set(costs) == {"teacher", "baseline", "student", "onnx"}
    assert {cost.timed for cost in costs.values()} == {"whole texts of at most 7 tokens, written greedily"}
    methods = {cost.energy_method or "" for cost in costs.values()}
    assert all(method.startswith("measured") or method.endswith("of one forward over a whole text") for method in methods)
    assert all(cost.latency_median_ms and cost.throughput for cost in costs.values())
    assert any(note == "speed: of writing whole texts, token by token" for note in run.scores.notes)
    assert "the whole text written" in run.report.read_text(encoding="utf-8")
    beams = {**evaluate, "generation": {**evaluate["generation"], "num_beams": 2}}
    again = stilla.distill(**recipe(tmp_path, evaluate=beams, export=["onnx"]))
    assert {one.cost.timed for one in again.scores.subjects.values()} == {"forward"}  # exported files write without beams
    assert any(note == "speed: of one forward, not of writing" for note in again.scores.notes)


@pytest.mark.slow
def test_a_student_with_other_tokens_learns_what_the_teacher_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    words = (*pairs.SPECIAL, *reversed(pairs.VOCABULARY[len(pairs.SPECIAL):]))
    pairs.model("t5", seed=1).save_pretrained(other)
    pairs.tokenizer("t5", words=words).save_pretrained(other)
    plain = recipe(tmp_path, student=str(other))
    with pytest.raises(StillaError, match=r"number \d+ tokens differently.*completions: teacher"):
        stilla.distill(**plain)
    plain = {**plain, "completions": {"by": "teacher", "max_new_tokens": 6}, "output": str(tmp_path / "second")}
    run = stilla.distill(**plain)
    kept = read(run.folder / "recipe.yaml")
    assert [spec.kind for spec in kept.distill[0].objectives or ()] == ["labels"]
    # perplexities would be over other tokens; of bytes both have the same
    assert list(run.scores.student.quality["test"]) == ["bleu", "chrf", "bits_per_byte"]
    assert not run.scores.student.agreement
    settings = json.loads((run.folder / "completions" / "settings.json").read_text(encoding="utf-8"))
    assert run.scores.spent["completions"]["seconds"] > 0
    assert settings["decoding"]["max_new_tokens"] == 6
    capsys.readouterr()
    again = stilla.distill(**plain)
    said = capsys.readouterr().err
    assert "completions: finished before, skipped" in said
    assert again.scores == run.scores
    with pytest.raises(RecipeError, match=r"holds the stage `completions` of another recipe.*\n.*max_new_tokens: 6 -> 5"):
        stilla.distill(**{**plain, "completions": {"by": "teacher", "max_new_tokens": 5}})


def answers(folder: Path, count: int, seed: int) -> str:
    """Prompts whose completion is short for one word and long for the other."""
    draw = random.Random(seed)
    rows = [{"prompt": f"{draw.randrange(10)} {word}: ", "completion": {"no": "off", "yes": "on and on and on"}[word]}
            for word in draw.choices(("yes", "no"), k=count)]
    folder.mkdir(exist_ok=True)
    file = folder / f"{seed}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(file)


@pytest.mark.slow
def test_conversations_with_tools_are_distilled_and_answered_by_the_teacher(tmp_path: Path) -> None:
    """Messages with unequal keys, as JSON lines have them; the written answers take the place of the last ones."""
    template = ("{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
                "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}</s>"
                "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")
    tokenizer = byte_tokenizer(template=template)
    tokenizer.model_max_length = 256
    teacher = folder(tmp_path / "teacher", llama(max_position_embeddings=256), tokenizer)
    rows = [{"tools": [{"type": "function", "function": {"name": "rain"}}], "messages": [
        {"role": "user", "content": f"rain {number}?"}, {"role": "assistant", "content": "bad", "weight": 0},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "rain", "arguments": {"at": number}}}]},
        {"role": "tool", "content": "{}"}, {"role": "assistant", "content": "no"}]} for number in range(24)]
    file = tmp_path / "talks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = stilla.distill(
        task="causal-lm", data={"train": str(file), "test": {"split": 0.2}}, teacher=teacher, student={"layers": 1},
        completions={"by": "teacher", "max_new_tokens": 4}, distill=QUICK, allow_weak_teacher=True,
        evaluate={"resamples": 100, "speed": False, "generation": {"metrics": ["exact_match"], "max_new_tokens": 4}},
        output=str(tmp_path / "run"))
    assert set(run.scores.student.quality["test"]) == {"perplexity", "token_accuracy", "exact_match"}
    section = read(run.folder / "recipe.yaml").data
    assert (section.messages, section.tools) == ("messages", "tools")
    splits = data.load(section, seed=42)
    task = tasks.find("causal-lm").understand(section, splits)
    assert isinstance(task, Writes)
    taught = task.prepare(task.answered(splits["train"], ["sun"] * len(splits["train"]), [False] * len(splits["train"])),
                          tokenizer, None, training=True)
    labels = taught.collate([0]).labels
    assert labels is not None
    assert re.fullmatch(r'rain \{"at": \d+\}</s>sun</s>', tokenizer.decode(labels[0][labels[0] != NO_ROW]))


@pytest.mark.slow
def test_a_causal_student_learns_what_the_teacher_writes_after_its_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: dict[bool, Prepared] = {}
    prepare = CausalLM.prepare

    def watched(task: CausalLM, split: Dataset, *given: Any, **how: Any) -> Prepared:
        made = prepare(task, split, *given, **how)
        if how["training"]:
            learnt[CUT in split.column_names] = made
        return made

    monkeypatch.setattr(CausalLM, "prepare", watched)
    files = {split: answers(tmp_path / "data", size, seed)
             for seed, (split, size) in enumerate({"train": 48, "validation": 16, "test": 16}.items())}
    teacher = folder(tmp_path / "teacher", llama(hidden_size=32, initializer_range=0.1), byte_tokenizer())
    run = stilla.distill(
        task="causal-lm", data={**files, "prompt": "prompt", "completion": "completion"},
        teacher={"model": teacher, "train": {**QUICK, "max_steps": 100, "batch_size": 16, "learning_rate": 1e-2}},
        student={"layers": 1}, completions={"by": "teacher", "max_new_tokens": 8},
        distill={**QUICK, "max_steps": 60, "learning_rate": 1e-2}, allow_weak_teacher=True,
        evaluate={"baseline": False, "resamples": 100, "speed": False, "generation": {"max_new_tokens": 8}},
        output=str(tmp_path / "run"))
    parts = sorted((run.folder / "completions").glob("part-*.parquet"))
    rows = sorted((row for part in parts for row in pq.read_table(part).to_pylist()), key=lambda row: row["key"])
    assert [row["key"] for row in rows] == list(range(48))
    written = {row["text"]: row["cut"] for row in rows}
    assert written == {"off": False, "on and o": True}
    assert [spec.kind for spec in read(run.folder / "recipe.yaml").distill[0].objectives or ()] == ["labels"]
    taught = learnt[True]
    tokenizer = byte_tokenizer()
    for index, row in enumerate(rows):
        labels = taught.collate([index]).labels
        assert labels is not None
        said = tokenizer.decode(labels[labels != NO_ROW])
        assert said == row["text"] + ("" if row["cut"] else "</s>")
    student = LlamaForCausalLM.from_pretrained(run.student)
    assert student.config.num_hidden_layers == 1
    task = CausalLM.understand(read(run.folder / "recipe.yaml").data, {"train": Dataset.from_json(files["test"])})
    asked = task.asked(Dataset.from_json(files["test"]), tokenizer)
    said = set(generate(student, task, asked, tokenizer, Decoding(8)).answers.given)
    assert said == {"off", "on and o"}


def test_what_writes_nothing_is_refused_before_any_training(tmp_path: Path) -> None:
    files = pairs.files(tmp_path / "data")
    plain = {"task": "masked-lm", "data": {**files, "text": "source"}, "teacher": "./none", "student": 2}
    with pytest.raises(StillaError, match=r"generation: a field of seq2seq, .*causal-lm and image-text-to-text; masked-lm"):
        _resolved(plain, evaluate={"generation": {}})
    plain = {**plain, "task": "causal-lm"}
    _resolved(plain, evaluate={"generation": {"metrics": []}})
    with pytest.raises(StillaError, match=r"evaluate\.generation: plain text asks for nothing.*or leave it out"):
        _resolved(plain, evaluate={"generation": {"metrics": ["rougeL"]}})


def lengths(texts: list[str], references: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


@pytest.mark.slow
def test_a_function_of_ones_own_can_be_the_headline(tmp_path: Path) -> None:
    own = "tests.test_run_texts:lengths"
    asked = {"baseline": True, "resamples": 100, "speed": False, "metric": own}
    (problem,) = check(from_options(recipe(tmp_path, evaluate=asked))).problems
    assert "Name it in evaluate.generation.metrics too." in problem
    generation = {"max_new_tokens": 7, "metrics": ["bleu", own]}
    run = stilla.distill(**recipe(tmp_path, evaluate={**asked, "generation": generation}))
    assert run.scores.metric == "lengths"
    assert run.scores.student["lengths"] > 0
    assert "lengths" in run.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_check_says_what_is_written_and_how_long_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = recipe(tmp_path, completions={"by": "teacher", "max_new_tokens": 11}, export=["onnx"])
    found = check(from_options(plain))
    assert not found.problems
    assert ("writing: every model writes 32 texts of up to 7 tokens to be measured; the teacher writes 40 texts to be "
            "learnt") in found.notes
    assert found.estimate is not None
    assert list(found.estimate.seconds) == ["student", "baseline", "export", "evaluation", "completions", "writing"]
    assert 0 < found.estimate.seconds["writing"].low < found.estimate.seconds["writing"].high
    # the targets of these pairs are of 3 to 7 tokens with the end, in the mean t
    monkeypatch.setattr("stilla.check.estimate.writing.pace", lambda *given: Pace(1.0, 0.5))
    seconds = _estimated(plain)
    t = 1 + (seconds["completions"].low / FASTER / 40 - 1) / 0.5
    assert 3 < t < 7
    assert seconds["completions"].high == pytest.approx(SLOWER * 40 * (1 + 0.5 * 10))
    # the teacher, the student, the baseline and the exported file
    assert seconds["writing"].low == pytest.approx(FASTER * 4 * 32 * (1 + 0.5 * (t - 1)))
    assert seconds["writing"].high == pytest.approx(SLOWER * 4 * 32 * (1 + 0.5 * 6))
    plain["evaluate"] = {**plain["evaluate"], "speed": True, "generation": {"max_new_tokens": 7, "limit": 5, "batch_size": 2}}
    assert _estimated(plain)["writing"].high == pytest.approx(SLOWER * (4 * 10 + 3 * (10 + 3 * 2)) * 4)


def _estimated(plain: dict[str, Any]) -> Mapping[str, Range]:
    found = check(from_options(plain)).estimate
    assert found is not None
    return found.seconds


@pytest.mark.slow
def test_the_pace_of_writing_is_measured_as_a_run_writes(tmp_path: Path) -> None:
    whole = from_options(recipe(tmp_path))
    splits = data.load(whole.data, seed=0)
    task = tasks.find(whole.task).understand(whole.data, splits)
    assert isinstance(task, Writes)
    teacher = task.load(whole.teacher, labelled=True)
    asked: list[tuple[int, int, int]] = []

    class Watched(type(teacher.model)):  # type: ignore[misc]
        def generate(self, **given: Any) -> Any:
            made = super().generate(**given)
            config = self.generation_config
            asked.append((len(made), config.num_beams, made.shape[1] - 1))
            return made

    teacher.model.__class__ = Watched
    before = teacher.model.generation_config.to_dict()
    measured = pace(task, teacher, splits["validation"], Decoding(num_beams=2), 16, "cpu")
    assert 0 < measured.first < measured(2) < measured(20) < 1
    assert {beams for _, beams, _ in asked} == {2}
    assert {(texts, tokens) for texts, _, tokens in asked} >= {(2, 1), (16, 1), (16, TOKENS + 1)}
    assert teacher.model.generation_config.to_dict() == before


@pytest.mark.slow
def test_a_headline_that_is_not_measured_is_known_before_any_training(tmp_path: Path) -> None:
    files = pairs.files(tmp_path / "data")
    plain: dict[str, Any] = {"task": "causal-lm", "data": {**files, "prompt": "source", "completion": "target"},
             "student": {"layers": 1},
             "teacher": folder(tmp_path / "teacher", llama(), byte_tokenizer()), "evaluate": {"metric": "rougeL"}}
    (problem,) = check(from_options(plain)).problems
    assert problem.startswith("evaluate.metric: got 'rougeL'; expected perplexity or token_accuracy.")
    assert "Name it in evaluate.generation.metrics too" in problem
    plain["evaluate"] = {"metric": "rougeL", "generation": {"metrics": ["rougeL"]}}
    assert check(from_options(plain)).problems == ()


def _resolved(plain: dict[str, Any], **changes: Any) -> None:
    whole = from_options({**plain, **changes})
    task = tasks.find(whole.task).understand(whole.data, data.load(whole.data, seed=0))
    resolved_writing(whole.evaluate, task)
