"""Every task's examples without labels: which columns are read, that no label is, and what is learnt of them."""

from __future__ import annotations

import logging
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from stilla.data import joined
from stilla.errors import CompatibilityError, DataError
from stilla.signals import Batch
from stilla.tasks.base import Side, Task
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.masked_lm import MaskedLM
from stilla.tasks.language.sections import CausalLMData, MaskedLMData, Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.vision.image_classification import ImageClassification
from stilla.tasks.vision.sections import ImageClassificationData
from tests.tasks import pairs
from tests.tasks.tiny import bert_tokenizer, image_processor
from tests.tasks.tiny_lm import CHAT, bert_lm_tokenizer, byte_tokenizer


def texts(**columns: list[Any]) -> tuple[TextClassification, Dataset]:
    split = Dataset.from_dict(columns)
    return TextClassification.understand(TextClassificationData(train="x"), {"train": split}), split


def of(**columns: list[Any]) -> Dataset:
    return Dataset.from_dict(columns)


def bound(task: Task, pool: Dataset, **called: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = task.unlabelled(pool, called).to_dict()
    return found


def whole(task: Task, split: Dataset, pool: Dataset | None, processor: Any, *, training: bool = False) -> Batch:
    """All examples of both in one batch; of the pool alone without a split."""
    usable = None if pool is None else task.usable(task.unlabelled(pool, {}))
    rows = split if usable is None else joined(task.beside(split) if len(split) else None, usable)
    prepared = task.prepare(rows, processor, None, training=training)
    return prepared.collate([prepared.examples[index] for index in range(len(prepared))])


# --- which columns are read ---


def test_the_column_of_the_same_name_is_read_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    task, _ = texts(text=["a", "b"], topic=["x", "y"])
    assert bound(task, of(id=[1], title=["t"], text=["c"])) == {"text": ["c"]}
    assert not caplog.records


def test_a_column_that_can_only_be_meant_is_read_and_said(caplog: pytest.LogCaptureFixture) -> None:
    task, _ = texts(review=["a", "b"], stars=["x", "y"])
    assert bound(task, of(body=["c"], stars=["x"])) == {"review": ["c"]}
    assert "read is 'body' as 'review'" in caplog.text
    assert "'stars' is not read; only the teacher says what these examples are" in caplog.text
    assert bound(task, of(note=["n"], text=["c"])) == {"review": ["c"]}
    assert "not read: 'note'" in caplog.text


def test_a_column_that_is_called_otherwise_is_named_by_the_recipe() -> None:
    task, _ = texts(review=["a", "b"], stars=["x", "y"])
    pool = of(first=["c"], second=["d"])
    assert bound(task, pool, review="second") == {"review": ["d"]}
    with pytest.raises(DataError, match=r"which column is 'review'\? The columns are first \(text\) and second"):
        task.unlabelled(pool, {})
    with pytest.raises(DataError, match=r"columns: got 'reveiw'; expected .*review\. Did you mean review\?"):
        task.unlabelled(pool, {"reveiw": "first"})
    with pytest.raises(DataError, match="holds int64; expected text"):
        task.unlabelled(of(review=[1]), {})


def test_pairs_are_read_by_their_names() -> None:
    task, _ = texts(premise=["a", "b"], hypothesis=["c", "d"], label=["x", "y"])
    assert bound(task, of(hypothesis=["h"], premise=["p"])) == {"premise": ["p"], "hypothesis": ["h"]}
    assert bound(task, of(sentence1=["p"], sentence2=["h"])) == {"premise": ["p"], "hypothesis": ["h"]}
    with pytest.raises(DataError, match="which column is 'premise'"):
        task.unlabelled(of(text=["p"]), {})


def test_empty_texts_are_refused_or_left_out() -> None:
    task, _ = texts(text=["a", "b"], topic=["x", "y"])
    pool = task.unlabelled(of(text=["c", "", None]), {})
    with pytest.raises(DataError, match=r"data\.unlabelled: 'text' is null or empty in 2 of 3 examples"):
        task.usable(pool)
    assert task.section is not None
    skipping = replace(task, section=task.section.model_copy(update={"broken": "skip"}))
    assert skipping.usable(pool)["text"][:] == ["c"]


# --- labels of people are not read ---


@pytest.mark.parametrize("labels", [[1, 0], ["x", "nobody knows this one"], [None, None], [["x"], []], [3.5, -1.0]])
def test_whatever_stands_in_a_label_column_is_not_looked_at(labels: list[Any]) -> None:
    task, split = texts(text=["good film", "bad food"], topic=["x", "y"])
    batch = whole(task, split, of(text=["the film", "a b"], topic=labels), bert_tokenizer())
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, -100, -100]
    assert task.counts(batch) == {"rows": 4, "labelled": 2, "examples": 4, "tokens": 16}


