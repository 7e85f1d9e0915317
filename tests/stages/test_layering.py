"""Which layers a student gets, where its recipe says how many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, T5Config, T5ForConditionalGeneration

import stilla
from stilla.errors import CompatibilityError, StillaError
from stilla.recipe import ModelSource, StudentSpec
from stilla.recipe.file import read
from stilla.stages import layering
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from tests import tiny
from tests.tasks.tiny import bert_folder, labels_of


@pytest.mark.parametrize(("changes", "count", "kept"), [
    ([0.1, 0.9, 0.2, 0.8], 2, [1, 3]), ([0.5, 0.5, 0.5], 2, [0, 1]), ([0.3, 0.2], 2, [0, 1])])
def test_layers_that_change_most_stay_in_their_order(changes: list[float], count: int, kept: list[int]) -> None:
    assert layering.most(changes, count) == kept


def test_what_a_layer_changes_is_one_minus_the_cosine_over_valid_positions(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path, num_hidden_layers=3, num_labels=2, **labels_of("x", "y"))
    split = Dataset.from_dict({"text": ["a b c d", "b", "good film", "c d"], "label": ["x", "y", "x", "y"]})
    section = TextClassificationData.model_validate({"train": "x", "text": "text", "label": "label"})
    task = TextClassification.understand(section, {"train": split})
    loaded = task.load(ModelSource(model=str(folder)), labelled=True)
    with torch.no_grad():  # the second layer changes nothing but by its last normalisation, which is that before it
        layer: Any = loaded.model.bert.encoder.layer[1]
        for name, parameter in layer.named_parameters():
            if "LayerNorm" not in name:
                parameter.zero_()
    prepared = task.prepare(split, loaded.processor, None, training=False)
    found = layering.influence(loaded.model, task, prepared, batch_size=2)
    assert list(found) == ["layers"]
    sums, seen = torch.zeros(3, dtype=torch.float64), 0
    for text in split["text"]:  # one by one: without padding
        states = loaded.model(**loaded.processor(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        for number in range(3):
            before, after = states[number].double(), states[number + 1].double()
            sums[number] += (1 - torch.cosine_similarity(before, after, dim=-1)).sum().item()
        seen += states[0].shape[1]
    torch.testing.assert_close(torch.tensor(found["layers"], dtype=torch.float64), sums / seen, rtol=1e-5, atol=1e-7)
    assert found["layers"][1] < 1e-6 < min(found["layers"][0], found["layers"][2])
    again = layering.influence(loaded.model, task, prepared, batch_size=4)
    assert again["layers"] == pytest.approx(found["layers"], rel=1e-5, abs=1e-9)


def test_of_two_stacks_each_says_how_many() -> None:
    model = T5ForConditionalGeneration(T5Config(vocab_size=16, d_model=8, d_kv=4, num_heads=2, d_ff=16, num_layers=4,
                                                num_decoder_layers=2))
    assert layering.numbers(model, {"encoder": 2}) == {"encoder": 2, "decoder": 2}
    assert layering.numbers(model, 2) == {"encoder": 2, "decoder": 2}
    assert layering.as_said(model, {"encoder": [0, 3], "decoder": [0]}) == {"encoder": [0, 3], "decoder": [0]}
    for wrong in ({"encoder": [0, 2]}, {"encoder": 5}, {"coder": 2}):
        with pytest.raises(CompatibilityError, match=r"expected how many of encoder \(1 to 4\) and decoder \(1 to 2\)"):
            layering.numbers(model, wrong)


@pytest.mark.parametrize("student", [{"layers": {"keep": [0, 1]}}, {"model": "x"}, {"width": 0.5}])
def test_nothing_to_choose_is_said(student: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="layers_by: chooses which layers stay, and nothing says how many"):
        StudentSpec.model_validate({**student, "layers_by": "auto"})


@pytest.mark.slow
def test_the_lowest_layers_are_the_teachers(tmp_path: Path) -> None:
    run = stilla.distill({**tiny.recipe(tmp_path), "student": {"layers": 2, "layers_by": "lowest"},
                          "distill": {"max_steps": 1, "learning_rate": 1e-9, "precision": "float32"}})
    student, teacher = (AutoModelForSequenceClassification.from_pretrained(run.folder / name)
                        for name in ("student", "teacher"))
    for layer in (0, 1):
        ours, theirs = (one.bert.encoder.layer[layer].attention.self.query.weight for one in (student, teacher))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert read(run.folder / "recipe.yaml").student.layers == {"keep": [0, 1]}


@pytest.mark.slow
def test_the_best_of_several_choices_is_taken_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {**tiny.recipe(tmp_path), "student": {"layers": 2, "layers_by": "auto"}}
    run = stilla.distill(recipe)
    known = json.loads((run.folder / "plan" / "layers.json").read_text())
    assert 2 <= len(known["reached"]) <= 3
    assert known["reached"][known["as"]] == min(known["reached"].values())  # a divergence: less is better
    assert len(known["influence"]["layers"]) == 4
    assert read(run.folder / "recipe.yaml").student.layers == {"keep": known["chosen"]["layers"]}
    capsys.readouterr()
    assert stilla.distill(recipe).scores == run.scores
    assert "each trained for" not in capsys.readouterr().out
    with pytest.raises(StillaError, match=r"student"):
        stilla.distill({**recipe, "student": {"layers": 2, "layers_by": "lowest"}})
