"""Students that exist already, and the map of their layers to a teacher's."""

from __future__ import annotations

import pytest
import transformers as hf
from torch import nn

from stilla.students import automatic_layer_map, given
from tests.families import BART, SMALL, T5


def bert(layers: int) -> hf.PreTrainedModel:
    return hf.BertModel(hf.BertConfig(**SMALL, num_hidden_layers=layers))


def convnext(*depths: int) -> hf.PreTrainedModel:
    sizes = [8] * len(depths)
    return hf.ConvNextModel(hf.ConvNextConfig(num_stages=len(depths), depths=list(depths), hidden_sizes=sizes))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (3, 12, (3, 7, 11)),
        (4, 12, (2, 5, 8, 11)),
        (1, 12, (11,)),
        (5, 12, (2, 4, 7, 9, 11)),
        (4, 4, (0, 1, 2, 3)),
        (4, 2, (0, 0, 1, 1)),
    ],
)
def test_layers_are_mapped_evenly_and_the_last_to_the_last(ours: int, theirs: int, expected: tuple[int, ...]) -> None:
    assert automatic_layer_map(bert(ours), bert(theirs)) == {"layers": expected}


def test_models_of_two_families_are_mapped_by_the_names_of_their_stacks() -> None:
    distilbert = hf.DistilBertModel(hf.DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=24, n_layers=2))
    assert automatic_layer_map(distilbert, bert(4)) == {"layers": (1, 3)}
    bart = hf.BartModel(hf.BartConfig(**{**BART, "encoder_layers": 2, "decoder_layers": 1}))
    assert automatic_layer_map(bart, hf.T5Model(hf.T5Config(**T5))) == {"encoder": (1, 3), "decoder": (2,)}


def test_stages_are_mapped_one_by_one() -> None:
    assert automatic_layer_map(convnext(1, 2), convnext(2, 4)) == {"stages": (1, 3, 5)}


@pytest.mark.slow
def test_stacks_that_do_not_correspond_are_left_out() -> None:
    assert automatic_layer_map(bert(2), convnext(2, 4)) == {}
    assert automatic_layer_map(convnext(1, 1, 1), convnext(2, 4)) == {}
    assert automatic_layer_map(bert(2), hf.BartModel(hf.BartConfig(**BART))) == {}
    assert automatic_layer_map(nn.Linear(1, 1), bert(2)) == {}
    albert = hf.AlbertModel(hf.AlbertConfig(**SMALL, num_hidden_layers=4, embedding_size=8))
    assert automatic_layer_map(albert, bert(2)) == {}


def test_a_given_model_is_the_student_itself() -> None:
    model = bert(2)
    student = given(model, bert(4))
    assert student.model is model
    assert student.layer_map == {"layers": (1, 3)}
