"""Whole runs that learn from examples without labels, in every task: what counts, what changes nothing, what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from datasets import Dataset

import stilla
from stilla.after import evaluate_run, export_run
from stilla.cache import Store
from stilla.check import check
from stilla.data.overlap import Met
from stilla.errors import RecipeError
from stilla.recipe.file import from_options, read
from stilla.stages import training
from tests import tiny
from tests.tasks import pairs, tiny_lm
from tests.tasks.tiny import labels_of, vit_folder

pytestmark = pytest.mark.slow

QUICK = {"max_steps": 6, "batch_size": 8, "precision": "float32", "learning_rate": 1e-3}
EVALUATE = {"resamples": 100, "speed": False}
KINDS = ("text", "image", "causal", "prompts", "talks", "masked", "seq2seq")
TOPICS = list(tiny.TOPICS)


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


def classifier(folder: Path) -> str:
    """A teacher that is sure of something: of words, by chance."""
    place = tiny.bert(folder, layers=3, width=16, dropout=0.0)
    weights = safetensors.torch.load_file(Path(place) / "model.safetensors")
    weights["classifier.weight"] *= 50
    safetensors.torch.save_file(weights, Path(place) / "model.safetensors", {"format": "pt"})
    config = json.loads((Path(place) / "config.json").read_text())
    (Path(place) / "config.json").write_text(json.dumps({**config, **labels_of(*TOPICS)}))
    return place


def picture(seed: int) -> bytes:
    written = BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(written, "PNG")
    return written.getvalue()


def text_rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(seed)
    words = [*tiny.FILLER, *(word for group in tiny.TOPICS.values() for word in group)]
    return [{"text": " ".join(draw.choice(words, draw.integers(3, 12))), "topic": TOPICS[index % 3]}
            for index in range(count)]


def of(kind: str, folder: Path) -> tuple[dict[str, Any], Callable[[int, int], list[dict[str, Any]]], tuple[str, ...]]:
    """Task and teacher, labelled rows by number and seed, and what of them is the label."""
    if kind == "text":
        return {"task": "text-classification", "teacher": classifier(folder)}, text_rows, ("topic",)
    if kind == "image":
        def rows(count: int, seed: int) -> list[dict[str, Any]]:
            return [{"image": picture(seed * 1000 + index), "label": ("cat", "dog")[index % 2]} for index in range(count)]

        teacher = str(vit_folder(folder, **labels_of("cat", "dog")))
        return {"task": "image-classification", "teacher": teacher}, rows, ("label",)
    if kind == "seq2seq":
        pairs.trained("bart").save_pretrained(folder)
        pairs.tokenizer("bart").save_pretrained(folder)
        quick = {"completions": {"by": "teacher", "of": "unlabelled", "max_new_tokens": 7}}
        return {"task": "seq2seq", "teacher": str(folder), **quick}, lambda count, seed: [
            dict(zip(("source", "target"), row)) for row in zip(*pairs.pairs(count, seed).values())], ("target",)
    if kind == "masked":
        teacher = tiny_lm.folder(folder, tiny_lm.bert_lm(), tiny_lm.bert_lm_tokenizer())
        return {"task": "masked-lm", "teacher": teacher}, lambda count, seed: [
            {"text": text} for text in tiny_lm.sentences(count, seed)], ()
    teacher = tiny_lm.folder(folder, tiny_lm.llama(), tiny_lm.byte_tokenizer(template=tiny_lm.CHAT))

    def texts(count: int, seed: int) -> list[dict[str, Any]]:
        made = tiny_lm.sentences(count, seed)
        if kind == "causal":
            return [{"text": text} for text in made]
        if kind == "prompts":
            return [{"prompt": text[:14], "completion": text[14:] or "x"} for text in made]
        return [{"messages": [{"role": "user", "content": text[:14]}, {"role": "assistant", "content": text[14:] or "x"}]}
                for text in made]

    quick = {} if kind == "causal" else {"completions": {"by": "teacher", "of": "unlabelled", "max_new_tokens": 4}}
    return {"task": "causal-lm", "teacher": teacher, **quick}, texts, ("completion",)


def recipe(kind: str, folder: Path, *, labels: str | None = None, train: bool = True, **changes: Any) -> dict[str, Any]:
    """`labels`: what stands in the pool's label column; by default it has none."""
    plain, rows, label = of(kind, folder / "teacher")
    files: dict[str, Any] = {}
    for seed, (split, size) in enumerate((("train", 16), ("validation", 12), ("test", 12), ("unlabelled", 24))):
        made = rows(size, seed)
        if split == "unlabelled":
            made = [{name: value for name, value in row.items() if name not in label or labels is not None} for row in made]
            made = [{name: labels if name in label else value for name, value in row.items()} for row in made]
        if kind == "image":
            files[split] = str(folder / f"{split}.parquet")
            Dataset.from_list(made).to_parquet(files[split])
        else:
            files[split] = lines(folder / f"{split}.jsonl", made)
    if not train:
        del files["train"]
    layers = {"encoder": 1, "decoder": 1} if kind == "seq2seq" else 1
    generation = {"generation": {"max_new_tokens": 7}} if kind == "seq2seq" else {}
    data = {**files, **({"augment": "none"} if kind == "text" else {})}
    return {**plain, "data": data, "student": {"layers": layers}, "distill": QUICK, "allow_weak_teacher": True,
            "evaluate": {**EVALUATE, **generation}, "output": str(folder / "run"), **changes}


