from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from stilla.errors import CompatibilityError
from stilla.students.vocabulary import with_tokens
from stilla.tasks.language.vocabulary import asked_by
from stilla.tasks.text.numbering import numbering
from tests.students import speaking
from tests.students.test_vocabulary import cut, every_kind, kept_of


@every_kind
def test_the_teachers_numbers_are_those_that_were_kept(kind: str) -> None:
    before, after, kept = cut(kind)
    found = numbering(after, before)
    assert found is not None
    assert found.theirs.tolist() == kept.numbers.tolist()
    assert found.of == len(before)
    for text in speaking.STRANGE:
        ids = torch.tensor([after(text)["input_ids"]], dtype=torch.int64)
        told = found.inputs({"input_ids": ids, "attention_mask": ids})
        assert before.convert_ids_to_tokens(told["input_ids"][0].tolist()) == after.convert_ids_to_tokens(ids[0].tolist())
        assert told["attention_mask"] is ids
    assert found.told(torch.tensor([-100, 0])).tolist() == [-100, int(kept.numbers[0])]


@every_kind
def test_a_vocabulary_that_is_cut_twice_is_known_by_both_that_it_was_cut_from(kind: str) -> None:
    whole, once, _ = cut(kind, extra=20)
    twice = with_tokens(once, kept_of(once).order)
    outer, inner, both = numbering(once, whole), numbering(twice, once), numbering(twice, whole)
    assert outer is not None
    assert inner is not None
    assert both is not None
    assert torch.equal(outer.theirs[inner.theirs], both.theirs)


def test_other_rules_other_tokens_and_another_order_are_none_of_it() -> None:
    before, after, _ = cut("bert")
    assert numbering(before, before) is None
    assert numbering(speaking.bert(), before) is None  # the same numbers
    assert numbering(before, after) is None  # the teacher lacks some of the student's
    assert numbering(speaking.t5(), speaking.xlm_roberta()) is None
    assert numbering(after, ByT5Tokenizer()) is None
    cased = BertTokenizer(vocab=after.get_vocab(), do_lower_case=False)
    assert numbering(cased, before) is None
    order = after.get_vocab()
    order["the"], order["on"] = order["on"], order["the"]
    assert numbering(BertTokenizer(vocab=order), before) is None
    with pytest.raises(CompatibilityError, match=r"number .* tokens differently"):
        asked_by(cased, before)


def test_a_word_that_is_added_to_one_of_them_alone_makes_them_others() -> None:
    before, after, _ = cut("roberta")
    after.add_tokens(["zweitausend"])
    assert numbering(after, before) is None


def test_special_tokens_around_a_text_are_compared_by_name() -> None:
    before, after, _ = cut("roberta")
    rules = json.loads(after.backend_tokenizer.to_str())
    rules["post_processor"]["trim_offsets"] = not rules["post_processor"]["trim_offsets"]
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(rules)))
    assert numbering(other, before) is None
    assert numbering(after, before) is not None
