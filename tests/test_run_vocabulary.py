"""Whole runs whose students keep some of their teacher's tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

import stilla
from stilla.check import check
from stilla.errors import RecipeError
from stilla.recipe import Recipe
from stilla.run import Run
from stilla.students.vocabulary import with_tokens
from tests.students import speaking
from tests.students.test_vocabulary import kept_of, strings
from tests.test_run import interrupt

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
TRAIN = [line for line in speaking.CORPUS if "grandmother" not in line and "replayed" not in line]
OTHER = [line for line in speaking.CORPUS if "grandmother" in line or "replayed" in line]


def written(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {split: str(folder / f"{split}.jsonl") for split in rows}


def by_split(make: Any) -> dict[str, list[Any]]:
    """Validation and test have words that the training data do not have."""
    return {"train": [make(line) for line in TRAIN[::3]], "validation": [make(line) for line in OTHER[::4]],
            "test": [make(line) for line in OTHER[1::4]]}


def classes(folder: Path) -> dict[str, str]:
    return written(folder, by_split(lambda line: {
        "text": line, "label": "animal" if "cat" in line or "dog" in line else "other"}))


def lines(folder: Path) -> dict[str, str]:
    return written(folder, by_split(lambda line: {"text": line}))


def pairs(folder: Path) -> dict[str, str]:
    return written(folder, by_split(lambda line: {"source": line, "target": " ".join(reversed(line.split()))}))


def teacher(folder: Path, task: str) -> str:
    torch.manual_seed(0)
    kind, make = {
        "text-classification": ("bert", lambda size: hf.BertForSequenceClassification(hf.BertConfig(
            vocab_size=size, num_labels=2, **SIZES))),
        "masked-lm": ("bert", lambda size: hf.BertForMaskedLM(hf.BertConfig(vocab_size=size, **SIZES))),
        "causal-lm": ("llama3", lambda size: hf.LlamaForCausalLM(hf.LlamaConfig(
            vocab_size=size, bos_token_id=0, eos_token_id=2, pad_token_id=1, max_position_embeddings=128,
            tie_word_embeddings=True, **SIZES))),
        "seq2seq": ("t5", lambda size: hf.T5ForConditionalGeneration(hf.T5Config(
            vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)))}[task]
    tokenizer = speaking.KINDS[kind]()
    make(len(tokenizer) + 3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


DATA = {"text-classification": classes, "masked-lm": lines, "causal-lm": lines, "seq2seq": pairs}


def recipe(folder: Path, task: str, **changes: Any) -> dict[str, Any]:
    evaluate: dict[str, Any] = {"baseline": True, "resamples": 100, "speed": False}
    if task == "seq2seq":
        evaluate["generation"] = {"max_new_tokens": 8, "metrics": ["chrf"]}
    return {
        "task": task, "data": {**DATA[task](folder / "data"), "max_length": 32},
        "teacher": {"model": teacher(folder / "teacher", task), "train": {
            "epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "precision": "float32"}},
        "student": {"layers": 2, "vocabulary": "data"},
        "distill": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": evaluate, "output": str(folder / "run"), "allow_weak_teacher": True, **changes}


def same_strings(run: Run, before: str) -> None:
    """In training texts, and in every other text what is said again."""
    old, new = AutoTokenizer.from_pretrained(before), AutoTokenizer.from_pretrained(run.student)
    assert len(new) < len(old)
    for line in TRAIN[::3]:
        assert strings(new, line) == strings(old, line)
    assert any(strings(new, line) != strings(old, line) for line in OTHER)
    for line in (*OTHER, *speaking.STRANGE):
        assert new.decode(new(line)["input_ids"]) == old.decode(old(line)["input_ids"])


def test_a_classifier_with_fewer_tokens_is_distilled_exported_and_loaded_as_any_other(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "text-classification", export=["onnx", "int8"])
    run = stilla.distill(asked)
    same_strings(run, asked["teacher"]["model"])
    small, whole = (one.cost.tokens for one in (run.scores.student, run.scores.teacher))
    assert small is not None
    assert whole is not None
    assert small < whole
    assert run.scores.subjects["onnx"].cost.tokens == small
    tokenizer = AutoTokenizer.from_pretrained(run.student)
    model = AutoModelForSequenceClassification.from_pretrained(run.student)
    assert model.config.vocab_size == len(tokenizer) == small
    assert {one["label"] for one in pipeline("text-classification", str(run.student))(OTHER[:3])} <= {"animal", "other"}
    (note,) = [note for note in run.scores.notes if note.startswith("vocabulary: ")]
    assert "tokens cut to" in note
    assert "words are made of other tokens than before" in note
    assert note.endswith("none has become unknown (of the test data)")
    card = (run.student / "README.md").read_text(encoding="utf-8")
    assert note in card
    assert "those of its tokens that its training texts use" in card
    assert "vocabulary" in run.report.read_text(encoding="utf-8")
    again = stilla.distill(asked)  # everything is found, nothing refused
    assert again.scores == run.scores
    stilla.evaluate_run(run.folder, asked["data"]["test"])


@pytest.mark.parametrize("task", ["masked-lm", "causal-lm", "seq2seq"])
def test_a_language_model_with_fewer_tokens_is_distilled_and_loaded_as_any_other(task: str, tmp_path: Path) -> None:
    asked = recipe(tmp_path, task, export=["onnx"])
    run = stilla.distill(asked)
    same_strings(run, asked["teacher"]["model"])
    scores = run.scores
    assert scores.subjects["onnx"].quality["test"]["perplexity"].value == pytest.approx(
        scores.student.quality["test"]["perplexity"].value, rel=1e-3)
    assert scores.metric == ("chrf" if task == "seq2seq" else "bits_per_byte")
    for name in ("teacher", "student", "baseline"):
        quality = scores.subjects[name].quality["test"]
        assert {"bits_per_byte", "perplexity", "token_accuracy"} <= {*quality}
    assert scores.student.kl["test"] >= 0
    assert "test" in scores.student.agreement
    assert any("bits per byte are of each model by its own tokens" in note for note in scores.notes)
    assert any("on tokens that the student does not have" in note for note in scores.notes)
    again = stilla.distill(asked)
    assert again.scores == scores
    if task == "causal-lm":
        model, tokenizer = AutoModelForCausalLM.from_pretrained(run.student), AutoTokenizer.from_pretrained(run.student)
        told = pipeline("text-generation", str(run.student))("the cat", max_new_tokens=3, do_sample=False)
        assert told[0]["generated_text"].startswith("the cat")
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    stilla.evaluate_run(run.folder, asked["data"]["test"])


@pytest.mark.parametrize(("task", "changes"), [
    ("text-classification", {"student": {"vocabulary": {"extra": 5}, "lora": {"r": 2}},
                             "distill": {"objectives": [{"kind": "logits"}, {"kind": "hidden"}]}}),
    ("text-classification", {"student": {"layers": {"keep": [0, 2]}, "vocabulary": {"tokens": 110}},
                             "data": {"augment": "light"}}),
    ("text-classification", {"student": {"config": {"num_hidden_layers": 1}, "vocabulary": "data"}, "cache": "dense",
                             "data": {"augment": "none"}}),
    ("causal-lm", {"cache": {"form": "top_k", "k": 20}, "distill": [
        {"objectives": [{"kind": "hidden"}]}, {"objectives": [{"kind": "logits", "divergence": "jsd"}]}]}),
    ("seq2seq", {"completions": {"by": "teacher", "max_new_tokens": 6}}),
], ids=["lora and hidden", "kept layers, a number of tokens, other words", "random weights", "two stages from a cache",
        "written by the teacher"])
def test_it_works_with(task: str, changes: Mapping[str, Any], tmp_path: Path) -> None:
    asked = recipe(tmp_path, task)
    stage = {**asked["distill"], "max_steps": 4}
    given = changes.get("distill", {})
    stages = [{**stage, **one} for one in given] if isinstance(given, list) else {**stage, **given}
    run = stilla.distill({**asked, **changes, "data": {**asked["data"], **changes.get("data", {})}, "distill": stages})
    small, whole = run.scores.student.cost.tokens, run.scores.teacher.cost.tokens
    assert small is not None
    assert whole is not None
    assert small < whole
    wanted = changes.get("student", {}).get("vocabulary")
    if isinstance(wanted, dict) and "tokens" in wanted:
        assert small == wanted["tokens"]
    loaded = AutoTokenizer.from_pretrained(run.student)
    assert len(loaded) == small
    assert len(AutoTokenizer.from_pretrained(run.folder / "baseline")) == small


def test_tokens_of_unlabelled_texts_are_kept_too(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "text-classification")
    seen = ["a grandmother", "replayed again", "my playground"]
    files = written(tmp_path / "pool", {"pool": [{"text": line} for line in seen]})
    run = stilla.distill({**asked, "data": {**asked["data"], "unlabelled": files["pool"]}})
    old, new = AutoTokenizer.from_pretrained(asked["teacher"]["model"]), AutoTokenizer.from_pretrained(run.student)
    for line in seen:
        assert strings(new, line) == strings(old, line)
    without = with_tokens(old, kept_of(old, TRAIN[::3]).order)
    assert any(strings(without, line) != strings(old, line) for line in seen)


def test_a_given_student_loses_tokens_of_its_own(tmp_path: Path) -> None:
    """Its tokenizer is another than the teacher's, of which nothing is cut."""
    asked = recipe(tmp_path, "text-classification")
    own = speaking.roberta()
    torch.manual_seed(1)
    hf.RobertaForSequenceClassification(hf.RobertaConfig(
        vocab_size=len(own), num_labels=2, pad_token_id=1, max_position_embeddings=80, **SIZES,
    )).save_pretrained(tmp_path / "own")
    own.save_pretrained(tmp_path / "own")
    run = stilla.distill({**asked, "student": {"model": str(tmp_path / "own"), "vocabulary": "data"}})
    loaded = AutoTokenizer.from_pretrained(run.student)
    assert 261 < len(loaded) < len(own)
    for line in TRAIN[::3]:
        assert strings(loaded, line) == strings(own, line)