def weights(run: stilla.Run, role: str = "student") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run.folder / role / "model.safetensors")


def same(one: stilla.Run, other: stilla.Run, role: str = "student") -> bool:
    a, b = weights(one, role), weights(other, role)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def logged(run: stilla.Run, stage: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["stage"] == stage and "loss" in entry]


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_from_both_and_says_so(kind: str, tmp_path: Path) -> None:
    run = stilla.distill(**recipe(kind, tmp_path, evaluate={**EVALUATE, "baseline": True, **(
        {"generation": {"max_new_tokens": 7}} if kind == "seq2seq" else {})}))
    learnt = dict(run.scores.learnt)
    kept = 24 - learnt.pop("left out: in validation or test data", 0)
    assert learnt["labelled"] == 16
    assert 0 < learnt["unlabelled"] <= kept
    assert kind in ("prompts", "talks", "seq2seq") or learnt["unlabelled"] == kept
    (note,) = [note for note in run.scores.notes if note.startswith("learnt from: ")]
    for page in (run.report, run.student / "README.md"):
        assert f"16 labelled and {learnt['unlabelled']} unlabelled examples" in page.read_text(encoding="utf-8")
    assert f"16 labelled and {learnt['unlabelled']} unlabelled" in note
    assert [entry["step"] for entry in logged(run, "baseline")] == [entry["step"] for entry in logged(run, "student")]
    assert read(run.folder / "recipe.yaml").data.unlabelled is not None


@pytest.mark.parametrize("kind", ["text", "image", "prompts", "seq2seq"])
def test_whatever_labels_the_pool_has_change_nothing(kind: str, tmp_path: Path) -> None:
    without = stilla.distill(**recipe(kind, tmp_path / "without"))
    runs = [stilla.distill(**recipe(kind, tmp_path / name, labels=labels))
            for name, labels in (("a", "food"), ("b", "odd one"))]
    assert all(same(without, run) for run in runs)


