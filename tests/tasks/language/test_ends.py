"""Beginnings and ends of text that data already write stand there once, in learning and in what models write after."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from tokenizers import processors

from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.ends import Ends
from stilla.tasks.language.sections import CausalLMData, Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks import pairs
from tests.tasks.tiny_lm import byte_tokenizer


def ending_tokenizer() -> Any:
    """Puts both ends around a text itself."""
    made = byte_tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return made


TOKENIZERS = pytest.mark.parametrize("tokenizer", [byte_tokenizer(), byte_tokenizer(begin=False), ending_tokenizer()],
                                     ids=["begins", "puts nothing", "begins and ends"])


def read(tokenizer: Any, row: dict[str, str]) -> tuple[str, str, str]:
    """All of an example, what is learnt of it, what a model is given to write it."""
    split = Dataset.from_list([row])
    task = CausalLM.understand(CausalLMData(train="x"), {"train": split})
    batch = task.prepare(split, tokenizer, None, training=True).collate([0])
    assert batch.labels is not None
    labels = batch.labels[0]
    asked = "" if task.unasked() else tokenizer.decode(task.asked(split, tokenizer).tokens.ids)
    return tokenizer.decode(batch.student["input_ids"][0]), tokenizer.decode(labels[labels != NO_ROW]), asked


@TOKENIZERS
@pytest.mark.parametrize("end", ["", "</s>", "</s>\n", "</s></s>"])
@pytest.mark.parametrize("begin", ["", "<s>", "<s><s>"])
def test_a_completion_ends_once_and_its_prompt_begins_once(tokenizer: Any, begin: str, end: str) -> None:
    whole, learnt, asked = read(tokenizer, {"prompt": f"{begin}q", "completion": f" a{end}"})
    expected = "<s>" if Ends.of(tokenizer).begin else begin
    assert (whole, learnt, asked) == (f"{expected}q a</s>", " a</s>", f"{expected}q")


@TOKENIZERS
@pytest.mark.parametrize("end", ["", "</s>", "</s>\n"])
def test_a_text_begins_and_ends_once(tokenizer: Any, end: str) -> None:
    whole, learnt, _ = read(tokenizer, {"text": f"<s>a{end}"})
    assert whole == "<s>a</s>"
    assert learnt == "a</s>"


def test_an_end_that_a_prompt_writes_itself_is_a_part_of_it() -> None:
    """Turns of a conversation that was written out."""
    whole, _, asked = read(byte_tokenizer(), {"prompt": "hi</s>", "completion": "yes"})
    assert (whole, asked) == ("<s>hi</s>yes</s>", "<s>hi</s>")
    whole, _, asked = read(ending_tokenizer(), {"prompt": "hi</s>", "completion": "yes"})
    assert (whole, asked) == ("<s>hi</s>yes</s>", "<s>hi</s>")


def test_ends_within_a_text_stay() -> None:
    assert read(byte_tokenizer(), {"text": "a</s><s>b"})[0] == "<s>a</s><s>b</s>"


def test_a_token_that_begins_and_ends_is_known_by_its_place() -> None:
    """OPT's: `</s>` stands before every text and behind none."""
    tokenizer = byte_tokenizer(begin=False)
    tokenizer.bos_token = "</s>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A $B", special_tokens=[("</s>", 1)])
    assert Ends.of(tokenizer) == Ends("</s>", "</s>", ends=False)
    assert read(tokenizer, {"prompt": "</s>q", "completion": "a</s>"}) == ("</s>qa</s>", "a</s>", "</s>q")


def test_a_reference_has_no_end_as_what_is_written_has_none() -> None:
    split = Dataset.from_list([{"prompt": "q", "completion": "a</s>"}])
    task = CausalLM.understand(CausalLMData(train="x"), {"train": split})
    assert task.asked(split, byte_tokenizer()).references == ["a"]


@pytest.mark.parametrize("family", pairs.FAMILIES)
def test_sources_and_targets_begin_and_end_once(family: str) -> None:
    made = []
    for begin, end in (("", ""), ("<s> " if family == "bart" else "", " </s>")):
        split = Dataset.from_dict({"source": [f"{begin}cat dog{end}"], "target": [f"{begin}tac god two{end}"]})
        task = Seq2Seq.understand(Seq2SeqData(train="x"), {"train": split})
        batch = task.prepare(split, pairs.processor(family), None, training=True).collate([0])
        assert batch.labels is not None
        made.append((batch.student["input_ids"].tolist(), batch.labels.tolist()))
        assert task.asked(split, pairs.processor(family)).references[0].strip() == "tac god two"
    assert made[0] == made[1]
