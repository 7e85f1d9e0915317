"""What an answer rests on, against captum's gradient times input."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.inputs import reading
from tests.equivalence.setting import bert

IDS = torch.tensor([[4, 9, 17, 3, 0], [5, 8, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])


def text(attention: str = "sdpa") -> nn.Module:
    torch.manual_seed(0)
    model = bert(16, 2).double().eval()
    model.set_attn_implementation(attention)
    return model


def picture() -> nn.Module:
    torch.manual_seed(0)
    return hf.ViTForImageClassification(hf.ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=3)).double().eval()


def weighed(model: nn.Module, inputs: dict[str, Tensor], *, again: bool = False) -> tuple[Tensor, Tensor]:
    with reading(model, inputs) as (said, read):
        logits = model(**said).logits
        return read.weighed(logits, logits.argmax(-1), again=again), logits.argmax(-1)


@pytest.mark.slow
def test_of_texts_it_is_captums_gradient_times_embedding() -> None:
    captum = pytest.importorskip("captum.attr")
    model = text()
    found, classes = weighed(model, {"input_ids": IDS, "attention_mask": MASK})
    oracle = captum.LayerGradientXActivation(
        lambda ids: model(input_ids=ids, attention_mask=MASK).logits, model.get_input_embeddings())
    expected = oracle.attribute(IDS, target=classes).sum(-1) * MASK
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_of_pictures_it_is_captums_gradient_times_pixels() -> None:
    captum = pytest.importorskip("captum.attr")
    model, pixels = picture(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found, classes = weighed(model, {"pixel_values": pixels})
    oracle = captum.InputXGradient(lambda one: model(pixel_values=one).logits)
    expected = oracle.attribute(pixels.clone().requires_grad_(), target=classes)
    torch.testing.assert_close(found, expected.sum(1).flatten(1).detach(), rtol=0, atol=1e-12)


def test_the_answer_stays_what_it_was_and_no_hook_is_left() -> None:
    model = text()
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    with reading(model, inputs) as (said, _):
        within = model(**said).logits
    torch.testing.assert_close(within, model(**inputs).logits, rtol=0, atol=1e-12)
    assert not model.get_input_embeddings()._forward_hooks


def test_padding_has_no_part_in_it() -> None:
    model = text()
    found, _ = weighed(model, {"input_ids": IDS, "attention_mask": MASK})
    assert found[MASK == 0].abs().max() == 0
    more = {"input_ids": nn.functional.pad(IDS, (0, 3), value=7), "attention_mask": nn.functional.pad(MASK, (0, 3))}
    wider, _ = weighed(model, more)
    torch.testing.assert_close(wider, nn.functional.pad(found, (0, 3)), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_it_is_derived_again_as_differences_say(attention: str) -> None:
    """The gradient of an attribution with respect to a weight, by central differences, through attention."""
    model = text(attention)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    weight = model.get_parameter("bert.encoder.layer.0.attention.self.query.weight")
    torch.manual_seed(1)
    direction, chosen = torch.randn_like(weight), torch.randn(IDS.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weighed(model, inputs, again=True)[0] * chosen).sum(), weight)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight.add_(step * direction)
        values.append((weighed(model, inputs)[0] * chosen).sum().item())
        with torch.no_grad():
            weight.sub_(step * direction)
    assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_a_frozen_table_of_tokens_is_read_all_the_same() -> None:
    model, inputs = text(), {"input_ids": IDS, "attention_mask": MASK}
    expected, _ = weighed(model, inputs)
    model.requires_grad_(False)
    torch.testing.assert_close(weighed(model, inputs)[0], expected, rtol=0, atol=1e-12)


def test_attention_whose_gradient_has_none_is_refused() -> None:
    model = text()
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(CompatibilityError, match="attention by flash_attention_2, whose gradient has no gradient"), \
            reading(model, {"input_ids": IDS}):
        pass