@pytest.mark.parametrize("kind", ["text", "image", "causal", "masked"])
def test_a_pool_that_is_the_training_data_gives_plain_distillation_bit_for_bit(kind: str, tmp_path: Path) -> None:
    alone = {**QUICK, "objectives": [{"kind": "logits", "temperature": 2.0}]}
    plain, pool = (recipe(kind, tmp_path / name, distill=alone) for name in ("plain", "pool"))
    if kind != "image":
        number = without_measured(Path(plain["data"]["train"]), Path(pool["data"]["train"]))
    plain["data"].pop("unlabelled")
    pool["data"]["unlabelled"] = pool["data"].pop("train")
    one, other = stilla.distill(**plain), stilla.distill(**pool)
    assert same(one, other)
    assert other.scores.learnt == {"labelled": 0, "unlabelled": 16 if kind == "image" else number}
    assert one.scores.student.quality == other.scores.student.quality


def rows_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def without_measured(*files: Path) -> int:
    """Take out of training files what stands in the measured ones beside them; how much is left."""
    for file in files:
        measured = [row for name in ("validation", "test") for row in rows_in(file.parent / f"{name}.jsonl")]
        met = Met((row["text"],) for row in measured)
        kept = [row for row in rows_in(file) if not met.has((row["text"],))]
        lines(file, kept)
    return len(kept)


@pytest.mark.parametrize("kind", KINDS)
def test_without_labelled_training_data_only_the_teacher_teaches(kind: str, tmp_path: Path) -> None:
    run = stilla.distill(**recipe(kind, tmp_path, train=False))
    assert run.scores.learnt["labelled"] == 0
    written = kind in ("prompts", "talks", "seq2seq")
    objectives = read(run.folder / "recipe.yaml").distill[0].objectives
    assert objectives is not None
    assert [(one.kind, one.weight(0)) for one in objectives] == ([("labels", 0.3), ("logits", 0.7)] if written else
                                                                [("logits", 1.0)])
    again = evaluate_run(run.folder)
    assert again.student.quality == run.scores.student.quality
    assert again.learnt == run.scores.learnt
    if kind in ("text", "causal"):
        assert export_run(run.folder, ["int8"])["int8"].exists()


def test_running_again_skips_and_another_pool_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = recipe("text", tmp_path)
    plain["data"]["unlabelled"] = {"examples": plain["data"]["unlabelled"], "min_confidence": 0.35}
    run = stilla.distill(**plain)
    capfd.readouterr()
    again = stilla.distill(**plain)
    said = capfd.readouterr().err
    assert said.count("finished before, skipped") == 2
    assert "the teacher is asked" not in said
    assert again.scores == run.scores
    (file,) = (run.folder / "unlabelled").glob("*.parquet")
    middle = float(np.median(pq.read_table(file)["confidence"].to_pylist()))
    stricter = {**plain, "data": {**plain["data"], "unlabelled": {**plain["data"]["unlabelled"], "min_confidence": middle}}}
    with pytest.raises(RecipeError, match=r"(?s)stage `student`.*unlabelled: not what it was then"):
        stilla.distill(**stricter)
    lines(tmp_path / "unlabelled.jsonl", text_rows(20, 9))
    with pytest.raises(RecipeError, match=r"(?s)stage `unlabelled`.*unlabelled: not what it was then"):
        stilla.distill(**plain)


def test_interrupted_within_an_epoch_and_continued_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = {"distill": {**QUICK, "max_steps": 10, "unlabelled": {"linear": [0.2, 1.0]}}}
    whole = stilla.distill(**recipe("text", tmp_path / "whole", **share))
    original = training._callbacks

    def with_interrupt(name: str, *rest: Any) -> Any:
        class Press(training.TrainerCallback):
            def on_step_begin(self, args, state, control, **_):
                if state.global_step == 6:
                    os.kill(os.getpid(), signal.SIGINT)

        return [*original(name, *rest), Press()]

    with monkeypatch.context() as patch:
        patch.setattr(training, "_callbacks", with_interrupt)
        with pytest.raises(KeyboardInterrupt):
            stilla.distill(**recipe("text", tmp_path / "parts", **share))
    parts = stilla.distill(**recipe("text", tmp_path / "parts", **share))
    assert same(whole, parts)
    assert parts.scores.learnt == whole.scores.learnt


