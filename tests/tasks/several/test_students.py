"""Students of several tasks, smaller in other ways than by layers that are named: what is chosen looks at all tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerBase,
)

import stilla
from stilla import data
from stilla.objectives import Labels, Term
from stilla.recipe import Width
from stilla.signals import Dims
from stilla.stages import layering, narrowing
from stilla.students import Plan
from stilla.students.importance import importance
from stilla.tasks.several.model import SeveralModel
from stilla.training.distiller import Distiller
from stilla.training.reduction import Step
from tests import tiny
from tests.students import speaking
from tests.tasks.several import setting
from tests.tasks.several.test_several import Made, batch_of

QUICK = {"epochs": 1, "batch_size": 16, "learning_rate": 2e-3, "precision": "float32"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("students"))


@pytest.mark.slow
def test_all_heads_read_inputs_that_are_named_for_none(made: Made) -> None:
    student = made.student().model
    inputs = {"input_ids": torch.arange(4, 10)[None], "attention_mask": torch.ones(1, 6, dtype=torch.int64)}
    with torch.no_grad():
        said = student(**inputs, output_hidden_states=True)
        named = student(**{f"{name}/{key}": value for name in made.task.parts for key, value in inputs.items()})
    assert torch.equal(said["logits"], named["logits"])
    assert len(said["hidden_states"]) == 3
    assert "hidden_states" not in named


@pytest.mark.slow
def test_what_layers_change_is_the_mean_over_the_tasks(made: Made) -> None:
    pattern, split = made.task.pattern(made.teacher), made.splits["train"]
    found = layering.influence_on_all(pattern, made.task, split, 8)
    each = []
    for name, task in made.task.parts.items():
        loaded = made.task.part(pattern, name)
        prepared = task.prepare(data.part_of(split, name)[0], loaded.processor, None, training=False)
        (changes,) = layering.influence(loaded.model, task, prepared, 8).values()
        each.append(changes)
    assert list(found.values()) == [pytest.approx(np.mean(each, axis=0))]
    assert not np.allclose(*each)
    (stack,) = found
    assert len(found[stack]) == 4


@pytest.mark.slow
def test_what_matters_to_any_of_the_tasks_matters(made: Made) -> None:
    """Importance is by the labels of both: that of units by a batch of both is theirs one by one, as a mean."""
    student = made.student().model
    plan = Plan(student, Width(ffn=0.5, rounds=1))
    distiller = Distiller(student, made.task.terms([Term(Labels())]), made.task, student_dims=Dims(3)).eval()

    def losses(keys: list[int]) -> Any:
        for key in keys:
            batch = batch_of(made, [key], "train")
            counts = {name: float(one) for name, one in made.task.counts(batch).items()}
            yield distiller.loss(batch, None, Step(counts))["loss"]

    groups: dict[str, Any] = {}

    def measured(part: Any, units: Any) -> Any:
        found = {name: importance(part, units, losses(keys)) for name, keys in
                 {"topics": [0, 1], "words": [120, 121], "both": [0, 1, 120, 121]}.items()}
        groups.update(found)
        return found["both"]

    plan.cut(measured)
    for name, both in groups["both"].items():
        assert not torch.allclose(groups["topics"][name], groups["words"][name])
        assert both.shape == groups["topics"][name].shape
    some = made.splits["train"].select([0, 1, 120, 121])
    prepared = made.task.prepare(some, made.student().processor, None, training=False)
    cut = narrowing.measure(Plan(made.student().model, Width(ffn=0.5, rounds=1)), made.task, prepared)
    again = plan.cut(lambda part, units: importance(part, units, losses([0, 1, 120, 121])))
    cuts = [list(one.of(made.student().model).parameters()) for one in (cut, again)]
    for ours, theirs in zip(*cuts, strict=True):
        assert torch.equal(ours, theirs)


def wordpieces(folder: Path) -> dict[str, str]:
    """Teachers of both tasks whose tokenizer has pieces, so that some can be left out."""
    tokenizer: PreTrainedTokenizerBase = speaking.KINDS["bert"]()
    places = {}
    for name, kind, labels in (("topics", BertForSequenceClassification, list(tiny.TOPICS)),
                               ("words", BertForTokenClassification, setting.TAGS)):
        config = BertConfig(
            vocab_size=len(tokenizer) + 3, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
            num_labels=len(labels))
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
        torch.manual_seed(0)
        kind(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        places[name] = str(folder / name)
    return places


@pytest.mark.slow
def test_one_with_fewer_tokens_narrower_layers_and_those_that_change_most(tmp_path: Path) -> None:
    places = wordpieces(tmp_path / "teachers")
    plain = setting.recipe(
        tmp_path, own={"words": places["words"]}, allow_weak_teacher=True, distill=QUICK,
        student={"layers": 2, "width": 0.5, "vocabulary": "data", "layers_by": "influence"},
        evaluate={"resamples": 100, "speed": False})
    plain["teacher"] = {"model": places["topics"]}
    plain["data"]["parts"]["topics"]["data"]["augment"] = "none"
    run = stilla.distill(plain)
    whole = SeveralModel.from_pretrained(run.student)
    encoder = whole.config.encoder
    assert (encoder.hidden_size, encoder.intermediate_size, encoder.num_hidden_layers) == (8, 16, 2)
    before = AutoTokenizer.from_pretrained(places["topics"])
    for name, auto in (("topics", AutoModelForSequenceClassification), ("words", AutoModelForTokenClassification)):
        tokenizer, model = AutoTokenizer.from_pretrained(run.student / name), auto.from_pretrained(run.student / name)
        assert len(tokenizer) == model.config.vocab_size == encoder.vocab_size < len(before)
        inputs = tokenizer(["old bread and salt"], return_tensors="pt")
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        assert tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]) == before.convert_ids_to_tokens(
            before(["old bread and salt"])["input_ids"][0])
        with torch.no_grad():
            said = whole(**{f"{name}/{key}": value for key, value in inputs.items()})["parts"][name]["logits"]
            torch.testing.assert_close(model(**inputs).logits, said, atol=1e-6, rtol=1e-6)
    notes = "\n".join(run.scores.notes)
    assert "encoder.hidden_size 16 → 8" in notes
    assert "tokens cut to" in notes
    assert "encoder.hidden_size 16 → 8" in (run.student / "README.md").read_text(encoding="utf-8")
    chosen = json.loads((run.folder / "plan" / "layers.json").read_text(encoding="utf-8"))
    assert chosen["as"] == "influence"


@pytest.mark.slow
def test_a_limit_is_of_the_encoder_with_all_heads(tmp_path: Path) -> None:
    plain = setting.recipe(
        tmp_path, own={"words": setting.tagger(tmp_path / "tagger")}, allow_weak_teacher=True, distill=QUICK,
        student={"size": 0.6}, evaluate={"resamples": 100, "speed": False})
    plain["data"]["parts"]["topics"]["data"]["augment"] = "none"
    run = stilla.distill(plain)
    whole = 38_533  # four layers with both heads
    assert 0.3 * whole < run.scores.student.cost.parameters <= 0.6 * whole
    assert SeveralModel.from_pretrained(run.student).config.encoder.num_hidden_layers == 2