def test_several_labels_and_numbers_are_missing_whole() -> None:
    split = Dataset.from_dict({"text": ["good film", "bad food"], "tags": [["x"], ["x", "y"]]})
    task = TextClassification.understand(TextClassificationData(train="x", label=("tags",)), {"train": split})
    batch = whole(task, split, of(text=["the film"], tags=[["z"]]), bert_tokenizer())
    assert batch.labels is not None
    assert batch.labels.tolist() == [[1, 0], [1, 1], [-100, -100]]
    assert {name: task.counts(batch)[name] for name in ("rows", "labelled")} == {"rows": 6, "labelled": 4}
    numbers = Dataset.from_dict({"text": ["good film", "bad food"], "score": [0.5, 1.5]})
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": numbers})
    batch = whole(task, numbers, of(text=["the film"], score=[9.5]), bert_tokenizer())
    assert batch.labels is not None
    assert batch.labels[:2].tolist() == [0.5, 1.5]
    assert torch.isnan(batch.labels[2])
    assert task.counts(batch)["labelled"] == 2


def test_without_labelled_examples_a_batch_has_no_labels() -> None:
    task, split = texts(text=["good film", "bad food"], topic=["x", "y"])
    batch = whole(task, split.select([]), of(text=["the film"]), bert_tokenizer())
    assert batch.labels is None
    assert task.counts(batch)["labelled"] == 0


# --- pictures ---


def png(seed: int, mode: str = "RGB", **options: Any) -> bytes:
    written = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    PIL.Image.fromarray(pixels).convert(mode).save(written, "PNG", **options)
    return written.getvalue()


def pictures() -> tuple[ImageClassification, Dataset]:
    split = Dataset.from_dict(
        {"image": [{"bytes": png(seed), "path": None} for seed in range(4)], "label": [0, 1, 0, 1]},
        features=Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])}))
    return ImageClassification.understand(ImageClassificationData(train="x"), {"train": split}), split


@pytest.mark.parametrize("form", ["bytes", "picture", "struct"])
def test_pictures_stand_beside_those_that_are_stored_otherwise(form: str) -> None:
    task, split = pictures()
    feature = {"bytes": Value("binary"), "picture": Image(),
               "struct": {"bytes": Value("binary"), "path": Value("string")}}[form]
    value: Any = png(9) if form == "bytes" else {"bytes": png(9), "path": None}
    pool = Dataset.from_dict({"photo": [value], "label": ["zebra"]},
                             features=Features({"photo": feature, "label": Value("string")}))
    batch = whole(task, split, pool, image_processor())
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 0, 1, -100]
    alone = whole(task, split.select([]), pool, image_processor())
    torch.testing.assert_close(batch.student["pixel_values"][4], alone.student["pixel_values"][0], rtol=0, atol=0)


def test_a_picture_is_known_by_its_pixels_however_it_is_stored() -> None:
    task, split = pictures()
    again = Dataset.from_dict({"image": [png(0, compress_level=0), png(0, "L"), b"no picture", png(3)]})
    known = {trace: row for row, trace in enumerate(task.traces(split))}
    assert [known.get(trace) for trace in task.traces(again)] == [0, None, None, 3]
    assert png(0, compress_level=0) != png(0)


def test_broken_pictures_are_refused_or_left_out() -> None:
    task, _ = pictures()
    pool = task.unlabelled(Dataset.from_dict({"image": [png(1), b"no picture"]}), {})
    with pytest.raises(DataError, match=r"data\.unlabelled: 1 of 2 pictures cannot be read"):
        task.usable(pool)
    assert task.section is not None
    skipping = replace(task, section=task.section.model_copy(update={"broken": "skip"}))
    assert len(skipping.usable(pool)) == 1


# --- plain text over a vocabulary: rows, and no labels ---


def language(kind: str) -> tuple[Task, Dataset, Any, Dataset]:
    split, pool = of(text=["the cat sat", "a dog ran"]), of(text=["the old eel slept", "a new mat"])
    if kind == "masked":
        task: Task = MaskedLM.understand(MaskedLMData(train="x", mask=0.5), {"train": split})
        return task, split, bert_lm_tokenizer(), pool
    section = CausalLMData(train="x", max_length=24, pack=kind == "packed")
    return CausalLM.understand(section, {"train": split}), split, byte_tokenizer(), pool


