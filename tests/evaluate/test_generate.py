"""Texts of whole splits: the same in any batch, with the cache, to the first end of text and no further."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn

from stilla.errors import CompatibilityError
from stilla.evaluate.generate import Decoding, effective, generate, some, split_at_ends, writer
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.sections import CausalLMData, Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.language.writing import Asked
from tests.tasks import pairs
from tests.tasks.tiny_lm import byte_tokenizer, llama

DATA = Dataset.from_dict(pairs.pairs(11))
families = pytest.mark.parametrize("family", pairs.FAMILIES)


def asked_of(family: str, model: nn.Module) -> tuple[Seq2Seq, Asked, Any]:
    task = Seq2Seq.understand(Seq2SeqData(train="x"), {"train": DATA})
    processor = pairs.processor(family, model)
    return task, task.asked(DATA, processor), processor


@pytest.mark.slow
@families
def test_texts_do_not_depend_on_the_batch_and_come_in_the_order_of_the_split(family: str) -> None:
    model = pairs.model(family, seed=3)
    task, asked, processor = asked_of(family, model)
    decoding = Decoding(max_new_tokens=6)
    together = generate(model, task, asked, processor, decoding, batch_size=4)
    alone = generate(model, task, asked, processor, decoding, batch_size=1)
    assert together.answers.given == alone.answers.given
    assert together.cut == alone.cut
    assert together.answers.references == DATA["target"][:]
    assert together.answers.keys.tolist() == list(range(11))


@pytest.mark.slow
@families
def test_greedy_texts_are_the_likeliest_token_after_token_and_every_step_reads_one(family: str) -> None:
    model = pairs.model(family, seed=3)
    _, asked, processor = asked_of(family, model)
    inputs = asked.tokens.batch([0, 1])
    widths: list[int] = []
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    written = writer(model)(inputs, asked.options, Decoding(max_new_tokens=5))
    assert set(widths) == {1}
    for row, one in enumerate(written):
        decoder = torch.tensor([[processor.start]])
        source = {name: value[row : row + 1] for name, value in inputs.items()}
        for step, token in enumerate(one.ids):
            logits = model(**source, decoder_input_ids=decoder).logits[0, -1]
            expected = processor.first if step == 0 and processor.first is not None else int(_allowed(model, logits).argmax())
            assert token == expected
            decoder = torch.cat([decoder, torch.tensor([[token]])], dim=1)


def test_a_causal_model_reads_its_prompt_once_and_then_every_token_by_itself() -> None:
    model, tokenizer = llama(), byte_tokenizer()
    split = Dataset.from_dict({"prompt": ["a cat", "the old dog: "], "completion": ["x", "y"]})
    task = CausalLM.understand(CausalLMData(train="x"), {"train": split})
    inputs = task.asked(split, tokenizer).tokens.batch([0, 1])
    widths: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    written = writer(model)(inputs, {}, Decoding(max_new_tokens=5))
    hook.remove()
    assert widths == [inputs["input_ids"].shape[1], 1, 1, 1, 1]
    for row, one in enumerate(written):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]  # alone, and all of it every time
        for token in one.ids:
            assert token == int(model(input_ids=ids).logits[0, -1].argmax())
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def _allowed(model: Any, logits: torch.Tensor) -> torch.Tensor:
    banned = [one[0] for one in model.generation_config.bad_words_ids or []]
    return logits.index_fill(0, torch.tensor(banned, dtype=torch.long), -torch.inf)


def test_a_cut_is_no_end() -> None:
    model = pairs.model("bart", seed=3)  # its config forces an end at the limit
    assert model.generation_config.forced_eos_token_id == 2
    task, asked, processor = asked_of("bart", model)
    _never_ends(model)
    texts = generate(model, task, asked, processor, Decoding(max_new_tokens=4))
    assert texts.cut == 1
    for one in writer(model)(asked.tokens.batch([0, 1]), asked.options, Decoding(max_new_tokens=4, num_beams=2)):
        assert not one.ended
        assert len(one.ids) == 4
        assert 2 not in one.ids


def _never_ends(model: Any) -> None:
    model.final_logits_bias[0, 2] = -1e4


def test_rows_end_at_their_first_end_of_text() -> None:
    rows = torch.tensor([[5, 2, 2, 2], [5, 6, 7, 8], [2, 9, 9, 9]])
    assert [(one.ids, one.ended) for one in split_at_ends(rows, (2, 3))] == [
        ((5, 2), True), ((5, 6, 7, 8), False), ((2,), True)]


def test_no_more_is_written_than_there_are_positions() -> None:
    model = pairs.model("bart")
    assert effective(model, {}, Decoding(max_new_tokens=500)).max_new_tokens == 63
    assert effective(pairs.model("t5"), {}, Decoding(max_new_tokens=500)).max_new_tokens == 500


def test_the_models_own_settings_hold_but_nothing_is_drawn() -> None:
    model = pairs.model("bart")
    model.generation_config.update(do_sample=True, temperature=0.7, no_repeat_ngram_size=3, num_beams=4, length_penalty=2.0,
                                   max_length=20)
    config = effective(model, {"decoder_start_token_id": 5}, Decoding(num_beams=2))
    assert (config.do_sample, config.temperature, config.max_length) == (False, None, None)
    assert (config.no_repeat_ngram_size, config.num_beams, config.length_penalty) == (3, 2, 2.0)
    assert config.decoder_start_token_id == 5
    assert effective(model, {}, Decoding()).length_penalty == 1.0


def test_some_examples_are_spread_over_the_split() -> None:
    _, asked, _ = asked_of("t5", pairs.model("t5"))
    few = some(asked, 3)
    assert few.keys.tolist() == [0, 3, 7]
    assert few.references == [DATA["target"][key] for key in (0, 3, 7)]
    assert few.tokens.batch([1])["input_ids"].tolist() == asked.tokens.batch([3])["input_ids"].tolist()
    assert some(asked, None) is asked


def test_a_model_that_cannot_write_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="Linear cannot write texts: it has no `generate`"):
        writer(nn.Linear(2, 2))
