"""From pairs of texts to batches to rows, for the four families of encoders with decoders."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Translation
from torch.nn import functional
from transformers import NllbTokenizer

from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense
from stilla.tasks.base import Loaded, Prepared, Side
from stilla.tasks.language.sections import Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.language.translations import CUT, PairProcessor, tidied
from tests.tasks import pairs

families = pytest.mark.parametrize("family", pairs.FAMILIES)
ROWS = {"source": ["cat dog", "sun", "tea map red big"], "target": ["tac god two", "nus one", "aet pam der gib four"]}


def task_of(rows: dict[str, list[Any]], **section: Any) -> Seq2Seq:
    return Seq2Seq.understand(Seq2SeqData(train="x", **section), {"train": Dataset.from_dict(rows)})


def prepared(family: str, rows: dict[str, list[Any]] = ROWS, **section: Any) -> Prepared:
    return task_of(rows, **section).prepare(Dataset.from_dict(rows), pairs.processor(family), None, training=True)


def ids(text: str) -> list[int]:
    return [pairs.VOCABULARY.index(word) for word in text.split()]


START = {"t5": "<pad>", "bart": "</s>", "mbart": "yy_YY", "marian": "<pad>"}
TARGET = {"t5": "{} </s>", "bart": "<s> {} </s>", "mbart": "{} </s> yy_YY", "marian": "{} </s>"}


@pytest.mark.slow
@families
def test_labels_are_the_target_and_the_decoder_reads_what_stands_before_each(family: str) -> None:
    batch = prepared(family).collate([1, 0])
    short, long = (ids(TARGET[family].format(text)) for text in ("nus one", "tac god two"))
    assert batch.labels is not None
    assert batch.labels.tolist() == [[*short, -100], long]
    start = ids(START[family])
    assert batch.student["decoder_input_ids"][1].tolist() == start + long[:-1]
    assert batch.student["decoder_input_ids"][0, : len(short)].tolist() == start + short[:-1]
    assert batch.student["input_ids"].shape == batch.student["attention_mask"].shape
    assert batch.teacher is batch.student
    assert "decoder_attention_mask" not in batch.student  # what is behind a target is never looked at


@pytest.mark.slow
@families
def test_rows_are_the_models_own_logits_with_labels(family: str) -> None:
    model, task = pairs.model(family), task_of(ROWS)
    batch = prepared(family).collate([0, 1, 2])
    assert batch.labels is not None
    with torch.no_grad():
        said = task.signals(model(**batch.student), batch, Side.STUDENT)
        source = {name: batch.student[name] for name in ("input_ids", "attention_mask")}
        own = model(**source, labels=batch.labels)
    there = batch.labels != -100
    assert isinstance(said.logits, Dense)
    torch.testing.assert_close(said.logits.logits, own.logits[there], atol=1e-6, rtol=1e-5)
    assert said.labels is not None
    torch.testing.assert_close(functional.cross_entropy(said.logits.logits, said.labels), own.loss, atol=1e-6, rtol=1e-5)
    assert task.counts(batch) == {"rows": int(there.sum()), "labelled": int(there.sum()), "tokens": int(
        batch.student["attention_mask"].sum()), "examples": 3}


@pytest.mark.slow
@families
def test_padding_has_no_influence(family: str) -> None:
    model, task, data = pairs.model(family), task_of(ROWS), prepared(family)
    with torch.no_grad():
        whole = _logits(task, model, data.collate([0, 1, 2]))
        alone = [_logits(task, model, data.collate([one])) for one in range(3)]
    torch.testing.assert_close(whole, torch.cat(alone), atol=1e-5, rtol=1e-5)


def _logits(task: Seq2Seq, model: Any, batch: Batch) -> torch.Tensor:
    said = task.signals(model(**batch.student), batch, Side.STUDENT).logits
    assert isinstance(said, Dense)
    return said.logits


def test_a_start_of_another_number_is_handled_by_giving_each_model_its_own() -> None:
    processors = [PairProcessor(pairs.tokenizer("t5"), start) for start in (1, 0)]
    batch = task_of(ROWS).prepare(Dataset.from_dict(ROWS), *processors, training=True).collate([0, 1])
    assert batch.student["decoder_input_ids"][:, 0].tolist() == [1, 1]
    assert batch.teacher["decoder_input_ids"][:, 0].tolist() == [0, 0]
    assert torch.equal(batch.student["decoder_input_ids"][:, 1:], batch.teacher["decoder_input_ids"][:, 1:])
    assert batch.student["input_ids"] is not batch.teacher["input_ids"]


def test_tokens_that_are_numbered_otherwise_are_refused_with_the_way_out() -> None:
    other = PairProcessor(pairs.tokenizer("t5", words=(*pairs.SPECIAL, *pairs.VOCABULARY[:5:-1])), 1)
    with pytest.raises(CompatibilityError, match=r"number \d+ tokens differently.*completions: teacher"):
        task_of(ROWS).prepare(Dataset.from_dict(ROWS), pairs.processor("t5"), other, training=True)


@pytest.mark.slow
def test_a_target_that_is_too_long_or_was_cut_has_no_end(caplog: pytest.LogCaptureFixture) -> None:
    for family in pairs.FAMILIES:
        with caplog.at_level(logging.WARNING):
            batch = prepared(family, max_target_length=4).collate([2])
        before = ["<s>"] if family == "bart" else []
        assert batch.labels is not None
        assert batch.labels[0].tolist() == ids(" ".join([*before, "aet", "pam", "der", "gib"][:4]))
    assert "targets are longer than 4 tokens: cut, without an end" in caplog.text
    rows = {**ROWS, CUT: [False, True, False]}
    for family in pairs.FAMILIES:
        task = task_of(ROWS)
        batch = task.prepare(Dataset.from_dict(rows), pairs.processor(family), None, training=True).collate([1])
        assert batch.labels is not None
        assert batch.labels[0].tolist() == ids("<s> nus one" if family == "bart" else "nus one")


def test_a_prefix_stands_before_every_source() -> None:
    batch = prepared("t5", prefix="red: ").collate([1])
    assert batch.student["input_ids"][0].tolist() == [*ids("red"), 3, *ids("sun </s>")]


def test_a_model_says_its_start_and_the_token_that_targets_begin_with() -> None:
    found = {family: pairs.processor(family) for family in pairs.FAMILIES}
    assert {family: one.start for family, one in found.items()} == {
        family: ids(start)[0] for family, start in START.items()}
    assert {family: one.first for family, one in found.items()} == {"t5": None, "bart": 0, "mbart": None, "marian": None}
    broken = pairs.model("bart")
    broken.config.decoder_start_token_id = None
    with pytest.raises(CompatibilityError, match="set decoder_start_token_id"):
        PairProcessor.of(pairs.tokenizer("bart"), broken, None)


def test_languages_are_for_tokenizers_that_know_them() -> None:
    with pytest.raises(CompatibilityError, match=r"data\.target_language: .* knows no languages"):
        PairProcessor.of(pairs.tokenizer("t5"), pairs.model("t5"), Seq2SeqData(train="x", target_language="yy_YY"))


def test_who_knows_several_languages_has_to_be_told_the_targets_and_writes_it_first() -> None:
    model, tokenizer = pairs.model("bart"), NllbTokenizer()
    with pytest.raises(CompatibilityError, match=r"data\.target_language: .* would be learnt as 'eng_Latn'.*Name both"):
        PairProcessor.of(tokenizer, model, Seq2SeqData(train="x", source_language="eng_Latn"))
    pair = PairProcessor.of(tokenizer, model, Seq2SeqData(train="x", target_language="deu_Latn"))
    assert pair.first == tokenizer.convert_tokens_to_ids("deu_Latn")
    tidied(model, pair)
    assert model.generation_config.forced_bos_token_id == pair.first
    assert model.generation_config.decoder_start_token_id == pair.start
    assert PairProcessor.of(tokenizer, model, Seq2SeqData(train="x")) == pair  # as the folder says it then


@pytest.mark.parametrize(("columns", "found"), [
    (("source", "target"), ("source", "target")),
    (("id", "article", "highlights"), ("article", "highlights")),
    (("text", "summary", "title"), ("text", "summary")),
    (("tgt", "src"), ("src", "tgt")),
])
def test_columns_are_found_by_their_names(columns: tuple[str, ...], found: tuple[str, str]) -> None:
    assert task_of({name: ["a"] for name in columns}).columns == found


def test_columns_that_names_leave_open_are_asked_for() -> None:
    with pytest.raises(DataError, match=r"data\.source: which column is the source\? en or de could be it\. Set data\.sou"):
        task_of({"en": ["a"], "de": ["b"]})
    assert task_of({"en": ["a"], "de": ["b"]}, source="en").columns == ("en", "de")
    with pytest.raises(DataError, match=r"data\.target: got 'ed'; expected a column of text: en or de\."):
        task_of({"en": ["a"], "de": ["b"]}, source="en", target="ed")
    with pytest.raises(DataError, match=r"data\.target: got 'ed'; expected a column of text: en or de\."):
        task_of({"en": ["a"], "de": ["b"]}, target="ed")  # not: which one is the source?


def test_pairs_within_one_column_are_named_by_their_field() -> None:
    features = Features({"translation": Translation(languages=["en", "de"])})
    data = Dataset.from_list([{"translation": {"en": "cat", "de": "tac one"}}], features=features)
    section = Seq2SeqData(train="x", source="translation.en", target="translation.de")
    task = Seq2Seq.understand(section, {"train": data})
    assert (task.source_of(data, 0), list(task.asked(data, pairs.processor("t5")).references)) == ("cat", ["tac one"])
    batch = task.prepare(data, pairs.processor("t5"), None, training=True).collate([0])
    assert batch.labels is not None
    assert batch.labels[0].tolist() == ids("tac one </s>")
    other = task.answered(data, ["god one"], [True])
    assert (task.source_of(other, 0), list(task.asked(other, pairs.processor("t5")).references)) == ("cat", ["god one"])
    assert other[CUT] == [True]


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_targets_that_are_null_or_empty_are_refused_or_skipped(text: str | None) -> None:
    rows = {"source": ["cat", "dog"], "target": ["tac one", text]}
    with pytest.raises(DataError, match=r"data\.train: 'source' or 'target' is null or empty in 1 of 2 examples: row 1\."):
        task_of(rows)
    kept = task_of(rows, broken="skip").prepare(Dataset.from_dict(rows), pairs.processor("t5"), None, training=True)
    assert kept.keys.tolist() == [0]


@pytest.mark.slow
@families
def test_a_model_is_loaded_with_what_its_decoder_begins_with(family: str, tmp_path: Path) -> None:
    task = task_of(ROWS)
    loaded = task.load(ModelSource(model=pairs.folder(tmp_path, family)), labelled=True)
    assert isinstance(loaded.processor, PairProcessor)
    assert loaded.processor.start == ids(START[family])[0]
    task = task.adapted_to(loaded)
    assert task.row_classes() == len(pairs.VOCABULARY)  # without the padding of the vocabulary


def test_what_belongs_to_a_segment_is_all_that_the_teacher_answers_for() -> None:
    task, data = task_of(ROWS), prepared("t5")
    alone = [task.segments(data.collate([one]))[0] for one in range(3)]
    together = task.segments(data.collate([2, 0, 1]))
    assert [one.content for one in together] == [alone[2].content, alone[0].content, alone[1].content]
    assert [one.rows for one in together] == [slice(0, 6), slice(6, 10), slice(10, 13)]
    other = prepared("t5", {**ROWS, "target": [*ROWS["target"][:2], "aet pam der red four"]})
    assert task.segments(other.collate([2]))[0].content != alone[2].content


def test_the_decoders_positions_have_a_mask_of_their_own() -> None:
    batch = prepared("t5").collate([0, 1])
    task = task_of(ROWS)
    assert task.stack_mask(batch, Side.STUDENT, "decoder").sum(1).tolist() == [4, 3]
    assert task.stack_mask(batch, Side.STUDENT, "encoder").sum(1).tolist() == [3, 2]


def test_a_plain_tokenizer_is_refused_in_words() -> None:
    with pytest.raises(CompatibilityError, match=r"expected what `Seq2Seq\.load` gives"):
        task_of(ROWS).prepare(Dataset.from_dict(ROWS), pairs.tokenizer("t5"), None, training=True)
    assert isinstance(Loaded(pairs.model("t5"), pairs.processor("t5"), "x"), Loaded)
