from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import CanineConfig, CanineForSequenceClassification, CanineTokenizer

from stilla.errors import CompatibilityError, RecipeError
from stilla.recipe import ModelSource, StudentSpec
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.text.perturbation import nearest
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from tests import tiny


def task(
    augment: str = "light", clean_passes: int | None = None, views: int | None = None
) -> tuple[TextClassification, Dataset]:
    rows = [{"text": " ".join(tiny.FILLER[: 3 + index % 7]), "label": ["a", "b"][index % 2]} for index in range(64)]
    split = Dataset.from_list(rows)
    return TextClassification.understand(TextClassificationData(
        train="memory", augment=augment, clean_passes=clean_passes, views=views), {"train": split}), split


def embedding(size: int = 200) -> torch.Tensor:
    """Of every token, on a circle: a token's neighbours are its numbers' neighbours."""
    angle = torch.arange(size) / size * 2 * torch.pi
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def prepared(
    augment: str = "light", *, training: bool = True, teacher: bool = True, seed: int = 3, clean_passes: int | None = None,
    views: int | None = None,
) -> Prepared:
    made, split = task(augment, clean_passes, views)
    made = replace(made, embedding=embedding())
    tokenizer = tiny.tokenizer()
    return made.prepare(split, tokenizer, tokenizer if teacher else None, training=training, seed=seed)


def ids(prepared: Prepared, examples: list[int]) -> torch.Tensor:
    return prepared.collate([prepared.examples[index] for index in examples])


def test_three_of_four_texts_are_changed_and_have_no_label() -> None:
    plain, changed = (ids(prepared(augment), list(range(64))) for augment in ("none", "light"))
    different = (plain.student["input_ids"] != changed.student["input_ids"]).any(1)
    assert 36 < different.sum() < 56
    assert (changed.labels[different] == -100).all()
    assert torch.equal(changed.labels[changed.labels != -100], plain.labels[changed.labels != -100])
    counts = task()[0].counts(changed)
    assert counts["labelled"] == (changed.labels != -100).sum() < counts["rows"] == 64


def test_special_tokens_and_padding_stay() -> None:
    batch = ids(prepared(), list(range(64)))
    tokens, mask = batch.student["input_ids"], batch.student["attention_mask"].bool()
    assert (tokens[:, 0] == 2).all()
    assert (tokens[~mask] == 0).all()
    assert ((tokens == 3).sum(1) == 1).all()
    assert (tokens[mask] > 1).all()


def test_teacher_and_student_see_the_same() -> None:
    batch = ids(prepared(), [0, 1, 2])
    assert batch.teacher is batch.student


def test_it_depends_on_seed_epoch_and_example_alone() -> None:
    made = prepared()
    together = ids(made, list(range(8)))
    torch.manual_seed(99)
    np.random.seed(99)
    for index in range(8):
        alone = ids(made, [index]).student["input_ids"][0]
        assert torch.equal(alone, together.student["input_ids"][index, : len(alone)])
    made.on_epoch(1)
    assert not torch.equal(ids(made, list(range(8))).student["input_ids"], together.student["input_ids"])
    made.on_epoch(0)
    assert torch.equal(ids(made, list(range(8))).student["input_ids"], together.student["input_ids"])
    other = ids(prepared(seed=4), list(range(8)))
    assert not torch.equal(other.student["input_ids"], together.student["input_ids"])


@pytest.mark.parametrize("options", [{"teacher": False}, {"training": False}, {"augment": "none"}])
def test_without_a_teacher_or_training_nothing_is_changed(options: dict) -> None:
    plain = ids(prepared("none"), list(range(64)))
    batch = ids(prepared(**options), list(range(64)))
    assert torch.equal(plain.student["input_ids"], batch.student["input_ids"])
    assert torch.equal(plain.labels, batch.labels)


def test_several_labels_and_numbers_lose_theirs_too(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    texts = [" ".join(tiny.FILLER[: 3 + index % 7]) for index in range(64)]
    for labels in ([[["x"], ["x", "y"]][index % 2] for index in range(64)], [index / 64 for index in range(64)]):
        split = Dataset.from_dict({"text": texts, "label": labels})
        made = TextClassification.understand(TextClassificationData(train="memory", augment="light"), {"train": split})
        made = replace(made, embedding=embedding())
        batch = ids(made.prepare(split, tokenizer, tokenizer, training=True), list(range(64)))
        unlabelled = batch.labels.isnan() if batch.labels.is_floating_point() else (batch.labels == -100).all(-1)
        assert 36 < unlabelled.sum() < 56
        width = batch.labels.shape[1] if batch.labels.dim() == 2 else 1
        assert made.counts(batch)["labelled"] == (64 - int(unlabelled.sum())) * width
        logits = torch.zeros(64, width)
        said = made.signals({"logits": logits}, batch, "student").labels
        missing = said.isnan() if said.is_floating_point() else said == -100
        assert int(missing.sum()) == int(unlabelled.sum()) * width


def test_different_tokenizers_are_refused() -> None:
    made, split = task()
    other = tiny.tokenizer()
    other.padding_side = "left"
    with pytest.raises(CompatibilityError, match="different tokenizers"):
        made.prepare(split, tiny.tokenizer(), other, training=True)


def test_a_teacher_without_an_embedding_is_refused() -> None:
    made, split = task()
    with pytest.raises(CompatibilityError, match="no embedding"):
        made.prepare(split, tiny.tokenizer(), tiny.tokenizer(), training=True)


def test_words_give_way_to_the_nearest_that_the_data_use() -> None:
    points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [-1.0, 0.0]])
    assert nearest(points, 1).ravel().tolist() == [1, 0, 3, 2, 2]
    assert nearest(points).shape == (5, 4)
    assert (nearest(points) != np.arange(5)[:, None]).all()
    assert nearest(points[:1]).shape == (1, 0)
    plain, changed = (ids(prepared(augment), list(range(64))).student["input_ids"] for augment in ("none", "light"))
    # what is drawn is another word: of some 270 in changed texts, four in ten
    assert 70 < (changed != plain).sum() < 170
    assert set(changed.unique().tolist()) <= set(plain.unique().tolist())


