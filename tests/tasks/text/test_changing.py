"""Texts in words that a masked language model proposes: what is drawn of them, and what both models then read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.tasks.text.proposals import Proposals, spelled_as
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from tests import tiny
from tests.tasks.text import proposed

TEXTS = [" ".join([*tiny.FILLER[: 3 + index % 7], str(index)]) for index in range(64)]
SPELLINGS = tuple(word for group in tiny.TOPICS.values() for word in group)


def proposals(texts: Sequence[str] = TEXTS) -> Proposals:
    return proposed.proposals(texts, SPELLINGS)


def task(columns: dict[str, list[str]], known: Proposals | None, **section: Any) -> tuple[TextClassification, Dataset]:
    split = Dataset.from_dict({**columns, "label": ["a", "b"] * (len(next(iter(columns.values()))) // 2)})
    augment = {"kind": "contextual", "model": "m", **section.pop("augment", {})}
    made = TextClassification.understand(
        TextClassificationData(train="memory", text=tuple(columns), augment=augment, **section), {"train": split})
    return made if known is None else made.knowing(known), split


def prepared(
    known: Proposals | None = None, *, student: Any = None, teacher: Any = None, taught: bool = True, training: bool = True,
    seed: int = 3, columns: dict[str, list[str]] | None = None, **section: Any,
) -> Prepared:
    made, split = task(columns or {"text": TEXTS}, known or proposals(), **section)
    reads = student or tiny.tokenizer()
    return made.prepare(split, reads, (teacher or reads) if taught else None, training=training, seed=seed)


def batch(made: Prepared, examples: Sequence[int] = range(64)) -> Batch:
    return made.collate([made.examples[one] for one in examples])


def read(found: Batch, side: str = "student") -> list[str]:
    inputs = getattr(found, side)
    tokenizer = tiny.tokenizer()
    return [tokenizer.decode(ids[mask.bool()][1:-1]) for ids, mask in
            zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]


def expected(key: int, text: str, *, seed: int, epoch: int) -> str:
    """What the documentation says is drawn, word by word."""
    draw = np.random.default_rng((seed, epoch, key))
    if draw.random() >= 0.75:
        return text
    draw.integers(1)  # which of its one columns
    words = text.split()[:-1]
    which = [place for place, one in enumerate(draw.random(len(words))) if one < 0.4]
    for place, one in zip(which, draw.random(len(which)), strict=True):
        words[place] = SPELLINGS[(key + (0 if one < 0.5 else 1 if one < 0.8 else 2)) % 15]
    return " ".join([*words, text.split()[-1]])


# --- what is drawn ---


def test_texts_are_what_seed_pass_and_key_say_however_they_are_batched() -> None:
    made = prepared()
    assert made.on_epoch is not None
    for epoch in (0, 2):
        made.on_epoch(epoch)
        told = [expected(key, text, seed=3, epoch=epoch) for key, text in enumerate(TEXTS)]
        assert read(batch(made)) == [" ".join([*one.split()[:-1], "[UNK]"]) for one in told]
        found = batch(made)
        changed = torch.tensor([one != text for one, text in zip(told, TEXTS, strict=True)])
        assert 30 < changed.sum() < 60
        assert torch.equal(found.labels == -100, changed)
        for one in range(0, 64, 9):
            alone = batch(made, [one])
            ids = alone.student["input_ids"][0]
            assert torch.equal(ids, found.student["input_ids"][one, : len(ids)])
            assert torch.equal(alone.labels, found.labels[[one]])


def test_words_are_drawn_by_their_chances() -> None:
    known, draws = proposals(["one"]), np.random.default_rng(0)
    said = [known.reworded("one", 1.0, draws) for _ in range(4000)]
    assert [said.count(word) / 4000 for word in SPELLINGS[:3]] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_share_and_rate_say_how_many_texts_and_words() -> None:
    everything = read(batch(prepared(augment={"share": 1.0, "rate": 1.0})))
    assert not {word for text in everything for word in text.split()} & {*tiny.FILLER}
    none = read(batch(prepared(augment={"share": 1e-9})))
    assert none == [" ".join([*text.split()[:-1], "[UNK]"]) for text in TEXTS]


def test_what_stands_between_words_stays() -> None:
    text = "  Old, (a) 3 VERY new-old!"
    known = proposals([text])
    rewritten = known.reworded(text, 1.0, np.random.default_rng(0))
    assert rewritten != text
    pattern = ["".join(" " if one.isalpha() else one for one in said).split() for said in (text, rewritten)]
    assert pattern[0] == pattern[1]


@pytest.mark.parametrize(("word", "there", "said"), [
    ("bread", "old", "bread"), ("bread", "Old", "Bread"), ("bread", "OLD", "BREAD"), ("bread", "I", "Bread"),
    ("London", "old", "London"), ("élan", "Old", "Élan")])
def test_capitals_are_those_of_the_word_that_gives_way(word: str, there: str, said: str) -> None:
    assert spelled_as(word, there) == said


def test_views_and_clean_passes_are_as_of_similar_words() -> None:
    made, other = (prepared(views=2, clean_passes=1, seed=seed) for seed in (3, 9))
    assert made.views == 3
    seen = []
    for epoch in range(5):
        for one in (made, other):
            assert one.on_epoch is not None
            one.on_epoch(epoch)
        seen.append(read(batch(made)))
        assert read(batch(other)) == seen[-1]
    assert seen[0] == read(batch(prepared(taught=False)))
    assert seen[1] != seen[2]
    assert seen[3:] == seen[1:3]


@pytest.mark.parametrize("options", [{"taught": False}, {"training": False}])
def test_without_a_teacher_or_training_nothing_is_changed(options: dict[str, bool]) -> None:
    made = prepared(**options)
    assert made.on_epoch is None
    assert read(batch(made)) == [" ".join([*text.split()[:-1], "[UNK]"]) for text in TEXTS]
    assert (batch(made).labels != -100).all()


# --- what both read ---


def test_of_a_pair_one_text_is_changed_and_the_other_stays() -> None:
    columns = {"one": TEXTS, "two": [text.replace("the", "a") for text in TEXTS]}
    known = proposals([*columns["one"], *columns["two"]])
    plain, found = (read(batch(prepared(known, columns=columns, taught=taught))) for taught in (False, True))
    whole = [[text.split(" [SEP] ") for text in one] for one in (plain, found)]
    which = {tuple(before != after for before, after in zip(*pair, strict=True)) for pair in zip(*whole, strict=True)}
    assert which == {(False, False), (True, False), (False, True)}


def test_two_tokenizers_read_the_same_words() -> None:
    other = tiny.tokenizer()
    other.padding_side = "left"
    other.add_tokens(["old", "new"])
    found = batch(prepared(teacher=other, augment={"share": 1.0}))
    assert read(found) == read(found, "teacher")
    assert not torch.equal(found.student["input_ids"], found.teacher["input_ids"])


def test_a_teacher_with_more_tokens_reads_its_own_pieces_of_the_changed_text() -> None:
    """The student has no token for some of the words that are proposed."""
    rules, small = tiny.tokenizer(), tiny.tokenizer()
    kept = {word: number for word, number in rules.get_vocab().items() if number < 20}
    small._tokenizer.model = type(rules._tokenizer.model)(kept, unk_token="[UNK]")
    made = prepared(student=small, teacher=rules)
    assert made.apart is not None
    apart = made.apart([made.examples[one] for one in range(64)])
    told = [expected(key, text, seed=3, epoch=0) for key, text in enumerate(TEXTS)]
    assert read(apart, "teacher") == [" ".join([*one.split()[:-1], "[UNK]"]) for one in told]
    together = batch(made)
    assert torch.equal(together.student["input_ids"], together.teacher["input_ids"])
    assert torch.equal(together.labels, apart.labels)


# --- what is refused ---


def test_texts_that_nobody_asked_about_are_refused() -> None:
    for known in (None, proposals(TEXTS[:9])):
        made, split = task({"text": TEXTS}, known)
        with pytest.raises(CompatibilityError, match=r"data\.augment: contextual: .* not asked about these texts"):
            made.prepare(split, tiny.tokenizer(), tiny.tokenizer(), training=True)


def test_a_teacher_that_reads_other_columns_is_refused() -> None:
    made, split = task({"text": TEXTS}, proposals())
    split = split.add_column("more", TEXTS)
    with pytest.raises(DataError, match=r"data\.augment: contextual replaces words in what both models read"):
        made.taught_from({"text": ("more",)}, {"train": split})


def test_auto_is_what_it_was() -> None:
    split = Dataset.from_dict({"text": TEXTS, "label": ["a", "b"] * 32})
    made = TextClassification.understand(TextClassificationData(train="memory"), {"train": split})
    assert made.settled(ModelSource(model="./bert"), StudentSpec(layers=1)).contextual is None