def test_interrupted_and_continued_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe(tmp_path, "causal-lm", cache="hidden")
    whole = stilla.distill(asked)
    asked["output"] = str(tmp_path / "again")
    with monkeypatch.context() as patch:
        interrupt(patch, "student", 2)
        with pytest.raises(KeyboardInterrupt):
            stilla.distill(asked)
    again = stilla.distill(asked)
    one, other = (load_file(run.student / "model.safetensors") for run in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (whole.student / "tokenizer.json").read_bytes() == (again.student / "tokenizer.json").read_bytes()


def test_other_training_texts_are_another_run(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "text-classification")
    stilla.distill(asked)
    with pytest.raises(RecipeError, match=r"vocabulary.*tokens"):
        stilla.distill({**asked, "student": {"layers": 2, "vocabulary": {"tokens": 110}}})


def test_check_says_how_many_tokens_there_would_be_and_what_they_cost(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "masked-lm")
    found = check(Recipe.model_validate(asked | {"distill": [asked["distill"]]}))
    assert found.problems == ()
    (note,) = [note for note in found.notes if note.startswith("vocabulary: ")]
    run = stilla.distill(asked)
    assert note.startswith(f"vocabulary: {run.scores.teacher.cost.tokens - 3:,} tokens cut to "  # type: ignore[operator]
                           f"{run.scores.student.cost.tokens:,}; ")
    assert f"to {run.scores.student.cost.parameters:,} parameters" in note
    wrong = check(Recipe.model_validate(asked | {
        "distill": [asked["distill"]], "student": {"layers": 2, "vocabulary": {"tokens": 3}}}))
    assert any(problem.startswith("student.vocabulary.tokens: got 3; expected at least ") for problem in wrong.problems)
