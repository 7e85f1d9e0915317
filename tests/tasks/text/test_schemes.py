"""Tags and entities, in every scheme and from one to the other."""

from __future__ import annotations

import random

import pytest

from stilla.tasks.text import schemes
from stilla.tasks.text.schemes import Entity, Scheme


def kinds(*tags: str) -> list[schemes.Kinded]:
    return [schemes.kinded(tag) for tag in tags]


def random_entities(draw: random.Random, words: int) -> list[Entity]:
    found, at = [], 0
    while at < words:
        length = draw.randint(1, 3)
        if draw.random() < 0.5 and at + length <= words:
            found.append((at, at + length, draw.choice(("PER", "LOC"))))
        at += length
    return found


@pytest.mark.parametrize("scheme", ["iob2", "bioes"])
def test_entities_written_as_tags_are_read_again(scheme: Scheme) -> None:
    draw = random.Random(0)
    for _ in range(200):
        found = random_entities(draw, 12)
        assert schemes.entities(schemes.tags(found, 12, scheme), scheme) == (found, [])


def test_a_scheme_without_beginnings_makes_one_of_entities_that_touch() -> None:
    touching = [(0, 1, "PER"), (1, 3, "PER"), (3, 4, "LOC")]
    assert schemes.touch(touching)
    assert not schemes.touch([touching[0], touching[2]])
    assert schemes.entities(schemes.tags(touching, 5, "io"), "io") == ([(0, 3, "PER"), (3, 4, "LOC")], [])


@pytest.mark.parametrize(("tags", "scheme", "entities", "wrong"), [
    ("I-PER I-PER O I-LOC B-LOC", "iob1", [(0, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC")], []),
    ("I-PER I-LOC", "iob1", [(0, 1, "PER"), (1, 2, "LOC")], []),
    ("B-PER O", "iob1", [(0, 1, "PER")], [0]),
    ("B-PER I-PER B-PER O", "iob2", [(0, 2, "PER"), (2, 3, "PER")], []),
    ("O I-PER I-PER", "iob2", [], [1, 2]),
    ("B-PER I-LOC O", "iob2", [(0, 1, "PER")], [1]),
    ("B-PER E-PER S-LOC B-LOC I-LOC E-LOC", "bioes", [(0, 2, "PER"), (2, 3, "LOC"), (3, 6, "LOC")], []),
    ("B-PER O", "bioes", [], [0]),
    ("B-PER I-LOC E-PER", "bioes", [], [0, 1, 2]),
    ("B-PER L-PER U-LOC", "bioes", [(0, 2, "PER"), (2, 3, "LOC")], []),
    ("PER PER O LOC", "io", [(0, 2, "PER"), (3, 4, "LOC")], []),
])
def test_tags_are_read_strictly(tags: str, scheme: Scheme, entities: list[Entity], wrong: list[int]) -> None:
    assert schemes.entities(kinds(*tags.split()), scheme) == (entities, wrong)


@pytest.mark.parametrize(("tags", "scheme"), [
    (["B-PER I-PER O", "O O"], "iob2"), (["I-PER I-PER O", "I-LOC B-LOC"], "iob1"), (["S-PER O", "B-PER E-PER"], "bioes"),
    (["O O"], "iob2"), (["B-PER O I-LOC"], None), (["S-PER I-PER"], None),
])
def test_the_scheme_is_the_one_that_all_sequences_keep_to(tags: list[str], scheme: Scheme | None) -> None:
    found, broken = schemes.fitting([kinds(*one.split()) for one in tags])
    assert found == scheme
    assert scheme or all(broken.values())


@pytest.mark.parametrize(("names", "scheme"), [
    (("O", "B-PER", "I-PER"), "iob2"), (("B-PER", "I-PER", "B-LOC", "O"), "iob2"), (("O", "I-PER", "I-LOC", "B-LOC"), "iob1"),
    (("O", "I-PER", "I-LOC"), "io"), (("O", "S-PER", "B-PER", "I-PER", "E-PER"), "bioes"), (("O", "U-PER"), "bioes"),
    (("NOUN", "VERB"), None), (("B-PER", "I-PER"), None), (("O", "PER"), None),
])
def test_the_scheme_of_a_model_is_that_of_its_labels(names: tuple[str, ...], scheme: Scheme | None) -> None:
    assert schemes.of_names(names) == scheme