def test_the_teacher_is_asked_once_about_every_example_of_either_kind(tmp_path: Path) -> None:
    run = stilla.distill(**recipe("text", tmp_path, distill={**QUICK, "max_steps": 20}, cache={"form": "dense"}))
    assert len(Store(run.folder / "cache")) == 16 + run.scores.learnt["unlabelled"]
    again = recipe("text", tmp_path / "other", cache={"form": "dense", "path": str(run.folder / "cache")})
    again["data"].pop("unlabelled")
    stilla.distill(**again)  # a run without them reads the same cache
    assert len(Store(run.folder / "cache")) == 16 + run.scores.learnt["unlabelled"]
    captured = recipe("text", tmp_path / "captured")
    (place,) = stilla.capture(**captured)
    assert len(Store(Path(place))) == 16 + run.scores.learnt["unlabelled"]


def test_a_dataset_in_python_is_learnt_as_a_file_is_and_found_again_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = recipe("text", tmp_path / "file")
    of_file = stilla.distill(**plain)
    rows = rows_in(Path(plain["data"]["unlabelled"]))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    given = {**plain, "data": {**plain["data"], "unlabelled": Dataset.from_list(rows)}, "output": "run"}
    of_python = stilla.distill(**given)
    assert same(of_file, of_python)
    assert stilla.distill(**given).scores == of_python.scores
    monkeypatch.chdir(tmp_path)
    assert evaluate_run(tmp_path / "here" / "run").learnt == of_file.scores.learnt


def test_a_share_may_change_over_training_and_say_how_little_was_seen(tmp_path: Path) -> None:
    changing = {**QUICK, "unlabelled": {"steps": [[0.0, 0.0], [0.5, 1.0]]}}
    run = stilla.distill(**recipe("text", tmp_path, distill=changing))
    assert run.scores.learnt["labelled"] == 16
    assert run.scores.learnt["unlabelled"] == 24  # three steps of eight
    terms = [entry["terms"]["labels"] for entry in logged(run, "student")]
    assert all(value > 0 for value in terms[:3])
    assert not any(terms[3:])


def test_sources_get_the_teachers_texts_and_the_others_keep_their_own(tmp_path: Path) -> None:
    run = stilla.distill(**recipe("seq2seq", tmp_path, labels="not this"))
    (file,) = (run.folder / "completions").glob("*.parquet")
    left_out = run.scores.learnt.get("left out: in validation or test data", 0)
    assert pq.read_table(file).num_rows == 24 - left_out
    assert not any("not" in text for text in pq.read_table(file)["text"].to_pylist())


def test_check_counts_what_is_left_out_and_the_steps_that_more_examples_take(tmp_path: Path) -> None:
    plain = recipe("text", tmp_path, distill={"epochs": 2, "batch_size": 8, "precision": "float32"},
                   evaluate={**EVALUATE, "baseline": True})
    test = json.loads((tmp_path / "test.jsonl").read_text().splitlines()[0])
    pool = lines(tmp_path / "pool.jsonl", [{"text": test["text"]}, *text_rows(400, 9)])
    many = {**plain, "data": {**plain["data"], "unlabelled": {"examples": pool, "min_confidence": 0.1}}}
    few = {**plain, "data": {name: value for name, value in plain["data"].items() if name != "unlabelled"}}
    more, less = check(from_options(many)), check(from_options(few))
    assert not more.problems
    assert any("1 of 401 examples stand in validation or test data" in note for note in more.notes)
    assert "unlabelled: 400 examples; the teacher alone answers for them" in more.notes
    assert any("no share is said, so 96.2% of the examples are unlabelled" in note for note in more.notes)
    assert more.estimate is not None
    assert less.estimate is not None
    assert "unlabelled" in more.estimate.seconds
    assert "unlabelled" not in less.estimate.seconds
    assert more.estimate.seconds["student"].high > 4 * less.estimate.seconds["student"].high