@pytest.mark.parametrize(("student", "teacher", "labels", "expected"), [
    ({"layers": 1}, "./bert", ["a", "b"], "light"),
    ({"size": 0.3}, "./bert", ["a", "b"], "light"),
    ({"config": {"num_layers": 1}}, "./bert", ["a", "b"], "light"),
    ({"config": {"num_layers": 1}, "processor": "./words"}, "./bert", ["a", "b"], "none"),
    ({"model": "./small"}, "./bert", ["a", "b"], "none"),
    ({"layers": 1}, "package.module:make", ["a", "b"], "none"),
    ({"layers": 1}, "./bert", [0.25, 0.5], "light"),
    ({"config": {"num_layers": 1}}, "./bert", [0.25, 0.5], "none"),
])
def test_auto_is_light_where_it_was_measured(student: dict, teacher: str, labels: list, expected: str) -> None:
    split = Dataset.from_dict({"text": ["one two", "three four"] * 8, "label": labels * 8})
    section = TextClassificationData(train="memory")
    made = TextClassification.understand(section, {"train": split})
    settled = made.settled(ModelSource(model=teacher), StudentSpec(**student))
    assert section.augment == "auto"
    assert settled.resolved(section).augment == expected
    assert settled.resolved(section).clean_passes == (3 if expected == "light" else None)


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["auto", "light"])
def test_auto_is_none_of_a_teacher_without_a_table_of_words_and_light_is_refused(asked: str) -> None:
    split = Dataset.from_dict({"text": ["one two", "three four"] * 8, "label": ["a", "b"] * 8})
    section = TextClassificationData(train="memory", augment=asked)  # type: ignore[arg-type]
    made = TextClassification.understand(section, {"train": split})
    made = made.settled(ModelSource(model="./canine"), StudentSpec(layers=1))
    hashing = CanineForSequenceClassification(CanineConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=64,
        num_hash_buckets=8, num_hash_functions=2, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}))
    adapted = made.adapted_to(Loaded(hashing, CanineTokenizer(), "./canine"))
    if asked == "auto":
        assert adapted.resolved(section).augment == "none"
        assert adapted.resolved(section).clean_passes is None
        prepared = adapted.prepare(split, CanineTokenizer(), CanineTokenizer(), training=True)
        assert not prepared.changes
    else:
        with pytest.raises(CompatibilityError, match="has no embedding of tokens"):
            adapted.prepare(split, CanineTokenizer(), CanineTokenizer(), training=True)


def test_clean_passes_come_first_and_the_others_are_as_ever() -> None:
    plain, late, light = prepared("none"), prepared(clean_passes=3), prepared()
    everything = list(range(64))
    for epoch in range(6):
        for one in (late, light):
            assert one.on_epoch is not None
            one.on_epoch(epoch)
        said, expected = ids(late, everything), ids(plain if epoch < 3 else light, everything)
        assert torch.equal(said.student["input_ids"], expected.student["input_ids"])
        assert torch.equal(said.labels, expected.labels)


def test_pairs_of_texts_are_left_as_they_are() -> None:
    split = Dataset.from_dict({"one": ["a b", "c d"] * 8, "two": ["a c", "b d"] * 8, "label": ["x", "y"] * 8})
    section = TextClassificationData(train="memory", text=("one", "two"))
    made = TextClassification.understand(section, {"train": split})
    assert made.settled(ModelSource(model="./bert"), StudentSpec(layers=1)).resolved(section).augment == "none"


def test_views_are_as_many_forms_of_each_text_whatever_the_seed_and_clean_passes_come_before() -> None:
    made, other = prepared(views=2, clean_passes=1), prepared(views=2, clean_passes=1, seed=9)
    assert made.views == 3
    seen = []
    for epoch in range(6):
        for one in (made, other):
            assert one.on_epoch is not None
            one.on_epoch(epoch)
        seen.append(ids(made, list(range(64))).student["input_ids"])
        assert torch.equal(ids(other, list(range(64))).student["input_ids"], seen[-1])
    assert torch.equal(seen[0], ids(prepared("none"), list(range(64))).student["input_ids"])
    first, second = seen[1], seen[2]
    assert not torch.equal(first, second)
    assert all(torch.equal(one, expected) for one, expected in zip(seen[3:], (first, second, first), strict=True))


def test_views_of_texts_that_auto_leaves_alone_are_refused() -> None:
    split = Dataset.from_dict({"text": ["one two", "three four"] * 8, "label": [0.25, 0.5] * 8})
    made = TextClassification.understand(TextClassificationData(train="memory", views=2), {"train": split})
    with pytest.raises(RecipeError, match=r"data\.views: .*`augment: auto` is none for these models and data"):
        made.settled(ModelSource(model="./bert"), StudentSpec(config={"num_layers": 1}))
