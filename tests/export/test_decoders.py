"""Models that write, as ONNX with keys and values: the same logits whole and step by step, the same texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from datasets import Dataset

from stilla.errors import ExportError
from stilla.evaluate.generate import Decoding, generate, writer
from stilla.export import decoders, keys
from stilla.export.running import open_exported
from stilla.tasks.language import prompts as _prompts
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.sections import Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from tests.tasks import pairs

pytest.importorskip("onnxruntime")

DATA = Dataset.from_dict(pairs.pairs(6))
SMALL = {"vocab_size": len(pairs.VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 48, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def _batches(family: str, model: Any) -> tuple[Seq2Seq, Any, list[dict[str, torch.Tensor]]]:
    task = Seq2Seq.understand(Seq2SeqData(train="x"), {"train": DATA})
    processor = pairs.processor(family, model)
    prepared = task.prepare(DATA, processor, None, training=False)
    return task, processor, [dict(prepared.collate(rows).student) for rows in ([0, 1, 2], [3], [4, 5])]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "t5", "mbart", "marian"])
def test_an_encoder_with_a_decoder_writes_the_same_through_its_files(family: str, tmp_path: Path) -> None:
    model = pairs.trained("bart") if family == "bart" else pairs.model(family, seed=4)
    task, processor, batches = _batches(family, model)
    made = decoders.write_decoder(model, batches, tmp_path / "model.onnx", task.axes)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "decoder_model.onnx", "decoder_with_past_model.onnx", "encoder_model.onnx"]
    file = open_exported(made)
    assert file.bytes == sum(one.stat().st_size for one in tmp_path.iterdir())
    asked, decoding = task.asked(DATA, processor), Decoding(6)
    ours = generate(file.writer(model.generation_config), task, asked, processor, decoding, batch_size=4)
    own = generate(model, task, asked, processor, decoding, batch_size=4)
    assert ours.answers.given == own.answers.given
    assert ours.cut == own.cut


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_causal_decoder_writes_the_same_through_its_file(family: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model: Any = {"gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**SMALL)),
                  "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, num_key_value_heads=1))}[family]().eval()
    tokenizer = pairs.tokenizer()
    prompts = _prompts.left_padded(tokenizer, _prompts.given(tokenizer, ["cat dog sun", "red", "tea map", "big run"]))
    whole = [_prompts.continued(prompts.batch(rows), [[5, 6, 7]] * len(rows), 1).student for rows in ([0, 1, 2], [3], [1, 2])]
    made = decoders.write_decoder(model, whole, tmp_path / "model.onnx", CausalLM.axes)
    file = open_exported(made)
    written = file.writer(model.generation_config)(prompts.batch([0, 1, 2, 3]), {}, Decoding(7))
    assert written == writer(model)(prompts.batch([0, 1, 2, 3]), {}, Decoding(7))


def test_a_model_that_keeps_a_state_is_refused() -> None:
    cache = hf.DynamicCache()
    cache.layers.append(object())
    with pytest.raises(ExportError, match="keeps a object of what it has read, not keys and values"):
        keys.flat(cache)