@pytest.mark.parametrize(
    ("kind", "train", "changes", "said"),
    [("text", False, {"evaluate": {"baseline": True}}, "evaluate.baseline: there are no labelled training data"),
     ("text", False, {"distill": {"unlabelled": 0.5}}, "distill.unlabelled: a share of data.unlabelled, and there are no"),
     ("text", False, {"distill": {"objectives": [{"kind": "labels"}]}}, "learns from labels, and there are no labelled"),
     ("causal", False, {"distill": {"objectives": [{"kind": "labels"}]}}, "learns from labels, and there are no labelled"),
     ("seq2seq", True, {"pool": {"min_confidence": 0.5}}, "data.unlabelled.min_confidence: .* here it writes one"),
     ("text", True, {"pool": {"columns": {"body": "x"}}}, "columns: got 'body'; expected .*: text"),
     ("text", True, {"pool": {"overlap": "refuse"}, "also": "test"}, "1 of 25 examples stand in validation or test data")],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_is_trained(
    kind: str, train: bool, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    plain = recipe(kind, tmp_path, train=train)
    pool, also = changes.pop("pool", {}), changes.pop("also", None)
    if also:
        with open(tmp_path / "unlabelled.jsonl", "a", encoding="utf-8") as file:
            file.write((tmp_path / f"{also}.jsonl").read_text().splitlines()[0] + "\n")
    plain["data"]["unlabelled"] = {"examples": plain["data"]["unlabelled"], **pool}
    findings = check(from_options({**plain, **changes}))
    assert any(re.search(said, problem) for problem in findings.problems), findings.problems


def test_a_language_model_writes_texts_that_only_the_teacher_answers_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = tiny.tokenizer()
    writer = tiny_lm.folder(tmp_path / "lm", tiny_lm.llama(len(words), bos_token_id=None, eos_token_id=None, pad_token_id=0,
                                                           num_hidden_layers=1), words)
    data = {"train": lines(tmp_path / "train.jsonl", text_rows(24, 0)),
            "validation": lines(tmp_path / "validation.jsonl", text_rows(9, 1)),
            "test": lines(tmp_path / "test.jsonl", text_rows(9, 2)),
            "unlabelled": {"generate": {"model": writer, "count": 40, "max_new_tokens": 1, "batch_size": 16}}}
    recipe = {"task": "text-classification", "data": data, "teacher": classifier(tmp_path / "teacher"),
              "student": {"layers": 1}, "distill": QUICK, "evaluate": {**EVALUATE, "baseline": False},
              "allow_weak_teacher": True, "output": str(tmp_path / "run")}
    notes = check(from_options(recipe))
    assert any("unlabelled: 40 examples, of which 40 are written first" in note for note in notes.notes)
    assert notes.estimate is not None
    assert "generated" in notes.estimate.seconds
    run = stilla.distill(recipe)
    rows = [row for file in sorted((run.folder / "generated").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len(rows) == 40
    learnt = run.scores.learnt
    assert 0 < learnt["generated"] == len({row["text"] for row in rows} - {""}) < 26  # there are no more words
    assert sum(count for why, count in learnt.items() if why.startswith("left out: generated")) == 40 - learnt["generated"]
    assert any(f"({learnt['generated']} of those that there are were generated)" in note for note in run.scores.notes)
    before = {file.name: file.read_bytes() for file in (run.folder / "generated").iterdir()}
    capfd.readouterr()
    stilla.distill(recipe)
    assert "generated: finished before, skipped" in capfd.readouterr().err
    assert {file.name: file.read_bytes() for file in (run.folder / "generated").iterdir()} == before
    with pytest.raises(RecipeError, match=r"holds the stage `generated` of another recipe"):
        stilla.distill(recipe, "data.unlabelled.generate.temperature=0.5")
