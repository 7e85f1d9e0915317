"""From a file to rows in the models' order: words of one tokenizer or two, labels by name, windows, caches."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    TrainingArguments,
    pipeline,
)

from stilla import DistillationTrainer, Term, tasks
from stilla.data import joined
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate import Asked, examine
from stilla.objectives import KINDS as OBJECTIVES
from stilla.objectives import Labels, Logits
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense, Side
from stilla.tasks.base import Loaded
from stilla.tasks.text.schemes import entities as entities_of
from stilla.tasks.text.schemes import kinded
from stilla.tasks.text.sections import TokenClassificationData
from stilla.tasks.text.token_classification import TokenClassification
from tests.tasks.text import taggers
from tests.tasks.text.taggers import ENTITIES

ROWS = taggers.sentences(12)
SPLIT = Dataset.from_dict(ROWS)


def task_of(rows: dict[str, list[Any]] | Dataset = ROWS, **section: Any) -> TokenClassification:
    split = rows if isinstance(rows, Dataset) else Dataset.from_dict(rows)
    return TokenClassification.understand(TokenClassificationData(train="x", **section), {"train": split})


class Table(nn.Module):
    """Looks each token's letters up: the same answer to a word's first piece, whatever the tokenizer."""

    def __init__(self, tokenizer: Any, names: tuple[str, ...], order: tuple[str, ...] = ENTITIES) -> None:
        super().__init__()
        pieces = [token.replace("Ġ", "").lower() for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
        draws = [torch.randn(len(order), generator=torch.Generator().manual_seed(sum(map(ord, one[:1])))) for one in pieces]
        self.weight = nn.Parameter(torch.stack(draws)[:, [order.index(name) for name in names]])
        self.config: Any = taggers.config("bert", 8, names)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        return {"logits": self.weight[input_ids]}


def loaded(model: nn.Module, tokenizer: Any) -> Loaded:
    return Loaded(model, tokenizer, "here")


def whole(task: TokenClassification, student: Any, teacher: Any = None, split: Dataset = SPLIT) -> Batch:
    prepared = task.prepare(split, student, teacher, training=True)
    return prepared.collate(list(range(len(prepared))))


# --- rows ---


def test_a_row_is_a_word_at_its_first_piece_with_its_own_tag() -> None:
    task, tokenizer = task_of(), taggers.wordpieces()
    batch = whole(task, tokenizer)
    words = [word for tokens in ROWS["tokens"] for word in tokens]
    logits = nn.functional.one_hot(batch.student["input_ids"], len(tokenizer)).float()
    said = task.signals({"logits": logits}, batch, Side.STUDENT)
    assert isinstance(said.logits, Dense)
    pieces = tokenizer.convert_ids_to_tokens(said.logits.logits.argmax(-1).tolist())
    assert pieces == [tokenizer.tokenize(word)[0] for word in words]
    assert said.labels is not None
    assert [task.class_names()[label] for label in said.labels] == [tag for tags in ROWS["tags"] for tag in tags]
    counts = task.counts(batch)
    assert set(counts) == set(task.counted)
    assert counts["rows"] == counts["labelled"] == counts["words"] == len(words)


def test_padding_has_no_influence() -> None:
    task = task_of()
    made = taggers.model("bert", len(taggers.wordpieces()), task.class_names())
    for side in ("right", "left"):
        tokenizer = taggers.wordpieces()
        tokenizer.padding_side = side
        prepared = task.prepare(SPLIT, tokenizer, None, training=False)
        together = examine(task.exam(), {"student": Asked(made)}, prepared, batch_size=12)["student"]
        alone = examine(task.exam(), {"student": Asked(made)}, prepared, batch_size=1)["student"]
        if side == "right":  # BERT counts positions from the left, padding too
            for one, other in zip(together.given, alone.given):
                np.testing.assert_allclose(one, other, atol=1e-5)
        assert [one.tolist() for one in together.references] == [one.tolist() for one in alone.references]


def test_two_tokenizers_have_the_same_rows_and_equal_answers_have_no_divergence() -> None:
    task, ours, theirs = task_of(), taggers.wordpieces(), taggers.byte_level()
    batch = whole(task, ours, theirs)
    assert batch.student["input_ids"].shape != batch.teacher["input_ids"].shape
    student, teacher = Table(ours, ENTITIES), Table(theirs, ENTITIES)
    said = task.signals(student(**batch.student), batch, Side.STUDENT)
    told = task.signals(teacher(**batch.teacher), batch, Side.TEACHER)
    torch.testing.assert_close(said.logits.logits, told.logits.logits)  # type: ignore[union-attr]
    prepared = task.prepare(SPLIT, ours, theirs, training=False)
    answers = examine(task.exam(), {"teacher": Asked(teacher, Side.TEACHER), "student": Asked(student)}, prepared)
    assert task.exam().divergence(answers["teacher"], answers["student"]) == pytest.approx(0)
    assert not prepared.aligned
    assert task.prepare(SPLIT, ours, taggers.wordpieces(), training=True).aligned


def test_a_word_that_one_side_has_no_token_of_is_no_row_but_is_still_answered(caplog: pytest.LogCaptureFixture) -> None:
    rows = {"tokens": [["Ann", "\u200b", "Bern"]], "tags": [["B-PER", "O", "B-LOC"]]}
    task, ours, theirs = task_of(rows), taggers.byte_level(), taggers.wordpieces()
    with caplog.at_level(logging.WARNING):
        batch = whole(task, ours, theirs, Dataset.from_dict(rows))
    assert "1 of 3 words have no token" in caplog.text
    assert task.counts(batch)["rows"] == 2
    assert task.signals({"logits": torch.zeros(*batch.student["input_ids"].shape, 5)}, batch, Side.STUDENT).labels is not None
    prepared = task.prepare(Dataset.from_dict(rows), ours, theirs, training=False)
    teacher = taggers.model("bert", len(theirs), task.class_names())
    student = taggers.model("roberta", len(ours), task.class_names())
    said = examine(task.exam(), {"teacher": Asked(teacher, Side.TEACHER), "student": Asked(student)}, prepared)
    assert said["teacher"].given[0][1].tolist() == [0] * 5
    assert said["student"].given[0][1].any()


def test_other_names_for_what_answers_for_a_word() -> None:
    task, tokenizer = task_of(answers="last"), taggers.wordpieces()
    batch = whole(task, tokenizer)
    ids = batch.student["input_ids"].gather(1, batch["words"]["student"].clamp_min(0))
    first = tokenizer.convert_ids_to_tokens(ids[0].tolist())[: len(ROWS["tokens"][0])]
    assert first == [tokenizer.tokenize(word)[-1] for word in ROWS["tokens"][0]]


# --- labels ---


def test_the_labels_come_in_the_teachers_order_by_name() -> None:
    other = ("I-PER", "B-LOC", "O", "I-LOC", "B-PER")
    tokenizer = taggers.wordpieces()
    task = task_of()
    moved = task.adapted_to(loaded(Table(tokenizer, other), tokenizer))
    assert moved.class_names() == other
    losses = []
    for one in (task, moved):
        batch = whole(one, tokenizer)
        said = one.signals(Table(tokenizer, one.class_names())(**batch.student), batch, Side.STUDENT)
        assert isinstance(said.logits, Dense)
        # sorted, so that the sum is of the same numbers in the same order
        losses.append(nn.functional.cross_entropy(said.logits.logits.double(), said.labels, reduction="none"))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)


def test_a_teacher_with_its_labels_in_another_order_and_other_pieces_teaches_the_same() -> None:
    ours, theirs = taggers.wordpieces(), taggers.byte_level()
    losses = []
    for names in (ENTITIES, ("I-PER", "B-LOC", "O", "I-LOC", "B-PER")):
        task = task_of().adapted_to(loaded(Table(theirs, names), theirs))
        batch = whole(task, ours, theirs)
        told = task.signals(Table(theirs, names)(**batch.teacher), batch, Side.TEACHER).logits
        said = task.signals(Table(ours, names)(**batch.student), batch, Side.STUDENT).logits
        assert isinstance(said, Dense)
        assert isinstance(told, Dense)
        told = Dense(told.logits.double())
        assert Logits().losses(said.logits.double(), told, None, 0.0).abs().max() < 1e-9  # they say the same of every word
        losses.append(Logits().losses(said.logits.double() * 0.5, told, None, 0.0))
    assert losses[0].min() > 0
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)


def test_a_teachers_own_scheme_is_what_entities_are_written_in(caplog: pytest.LogCaptureFixture) -> None:
    names = ("O", *(f"{letter}-{kind}" for kind in ("PER", "LOC", "ORG") for letter in "BIES"))
    tokenizer = taggers.wordpieces()
    with caplog.at_level(logging.WARNING):
        task = task_of().adapted_to(loaded(Table(tokenizer, names, names), tokenizer))
    assert "reads B- and I- only" in caplog.text
    assert task.class_names() == names
    batch = whole(task, tokenizer)
    assert batch.labels is not None
    for labels, tags in zip(batch.labels, ROWS["tags"]):
        said = [kinded(names[label]) for label in labels[: len(tags)]]
        assert entities_of(said, "bioes") == (entities_of([kinded(tag) for tag in tags], "iob2")[0], [])


def test_a_teacher_with_bare_types_serves_where_no_two_entities_touch() -> None:
    tokenizer = taggers.wordpieces()
    rows = {"tokens": [["Ann", "Bob", "in", "Bern"], ["Ann", "Bob"]],
            "tags": [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER"]]}
    task = task_of(rows).adapted_to(loaded(Table(tokenizer, ("O", "LOC", "PER"), ("O", "LOC", "PER")), tokenizer))
    assert task.scheme == "io"
    batch = whole(task, tokenizer, split=Dataset.from_dict(rows))
    assert batch.labels is not None
    assert batch.labels[0].tolist() == [2, 2, 0, 1]
    touching = Dataset.from_dict({"tokens": [["Ann", "Bob"]], "tags": [["B-PER", "B-PER"]]})
    with pytest.raises(DataError, match="two entities of one type stand side by side in 'Ann Bob'"):
        task.prepare(touching, tokenizer, None, training=True)


@pytest.mark.parametrize(("names", "why"), [
    (("O", "I-PER", "I-LOC", "B-LOC"), r"labels of IOB1 .*cannot be brought to IOB2 exactly"),
    (("O", "B-PER", "I-PER"), r"does not know B-LOC and I-LOC of the data"),
    (("O", "B-PER", "I-PER", "B-LOC"), r"does not know I-LOC of the data"),
    (("NOUN", "VERB"), r"answers with 'NOUN' and 'VERB', which say no entities"),
])
def test_a_teacher_that_cannot_answer_for_the_tags_is_refused(names: tuple[str, ...], why: str) -> None:
    tokenizer = taggers.wordpieces()
    with pytest.raises(CompatibilityError, match=why):
        task_of().adapted_to(loaded(Table(tokenizer, names, names), tokenizer))


def test_a_teacher_of_other_parts_of_speech_is_refused() -> None:
    tokenizer = taggers.wordpieces()
    task = task_of({"tokens": [["Ann", "sees"]], "upos": [["PROPN", "VERB"]]})
    with pytest.raises(CompatibilityError, match="does not know 1 of the data's 2 labels: 'PROPN'"):
        task.adapted_to(loaded(Table(tokenizer, ("VERB", "NOUN"), ("VERB", "NOUN")), tokenizer))


def test_a_model_without_tags_of_its_own_gets_those_of_the_data(tmp_path: Path) -> None:
    task = task_of()
    path = taggers.folder(tmp_path / "m", names=("X", "Y"))
    made = task.load(ModelSource(model=path), labelled=False).model
    assert tuple(made.config.id2label.values()) == ENTITIES
    with pytest.raises(CompatibilityError, match="answers with 'X' and 'Y'"):
        task.adapted_to(task.load(ModelSource(model=path), labelled=True))


def test_a_tokenizer_that_says_no_places_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = taggers.folder(tmp_path / "m")
    monkeypatch.setattr(type(AutoTokenizer.from_pretrained(path)), "is_fast", property(lambda _: False))
    with pytest.raises(CompatibilityError, match="does not say where in a text its tokens stand"):
        task_of().load(ModelSource(model=path), labelled=False)


# --- long examples ---


def test_a_long_document_is_answered_word_by_word_as_if_it_were_read_at_once() -> None:
    times = 2000 // sum(map(len, ROWS["tokens"])) + 1
    rows = {name: [[one for several in column for one in several] * times] for name, column in ROWS.items()}
    assert len(rows["tokens"][0]) > 2000
    split, tokenizer = Dataset.from_dict(rows), taggers.wordpieces()
    model = Table(tokenizer, ENTITIES)
    long = taggers.wordpieces()
    long.model_max_length = 100_000
    once = task_of(rows, max_length=20_000)
    at_once = examine(once.exam(), {"student": Asked(model)}, once.prepare(split, long, None, training=False))["student"]
    for overlap in (0.0, 0.5):
        task = task_of(rows, max_length=128, overlap=overlap)
        prepared = task.prepare(split, tokenizer, None, training=False)
        assert len(prepared) > 10
        assert max(prepared.lengths or ()) <= 128
        said = examine(task.exam(), {"student": Asked(model)}, prepared, batch_size=16)["student"]
        assert len(said) == 1
        np.testing.assert_array_equal(said.given[0], at_once.given[0])
        np.testing.assert_array_equal(said.references[0], at_once.references[0])
        batch = prepared.collate(list(range(len(prepared))))
        assert task.counts(batch)["rows"] == len(rows["tokens"][0])


# --- unlabelled ---


def test_unlabelled_examples_are_words_or_texts_without_tags() -> None:
    task, tokenizer = task_of(), taggers.wordpieces()
    lists = task.usable(task.unlabelled(Dataset.from_dict({"words": [["Ann", "sees"]], "tags": [["X", "Y"]]}), {}))
    assert lists.to_dict() == {"tokens": [["Ann", "sees"]]}
    texts = task.usable(task.unlabelled(Dataset.from_dict({"text": ["Bob's Bern."]}), {}))
    assert texts.to_dict() == {"tokens": [["Bob", "'", "s", "Bern", "."]]}
    split = joined(task.beside(SPLIT), texts)
    batch = whole(task, tokenizer, split=split)
    counts = task.counts(batch)
    assert counts["rows"] - counts["labelled"] == 5
    assert [next(iter(task.traces(texts)))] == [("Bob ' s Bern .",)]
    with pytest.raises(DataError, match="has no words in 1 of 1"):
        task.usable(Dataset.from_dict({"tokens": [["", "x"]]}))


def test_texts_with_spans_take_unlabelled_texts() -> None:
    rows = Dataset.from_list([{"text": "Ann in Bern", "entities": [{"start": 0, "end": 3, "label": "PER"}]}])
    task = task_of(rows)
    assert task.unlabelled(Dataset.from_dict({"body": ["x y"]}), {}).to_dict() == {"text": ["x y"]}
    batch = whole(task, taggers.wordpieces(), split=rows)
    assert batch.labels is not None
    assert batch.labels.tolist() == [[1, 0, 0]]


# --- teachers, caches, trainers ---


def test_a_crf_teaches_by_its_marginals(tmp_path: Path) -> None:
    wordpieces = taggers.wordpieces()
    wordpieces.save_pretrained(tmp_path)
    source = ModelSource(model=f"{taggers.__name__}:Crf", processor=str(tmp_path))
    task = task_of()
    teacher = task.load(source, labelled=True)
    task = task.adapted_to(teacher)
    assert task.class_names() == ENTITIES
    batch = whole(task, wordpieces, teacher.processor)
    told = task.signals(teacher.model(**batch.teacher), batch, Side.TEACHER)
    assert isinstance(told.logits, Dense)
    torch.testing.assert_close(told.logits.logits.exp().sum(-1), torch.ones(len(told.logits)))
    torch.testing.assert_close(told.logits.logits.softmax(-1), told.logits.logits.exp())


def test_a_model_of_ones_own_that_answers_for_whole_texts_is_refused(tmp_path: Path) -> None:
    taggers.wordpieces().save_pretrained(tmp_path)
    source = ModelSource(model=f"{taggers.__name__}:Whole", processor=str(tmp_path))
    with pytest.raises(CompatibilityError, match=r"logits are \(2, 5\); expected \(batch, positions, labels\)"):
        task_of().load(source, labelled=False)


def test_a_student_with_some_of_its_teachers_tokens_shares_its_pieces() -> None:
    task, theirs = task_of(), taggers.wordpieces("zebra", "quagga")
    ours = taggers.wordpieces()
    batch = whole(task, ours, theirs)
    assert theirs.batch_decode(batch.teacher["input_ids"]) == ours.batch_decode(batch.student["input_ids"])
    prepared = task.prepare(SPLIT, ours, theirs, training=True)
    assert prepared.aligned


def test_a_piece_is_the_same_in_whatever_batch_it_stands() -> None:
    for side in ("right", "left"):
        task, tokenizer = task_of(), taggers.wordpieces()
        tokenizer.padding_side = side
        prepared = task.prepare(SPLIT, tokenizer, None, training=True)
        together = task.segments(prepared.collate([3, 0, 5]))
        (alone,) = task.segments(prepared.collate([0]))
        assert together[1].content == alone.content
        assert [one.rows.stop - one.rows.start for one in together] == [len(ROWS["tokens"][row]) for row in (3, 0, 5)]
    last = task_of(answers="last").prepare(SPLIT, tokenizer, None, training=True)
    assert task.segments(last.collate([0]))[0].content != alone.content


def test_batches_that_a_person_makes_have_a_row_at_every_label() -> None:
    tokenizer = taggers.wordpieces()
    model = taggers.model("bert", len(tokenizer))
    task = tasks.of_model(model)
    assert isinstance(task, TokenClassification)
    assert (task.class_names(), task.scheme) == (ENTITIES, "iob2")
    read = tokenizer([["Marianne", "in"], ["Bern"]], is_split_into_words=True)
    labels = [[-100, 3, -100, 0, -100], [-100, 1, -100]]
    made = DataCollatorForTokenClassification(tokenizer)([
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, label in zip(read["input_ids"], read["attention_mask"], labels)])
    inputs = {name: made[name] for name in ("input_ids", "attention_mask")}
    batch = Batch(student=inputs, teacher=inputs, labels=made["labels"])
    said = task.signals(model(**inputs), batch, Side.STUDENT)
    assert said.labels is not None
    assert said.labels.tolist() == [3, 0, 1]
    torch.testing.assert_close(said.logits.logits, model(**inputs).logits[[0, 0, 1], [1, 3, 1]])  # type: ignore[union-attr]
    assert task.counts(batch)["rows"] == 3
    assert [one.rows for one in task.segments(batch)] == [slice(0, 2), slice(2, 3)]
    given = task.exam().given(task.exam().ask(model, batch, Side.STUDENT), batch, None)
    assert [one.shape for one in given] == [(2, 5), (1, 5)]
    with pytest.raises(CompatibilityError, match="no `labels`"):
        task.counts(Batch(student=inputs, teacher=inputs))
    with pytest.raises(CompatibilityError, match="no columns to prepare"):
        task.prepare(SPLIT, tokenizer, None, training=True)


@pytest.mark.slow
def test_a_trainer_learns_from_batches_that_a_person_makes(tmp_path: Path) -> None:
    tokenizer = taggers.wordpieces()
    teacher, student = (taggers.model("bert", len(tokenizer), layers=layers) for layers in (2, 1))
    read = tokenizer(ROWS["tokens"], is_split_into_words=True)
    rows = []
    for row, tags in enumerate(ROWS["tags"]):
        words = read.word_ids(row)
        labels = [-100 if word is None or word == before else ENTITIES.index(tags[word])
                  for before, word in zip([None, *words], words)]
        rows.append({"input_ids": read["input_ids"][row], "attention_mask": read["attention_mask"][row], "labels": labels})
    split = Dataset.from_list(rows)
    made = DistillationTrainer(
        student, teacher, terms=[Term(Labels()), Term(Logits())], train_dataset=split, eval_dataset=split,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        args=TrainingArguments(str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to="none", use_cpu=True))
    made.train()
    found = made.evaluate()
    prepared = task_of().prepare(SPLIT, tokenizer, None, training=False)
    said = examine(task_of().exam(), {"student": Asked(student)}, prepared)["student"]
    (metric, *_) = task_of().exam().metrics()
    assert found["eval_entity_f1"] == pytest.approx(metric.compute(said.given, said.references))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "deberta", "modernbert", "gpt2", "qwen3"])
def test_families_load_and_answer_for_every_word(family: str, tmp_path: Path) -> None:
    path = taggers.folder(tmp_path / family, family, tokenizer=taggers.unigram() if family == "deberta" else None)
    task = task_of()
    teacher = task.load(ModelSource(model=path), labelled=True)
    task = task.adapted_to(teacher)
    prepared = task.prepare(SPLIT, teacher.processor, None, training=False)
    said = examine(task.exam(), {"student": Asked(teacher.model)}, prepared)["student"]
    assert [len(one) for one in said.given] == [len(tokens) for tokens in ROWS["tokens"]]
    assert AutoModelForTokenClassification.from_pretrained(path).config.id2label == dict(enumerate(ENTITIES))


def test_what_pipelines_say_is_what_is_measured(tmp_path: Path) -> None:
    """Also where entities touch: their tags are IOB2."""
    tokenizer = taggers.wordpieces()
    path = taggers.folder(tmp_path / "m", tokenizer=tokenizer)
    model = AutoModelForTokenClassification.from_pretrained(path)
    with torch.no_grad():  # says what a word is by its first piece alone, and begins anew at every name
        model.bert.embeddings.word_embeddings.weight.normal_(generator=torch.Generator().manual_seed(5))
    model.save_pretrained(path)
    texts = ["Ann Bob sees Bern", "Bern near the river", "Bob Ann in Bern Bern"]
    words = [text.split() for text in texts]
    split = Dataset.from_dict({"tokens": words, "tags": [["O"] * len(one) for one in words]})
    task = task_of(ROWS).adapted_to(Loaded(model, tokenizer, path))
    said = examine(task.exam(), {"student": Asked(model)}, task.prepare(split, tokenizer, None, training=False))["student"]
    asked = pipeline("token-classification", model=path, aggregation_strategy="first")
    compared = 0
    for given, one, text in zip(said.given, words, texts):
        tags = [kinded(ENTITIES[tag]) for tag in given.argmax(-1)]
        found, wrong = entities_of(tags, "iob2")
        if not wrong:  # what breaks the scheme a pipeline repairs in its own way
            ours = [(name, " ".join(one[start:end]).lower()) for start, end, name in found]
            assert [(group["entity_group"], group["word"]) for group in asked(text)] == ours
            compared += len(ours)
    assert compared


OF_OTHERS = {"ranking", "channels", "pairwise", "ctc", "objects", "queries", "edges", "segments", "masks", "spectrogram",
             "frames"}
"""Of candidates, pictures, sounds, symbols and objects, which no text of words has."""


@pytest.mark.parametrize("kind", list(OBJECTIVES))
def test_every_objective_but_those_of_other_things_counts_what_the_task_counts(kind: str) -> None:
    from stilla.objectives import term
    from stilla.recipe import ObjectiveSpec

    refused = term(ObjectiveSpec(kind=kind)).objective.uncounted(TokenClassification.counted)
    assert bool(refused) == (kind in OF_OTHERS)
