"""Integrated gradients against captum, and their agreement against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from scipy.stats import spearmanr
from torch import Tensor

from stilla.evaluate.reasons import CELLS, LEAST, Weighed, agreement, integrated, mean_of
from stilla.signals import Batch, Side
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.vision.image_classification import ImageClassification
from tests.models.test_inputs import IDS, MASK, picture, text

STEPS = 16


def batch(**inputs: Tensor) -> Batch:
    return Batch(student=inputs, teacher=inputs)


@pytest.mark.slow
def test_of_texts_they_are_captums() -> None:
    captum = pytest.importorskip("captum.attr")
    model = text()
    task = TextClassification.of_model(model)
    found = integrated(model, task, batch(input_ids=IDS, attention_mask=MASK), Side.TEACHER, STEPS)
    oracle = captum.LayerIntegratedGradients(
        lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits, model.get_input_embeddings())
    # the row of padding is zero: captum's baseline is nothing, too
    expected = oracle.attribute(IDS, baselines=torch.zeros_like(IDS), target=found.classes, n_steps=STEPS,
                                additional_forward_args=(MASK,)).sum(-1) * MASK
    np.testing.assert_allclose(found.weights, expected.detach().numpy(), rtol=0, atol=1e-9)  # its points are float32
    assert found.there.tolist() == MASK.bool().tolist()


@pytest.mark.slow
def test_of_pictures_they_are_captums_summed_in_cells() -> None:
    captum = pytest.importorskip("captum.attr")
    model, pixels = picture(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = integrated(model, ImageClassification.of_model(model), batch(pixel_values=pixels), Side.STUDENT, STEPS)
    expected = captum.IntegratedGradients(lambda one: model(pixel_values=one).logits).attribute(
        pixels.clone().requires_grad_(), target=found.classes, n_steps=STEPS)
    np.testing.assert_allclose(found.weights, expected.sum(1).flatten(1).detach().numpy(), rtol=0, atol=1e-9)
    assert found.grid == (8, 8)


@pytest.mark.slow
def test_all_positions_together_are_what_the_logit_gains() -> None:
    model, pixels = picture(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = integrated(model, ImageClassification.of_model(model), batch(pixel_values=pixels), Side.STUDENT, 64)
    with torch.no_grad():
        gained = (model(pixel_values=pixels).logits - model(pixel_values=0 * pixels).logits).gather(1, found.classes[:, None])
    np.testing.assert_allclose(found.weights.sum(1), gained[:, 0].numpy(), rtol=1e-6)


@pytest.mark.slow
def test_large_pictures_are_summed_in_few_cells() -> None:
    torch.manual_seed(0)
    model = hf.ViTForImageClassification(hf.ViTConfig(
        image_size=32, patch_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    found = integrated(model, ImageClassification.of_model(model.eval()), batch(pixel_values=torch.randn(1, 3, 32, 32)),
                       Side.STUDENT, 2)
    assert found.grid == (CELLS, CELLS)
    assert found.weights.shape == (1, CELLS**2)


@pytest.mark.slow
def test_a_model_agrees_with_itself_and_padding_has_no_part() -> None:
    model = text()
    task = TextClassification.of_model(model)
    one = integrated(model, task, batch(input_ids=IDS, attention_mask=MASK), Side.TEACHER, 4)
    np.testing.assert_allclose(agreement(one, one), 1.0)
    noisy = Weighed(np.where(one.there, one.weights, 99.0), one.there, one.classes)
    np.testing.assert_allclose(agreement(noisy, one), 1.0)


def test_agreement_is_spearmans() -> None:
    draw = np.random.default_rng(0)
    ours, theirs = draw.integers(0, 4, (2, 5, 9)).astype(float)  # with ties
    there = np.ones((5, 9), dtype=bool)
    there[1, 4:] = False
    there[2, LEAST - 1:] = False
    ours[3] = 1.0  # the same everywhere
    classes = torch.zeros(5, dtype=torch.long)
    found = agreement(Weighed(ours, there, classes), Weighed(theirs, there, classes))
    assert np.isnan(found[[2, 3]]).all()
    for index in (0, 1, 4):
        some = there[index]
        assert found[index] == pytest.approx(spearmanr(ours[index, some], theirs[index, some]).statistic)
    mean = mean_of(found, resamples=200, seed=0)
    assert mean.value == pytest.approx(np.nanmean(found))
    assert mean.low <= mean.value <= mean.high