@pytest.mark.parametrize("kind", ["masked", "packed", "unpacked"])
def test_of_a_text_the_teacher_alone_says_what_follows(kind: str) -> None:
    task, split, tokenizer, pool = language(kind)
    batch = whole(task, split, pool, tokenizer, training=True)
    assert batch.labels is not None
    said = task.signals(torch.zeros(*batch.labels.shape, 40), batch, Side.STUDENT)
    counts = task.counts(batch)
    assert said.labels is not None
    assert said.logits is not None
    rows = int((batch.labels != NO_ROW).sum())
    assert counts["rows"] == len(said.logits) == len(said.labels) == rows
    silent = int((said.labels == NO_ROW).sum())
    assert 0 < silent < rows
    assert counts["labelled"] == rows - silent
    # what stands at those rows is nowhere in what a loss gets
    batch["labels"] = torch.where(batch["unlabelled"][:, None] & (batch.labels != NO_ROW), 7, batch.labels)
    again = task.signals(torch.zeros(*batch.labels.shape, 40), batch, Side.STUDENT)
    assert again.labels is not None
    assert torch.equal(again.labels, said.labels)


def test_labelled_and_unlabelled_texts_share_no_block() -> None:
    task, split, tokenizer, pool = language("packed")
    prepared = task.prepare(joined(task.beside(split), task.unlabelled(pool, {})), tokenizer, None, training=True)
    collated = [prepared.collate([index]) for index in range(len(prepared))]
    texts_of = [tokenizer.decode(batch.student["input_ids"][0]) for batch in collated]
    for text, batch in zip(texts_of, collated):
        assert ("cat" in text or "dog" in text) != ("unlabelled" in batch)


def test_a_pool_that_is_the_training_data_is_masked_and_packed_like_them() -> None:
    for kind in ("masked", "packed", "unpacked"):
        task, split, tokenizer, _ = language(kind)
        one = whole(task, split, None, tokenizer, training=True)
        other = whole(task, split.select([]), split, tokenizer, training=True)
        for name in one.student:
            assert torch.equal(one.student[name], other.student[name])
        assert torch.equal(one["labels"], other["labels"])


# --- what the teacher writes for ---


def translating(**columns: list[Any]) -> tuple[Seq2Seq, Dataset]:
    split = Dataset.from_dict(columns or pairs.pairs(4))
    return Seq2Seq.understand(Seq2SeqData(train="x"), {"train": split}), split


def test_of_sources_the_targets_are_asked_for_and_never_read(caplog: pytest.LogCaptureFixture) -> None:
    task, split = translating()
    pool = task.unlabelled(of(source=["cat dog", "sun"], target=["wrong", "wrong"]), {})
    assert pool.to_dict() == {"source": ["cat dog", "sun"], "target": [None, None]}
    assert "'target' is not read" in caplog.text
    both = joined(task.beside(split), pool)
    asked = task.asked(both, pairs.processor("bart"))
    assert asked.keys.tolist() == [0, 1, 2, 3, 4, 5]
    assert list(asked.references[:4]) == split["target"][:]
    answered = task.answered(joined(None, pool), ["god tac two", "nus one"], [False, True])
    whole_now = joined(task.beside(split), answered)
    prepared = task.prepare(whole_now, pairs.processor("bart"), None, training=True)
    batch = prepared.collate([4, 5])
    words = {word: number for number, word in enumerate(pairs.VOCABULARY)}
    assert batch.labels is not None
    assert batch.labels.tolist() == [[0, words["god"], words["tac"], words["two"], 2],
                                     [0, words["nus"], words["one"], NO_ROW, NO_ROW]]  # cut: no end is taught
    assert task.counts(batch)["labelled"] == 8


def within(*both: tuple[str, str]) -> Dataset:
    return Dataset.from_list([{"translation": dict(zip(("en", "de"), one))} for one in both])


def test_sources_within_a_column_of_languages_are_found() -> None:
    split = within(("cat", "tac one"), ("dog", "god one"))
    task = Seq2Seq.understand(Seq2SeqData(train="x", source="translation.en", target="translation.de"), {"train": split})
    for pool in (of(en=["sun"], de=["wrong"]), of(text=["sun"]), within(("sun", "wrong"))):
        assert bound(task, pool) == {"translation.en": ["sun"], "translation.de": [None]}
    answered = task.answered(joined(None, task.unlabelled(of(text=["sun"]), {})), ["nus one"], [False])
    both = joined(task.beside(split), answered)
    assert both["translation.de"][:] == ["tac one", "god one", "nus one"]
    prepared = task.prepare(both, pairs.processor("bart"), None, training=True)
    assert len(prepared) == 3
    assert list(task.traces(split)) == [("cat",), ("dog",)]


