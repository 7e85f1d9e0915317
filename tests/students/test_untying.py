"""Adapters on weights that layers share: what is written computes what was trained, with nothing but from_pretrained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.export import restore, save_student
from stilla.recipe import Lora
from stilla.students import Student, merged, with_adapters
from tests.models.test_heads import BART, FAMILIES, T5
from tests.students.test_lora import trained
from tests.tasks.tiny_lm import bert_lm, gpt2, llama

pytest.importorskip("peft")

IDS = torch.arange(5, 17)[None]
TEXT = {"input_ids": IDS}
PAIR = {"input_ids": IDS, "decoder_input_ids": IDS.flip(1)}


def of_two_languages(config: type, model: type, **changes: object) -> Callable[[], hf.PreTrainedModel]:
    def build() -> hf.PreTrainedModel:
        torch.manual_seed(3)
        fields = T5 if "T5" in config.__name__ else {**BART, "dropout": 0.0}
        made: hf.PreTrainedModel = model(config(**{**fields, **changes}))
        for name, parameter in made.named_parameters():
            if parameter.dim() == 2 and "positions" not in name:  # Marian's are not saved
                nn.init.normal_(parameter, 0, 0.3)
        return made.eval()
    return build


bart = of_two_languages(hf.BartConfig, hf.BartForConditionalGeneration)
marian = of_two_languages(hf.MarianConfig, hf.MarianMTModel, decoder_vocab_size=40)
t5 = of_two_languages(hf.T5Config, hf.T5ForConditionalGeneration)
longt5 = of_two_languages(hf.LongT5Config, hf.LongT5ForConditionalGeneration)
switch = of_two_languages(hf.SwitchTransformersConfig, hf.SwitchTransformersForConditionalGeneration,
                          num_sparse_encoder_layers=0, num_sparse_decoder_layers=0, num_decoder_layers=1)

TIED = {
    "llama's head": (llama, ("q_proj", "lm_head"), TEXT),
    "llama's embedding": (llama, ("embed_tokens",), TEXT),
    "both of llama's": (llama, ("embed_tokens", "lm_head"), TEXT),
    "gpt2's head": (gpt2, ("c_attn", "lm_head"), TEXT),
    "gpt2's embedding": (gpt2, ("wte",), TEXT),
    "bert's head": (bert_lm, ("decoder",), TEXT),
    "bart's head": (bart, ("lm_head", "q_proj"), PAIR),
    "bart's embeddings": (bart, ("embed_tokens",), PAIR),
    "marian's head": (marian, ("lm_head",), PAIR),
    "t5's head": (t5, ("lm_head", "q"), PAIR),
    "t5's embeddings": (t5, ("embed_tokens",), PAIR),
    "longt5's head": (longt5, ("lm_head",), PAIR),
    "switch's head": (switch, ("lm_head",), PAIR),
}


def adapted(build: Callable[[], nn.Module], targets: tuple[str, ...]) -> nn.Module:
    return with_adapters(Student(build(), {}), Lora(r=2, targets=targets)).model


def logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(**inputs).logits
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("build", "targets", "inputs"), TIED.values(), ids=TIED)
def test_what_is_written_computes_what_was_trained(
    build: Callable[[], hf.PreTrainedModel], targets: tuple[str, ...], inputs: Mapping[str, Tensor], tmp_path: Path
) -> None:
    start = adapted(build, targets)
    assert torch.equal(logits(start, inputs), logits(build(), inputs))
    made = trained(Student(start, {})).model
    own = logits(made, inputs)
    assert not torch.allclose(own, logits(build(), inputs), atol=1e-2)
    save_student(made, None, tmp_path / "student", example=inputs)
    plain = type(build()).from_pretrained(tmp_path / "student")
    torch.testing.assert_close(logits(plain, inputs), own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(merged(made), inputs), own, atol=1e-4, rtol=1e-4)
    again = adapted(build, targets)
    restore(again, tmp_path / "student")  # a later stage begins there
    torch.testing.assert_close(logits(again, inputs), own, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("build", [llama, gpt2, bart, bert_lm])
def test_a_config_says_that_its_model_is_untied(build: Callable[[], hf.PreTrainedModel], tmp_path: Path) -> None:
    model = adapted(build, ("lm_head", "decoder") if build is bert_lm else ("lm_head",))
    save_student(model, None, tmp_path / "student")
    assert json.loads((tmp_path / "student" / "config.json").read_text())["tie_word_embeddings"] is False
    plain = type(model).from_pretrained(tmp_path / "student")
    assert plain.num_parameters() == merged(model).num_parameters() > build().num_parameters()


@pytest.mark.parametrize(("build", "targets"), [(llama, ("q_proj",)), (gpt2, None), (bart, None), (t5, ("q",))])
def test_weights_without_an_adapter_stay_tied(build: Callable[[], nn.Module], targets: tuple[str, ...] | None) -> None:
    model = merged(adapted(build, targets))
    assert sum(value.numel() for value in model.parameters()) == sum(value.numel() for value in build().parameters())
    assert model.config.tie_word_embeddings


def test_a_model_that_was_untied_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    def build() -> hf.PreTrainedModel:
        return llama(tie_word_embeddings=False)
    model = merged(adapted(build, ("lm_head", "embed_tokens")))
    assert model.num_parameters() == build().num_parameters()
    assert not caplog.messages


def test_what_a_student_grows_by_is_said(caplog: pytest.LogCaptureFixture) -> None:
    adapted(llama, ("lm_head",))
    (said,) = caplog.messages
    assert "lm_head and model.embed_tokens share their weights" in said
    assert f"{300 * 16:,} parameters" in said


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 4), nn.Linear(4, 20, bias=False)
        self.head.weight = self.words.weight


class TiedByItsClass(hf.LlamaForCausalLM):
    _tied_weights_keys = None

    def __init__(self, config: hf.LlamaConfig) -> None:
        super().__init__(config)
        self.lm_head.weight = self.model.embed_tokens.weight


def tied_by_its_class() -> nn.Module:
    return TiedByItsClass(hf.LlamaConfig(**FAMILIES["llama"][2]))


@pytest.mark.parametrize(("build", "target"), [(Own, "head"), (tied_by_its_class, "lm_head")])
def test_what_cannot_be_untied_is_refused(build: Callable[[], nn.Module], target: str) -> None:
    with pytest.raises(CompatibilityError, match=rf"student\.lora\.targets: {target} and .* share .*Leave {target} out"):
        adapted(build, (target,))
