"""Models that speak in codes of a codec: which of them are distilled, as what, and what is said of the others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CsmConfig,
    CsmForConditionalGeneration,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
)

import stilla
from stilla.check import check
from stilla.recipe.file import from_options
from tests.tasks.audio import talkers
from tests.tasks.tiny_lm import byte_tokenizer, llama

CODES = [f"<code_{number}>" for number in range(12)]
QUICK: dict[str, Any] = {"allow_weak_teacher": True, "evaluate": {"resamples": 100, "speed": False}}


def texts(place: Path) -> dict[str, str]:
    """Prompts in letters, completions in codes, three for every letter."""
    place.mkdir(parents=True, exist_ok=True)
    coded = {one: "".join(CODES[3 * number : 3 * number + 3]) for number, one in enumerate("abcd")}
    rows = [{"prompt": f"say {a}{b}", "completion": coded[a] + coded[b]} for a in coded for b in coded]
    for name, some in (("train", rows[:10]), ("validation", rows[10:13]), ("test", rows[13:])):
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)) + "\n")
    return {name: str(place / f"{name}.jsonl") for name in ("train", "validation", "test")}


@pytest.mark.slow
def test_a_plain_decoder_whose_tokens_are_codes_is_a_causal_model_like_any_other(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(extra=CODES)
    tokenizer.add_tokens(CODES)
    llama(len(tokenizer)).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    run = stilla.distill(task="causal-lm", data=texts(tmp_path / "data"), teacher=str(tmp_path / "teacher"), **QUICK,
                         student={"layers": 1}, distill={"max_steps": 3, "batch_size": 4}, output=str(tmp_path / "run"))
    assert run.scores.student.quality["test"]["perplexity"].value > 1
    known = AutoTokenizer.from_pretrained(run.student)
    ids = known("say ab", return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(run.student)
    said = model.generate(ids, max_new_tokens=6, do_sample=False)
    assert known(CODES[3], add_special_tokens=False)["input_ids"] == [known.convert_tokens_to_ids(CODES[3])]
    assert said.shape == (1, ids.shape[1] + 6)


def several(place: Path, kind: str) -> str:
    """With several codes at a step, each of a head of its own."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_codebooks": 4}
    model: Any
    if kind == "musicgen":
        model = MusicgenForCausalLM(MusicgenDecoderConfig(**small, vocab_size=64, ffn_dim=16, pad_token_id=0, bos_token_id=0))
    else:
        small |= {"num_key_value_heads": 2, "intermediate_size": 16, "head_dim": 8, "vocab_size": 32}
        model = CsmForConditionalGeneration(CsmConfig(
            **small, text_vocab_size=300, depth_decoder_config={**small, "backbone_hidden_size": 16}))
    model.save_pretrained(place)
    byte_tokenizer().save_pretrained(place)
    return str(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["musicgen", "csm"])
def test_one_with_several_codes_at_a_step_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    asked = {"teacher": several(tmp_path / kind, kind), "student": {"layers": 1}, "output": str(tmp_path / "run")}
    (problem,) = check(from_options({"task": "causal-lm", "data": texts(tmp_path / "data"), **asked})).problems
    assert re.search(rf"is a {kind}.* for which transformers has no CausalLM head", problem)
    spoken = {"task": "text-to-speech", "data": talkers.ljspeech(tmp_path / "lj", 20), **asked}
    (problem,) = check(from_options(spoken)).problems
    assert re.search(rf"is a {kind}.*takes SpeechT5 and FastSpeech2-Conformer.*docs/text-to-speech.md", problem)