def test_prompts_without_completions_are_asked_with_what_belongs_to_them() -> None:
    split = of(instruction=["add"], input=["1 2"], output=["3"])
    task = CausalLM.understand(CausalLMData(train="x", max_length=1000), {"train": split})
    pool = task.usable(task.unlabelled(of(instruction=["add", "say"], input=["3 4", None], output=["wrong", "wrong"]), {}))
    assert pool["output"][:] == [None, None]
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 1000
    asked = task.asked(joined(None, pool), tokenizer)
    assert asked.keys.tolist() == [0, 1]
    assert "3 4" in task.source_of(pool, 0)
    assert bound(task, of(prompt=["add"])) == {"instruction": ["add"], "output": [None], "input": [None]}
    answered = task.answered(joined(None, pool), ["7", "yes"], [False, False])
    prepared = task.prepare(joined(task.beside(split), answered), tokenizer, None, training=True)
    labels = prepared.collate(list(range(len(prepared)))).labels
    assert labels is not None
    assert [tokenizer.decode(row[row != NO_ROW]) for row in labels] == ["3</s>", "7</s>", "yes</s>"]
    with pytest.raises(DataError, match="no token can be predicted"):  # nothing is learnt before somebody has answered
        task.prepare(joined(None, pool), tokenizer, None, training=True)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_of_a_conversation_the_last_answer_is_asked_for_and_none_of_the_datas_is_learnt() -> None:
    split = of(messages=[[user("hi"), assistant("yes")]])
    task = CausalLM.understand(CausalLMData(train="x"), {"train": split})
    pool = of(messages=[[user("a?"), assistant("old one"), user("b?")], [user("c?"), assistant("wrong")]])
    tokenizer = byte_tokenizer(template=CHAT)
    usable = task.usable(task.unlabelled(pool, {}))
    asked = task.asked(joined(None, usable), tokenizer)
    given = asked.tokens.batch([0, 1])
    shown = [tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(given["input_ids"], given["attention_mask"])]
    assert shown == ["<user> a?<end>\n<assistant> old one<end>\n<user> b?<end>\n<assistant> ", "<user> c?<end>\n<assistant> "]
    answered = task.answered(joined(None, usable), ["no", "so"], [False, False])
    prepared = task.prepare(joined(task.beside(split), answered), tokenizer, None, training=True)
    labels = prepared.collate(list(range(len(prepared)))).labels
    assert labels is not None
    learnt = [tokenizer.decode(row[row != NO_ROW]) for row in labels]
    assert ["yes" in learnt[0], "no" in learnt[1], "so" in learnt[2]] == [True] * 3
    assert not any("old one" in text or "wrong" in text for text in learnt)
    assert list(task.traces(pool)) == [("a?\nb?",), ("c?",)]


def test_conversations_in_two_columns_and_sharegpts_are_asked_too() -> None:
    split = of(prompt=[[user("hi")]], completion=[[assistant("yes")]])
    task = CausalLM.understand(CausalLMData(train="x"), {"train": split})
    usable = task.usable(task.unlabelled(of(prompt=[[user("a?")]], completion=[[assistant("wrong")]]), {}))
    assert task.asked(joined(None, usable), byte_tokenizer(template=CHAT)).keys.tolist() == [0]
    answered = task.answered(joined(None, usable), ["no"], [False])
    assert answered["completion"][0] == [assistant("no")]
    shared = CausalLM.understand(CausalLMData(train="x"), {"train": of(conversations=[[
        {"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]])})
    pool = shared.unlabelled(of(conversations=[[{"from": "human", "value": "a?"}], [{"from": "gpt", "value": "alone"}]]), {})
    with pytest.raises(DataError, match="in 1 of 2 examples"):  # where nobody asks anything
        shared.usable(pool)
    answered = shared.answered(joined(None, pool.select([0])), ["no"], [False])
    assert answered["conversations"][0][-1] == {"from": "gpt", "value": "no"}


def test_a_task_that_knows_no_examples_without_labels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    task, split = texts(text=["a", "b"], topic=["x", "y"])
    for name in ("unlabelled", "usable", "beside", "traces"):
        monkeypatch.setattr(TextClassification, name, getattr(Task, name))
    for call in (lambda: task.unlabelled(split, {}), lambda: task.beside(split), lambda: task.traces(split),
                 lambda: task.usable(split)):
        with pytest.raises(CompatibilityError, match="does not say what its examples are without labels"):
            call()


def test_what_is_left_of_a_label_that_no_type_could_hold_does_not_matter(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    task, split = texts(text=["good film", "bad food"], topic=["x", "y"])
    pool = Dataset.from_dict({"text": ["a"], "label": [[["deep"]]]}, features=Features(
        {"text": Value("large_string"), "label": List(List(Value("string")))}))
    assert whole(task, split, pool, bert_tokenizer())["labels"].tolist() == [0, 1, -100]
    assert "'label' is not read" in caplog.text
