"""What models of pictures and texts are asked: which class is on a picture, which text is about it, and which picture a text
is about."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER, Answers, Decisions, Metric
from stilla.tasks.exam import ClassValues, ForwardExam, any_of, array
from stilla.tasks.shared.metrics import by_sums
from stilla.tasks.vision.pictures import Pictures, data_uri
from stilla.tasks.vision_text.captions import NO_CLASS, Said
from stilla.views import Listed, Ranking, View

_DEEPEST = 10
_SHOWN = 5
_PIXELS = 96
_AT_ONCE = 2**24
"""Similarities held at a time: 64 MB."""
_DEPTHS = (1, 5, 10)

ZERO_SHOT = "zero_shot_accuracy"


@dataclass(frozen=True)
class Known:
    """What is right of an example. `key`: of a picture; None of the texts about a class, `prompts`: which one. `texts`: the
    numbers of its captions, `words`: these themselves, `pictures`: of each the keys of all pictures that it is written for.
    `label`: its class."""

    key: int | None
    texts: tuple[int, ...]
    words: tuple[str, ...] = ()
    label: int = NO_CLASS
    pictures: tuple[frozenset[int], ...] = ()
    prompts: int = NO_CLASS


class Found(TypedDict):
    """What a model says of a picture. `label`: the class whose texts are nearest, `nearest`: the first classes with their
    cosines, NaN where a vector is no number. `texts`: the numbers of the first captions, likewise. `pictures`: of each of its
    captions the keys of the first pictures."""

    label: int
    nearest: tuple[tuple[int, float], ...]
    texts: tuple[tuple[int, float], ...]
    pictures: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ImageTextExam(ForwardExam):
    """An answer is at first the vectors of an example, a picture's before its texts'; in the end what is found for a picture.

    Of several texts about a class the mean of the vectors counts. What is as near as the right one stands before it, so that
    a model whose vectors are all the same finds nothing.
    """

    said: Said | None = None
    image: str = ""

    units: ClassVar[str] = "pictures"
    class_metric: ClassVar[str] = "recall"

    def outputs(self, outputs: Any) -> Tensor:
        """(pictures and texts, width), of length 1."""
        if isinstance(outputs, Tensor):
            return outputs
        return torch.cat([one for one in (outputs.image_embeds, outputs.text_embeds) if one is not None])

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> list[NDArray[Any]]:
        vectors: NDArray[Any] = array(said)
        places, which, of = (batch[name].cpu().numpy() for name in ("pictures", "texts", "of"))
        texts = vectors[int((places >= 0).sum()) :]
        return [np.concatenate([vectors[place : place + 1] if place >= 0 else vectors[:0], texts[which[of == example]]])
                for example, place in enumerate(places)]

    def finished(self, answers: Answers) -> Answers:
        """Of pictures alone, what is found for each."""
        known: list[Known] = list(answers.references)
        shown = [row for row, one in enumerate(known) if one.key is not None]
        pictures = [known[row] for row in shown]
        vectors = np.stack([answers.given[row][0] for row in shown]).astype(np.float32)
        prompts = [answers.given[row] for row, one in enumerate(known) if one.key is None]
        if not np.isfinite(vectors).all() or not all(np.isfinite(one).all() for one in answers.given):
            nothing = [_found(NO_CLASS, one, ((NO_CLASS, float("nan")),)) for one in pictures]
            return Answers(answers.keys[shown], nothing, pictures)
        labels, nearest = _classified(vectors, prompts, [one.label for one in pictures])
        captions: dict[int, NDArray[Any]] = {}
        for row, one in zip(shown, pictures):
            captions |= dict(zip(one.texts, answers.given[row][1:]))
        texts, of_texts = _retrieved(vectors, captions, pictures)
        found = [Found(label=int(label), nearest=some, texts=first, pictures=tuple(of_texts[one] for one in of.texts))
                 for label, some, first, of in zip(labels, nearest, texts, pictures)]
        return Answers(answers.keys[shown], found, pictures)

    def metrics(self) -> tuple[Metric, ...]:
        zero_shot = by_sums(ZERO_SHOT, _classes, _mean)
        recalls = tuple(
            by_sums(f"{name}_recall_at_{depth}", functools.partial(statistics, depth), _mean)
            for name, statistics in (("image_to_text", _texts), ("text_to_image", _pictures)) for depth in _DEPTHS)
        if self.said is None:
            return (zero_shot, *recalls)
        return ((zero_shot,) if self.said.names else ()) + (recalls if self.said.captions else ())

    def concerns(self, metric: Metric, answers: Answers) -> bool:
        known: Any = answers.references
        if metric.name == ZERO_SHOT:
            return any(one.label != NO_CLASS for one in known)
        return any(one.texts for one in known)

    def decisions(self, answers: Answers) -> Decisions | None:
        """The class that is found; of pictures without classes the first caption, right whichever of its own it is."""
        known: Any = answers.references
        if any(one.label != NO_CLASS for one in known):
            labels = [one.label if one.label != NO_CLASS else NO_ANSWER for one in known]
            return Decisions.of_examples(np.array([one["label"] for one in answers.given]), np.array(labels))
        if not any(one.texts for one in known):
            return None
        words = _words(known)
        first = [words[one["texts"][0][0]] if one["texts"] else "" for one in answers.given]
        right = [said if said in one.words else next(iter(one.words), "") for said, one in zip(first, known)]
        return Decisions.of_examples(np.array(first), np.array(right))

    def by_class(self, answers: Answers) -> ClassValues | None:
        """The share of a class's pictures that are taken for it."""
        names = () if self.said is None else self.said.names
        labels = np.array([one.label for one in answers.references])
        if not names or not (labels != NO_CLASS).any():
            return None
        right = np.array([one["label"] for one in answers.given]) == labels
        support = np.bincount(labels[labels != NO_CLASS], minlength=len(names))
        found = np.bincount(labels[right & (labels != NO_CLASS)], minlength=len(names))
        with np.errstate(invalid="ignore", divide="ignore"):
            return ClassValues(names, support, found / support)

    def constant(self, answers: Answers) -> list[Found] | None:
        """The most frequent class, and no caption."""
        labels = [one.label for one in answers.references if one.label != NO_CLASS]
        most = int(np.bincount(labels).argmax()) if labels else NO_CLASS
        return [_found(most, one) for one in answers.references]

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> list[Found]:
        order = generator.permutation(len(answers))
        given: list[Found] = [answers.given[place] for place in order]
        return [{**one, "pictures": (one["pictures"] * len(known.texts))[: len(known.texts)]}
                for one, known in zip(given, answers.references)]

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        """A picture, and what each model finds first for it."""
        one = any_of(answers)
        known: Any = one.references[example]
        picture = Pictures.of(split.select([int(one.keys[example])]), self.image).rgb(0)
        assert self.said is not None
        of_classes = known.label != NO_CLASS
        texts = _words(one.references)
        names = self.said.names
        question = names[known.label] if of_classes else " | ".join(known.words)

        def listed(found: Any) -> tuple[Listed, ...]:
            entries = found["nearest"] if of_classes else found["texts"][:_SHOWN]
            right = (known.label,) if of_classes else known.texts
            return tuple(Listed(names[number] if of_classes else texts[number], number in right, round(near, 4))
                         for number, near in entries)

        lists = {subject: listed(said.given[example]) for subject, said in answers.items()}
        return Ranking(question, lists, data_uri(picture, _PIXELS))

    def named(self, decision: Any) -> str:
        return str(decision) if isinstance(decision, str) or self.said is None else self.said.names[int(decision)]


def _found(label: int, of: Known, nearest: tuple[tuple[int, float], ...] = ()) -> Found:
    """No caption and no picture."""
    return Found(label=label, nearest=nearest, texts=(), pictures=((),) * len(of.texts))


def _classified(
    pictures: NDArray[np.float32], prompts: Sequence[NDArray[Any]], labels: Sequence[int]
) -> tuple[NDArray[np.int64], list[tuple[tuple[int, float], ...]]]:
    """Of each picture the class that is found, and the first of all with their cosines."""
    if not prompts:
        return np.full(len(pictures), NO_CLASS), [()] * len(pictures)
    means = np.stack([one.astype(np.float64).mean(0) for one in prompts])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    near = pictures @ means.T.astype(np.float32)
    first = []
    for line, label in zip(near, labels):
        first.append(tuple((int(one), float(line[one])) for one in _best(line, (label,), _SHOWN)))
    return np.array([one[0][0] for one in first], np.int64), first


def _retrieved(
    pictures: NDArray[np.float32], captions: Mapping[int, NDArray[Any]], known: Sequence[Known]
) -> tuple[list[tuple[tuple[int, float], ...]], dict[int, tuple[int, ...]]]:
    """Of each picture the first captions with their cosines, of each caption the keys of the first pictures."""
    if not captions:
        return [()] * len(pictures), {}
    numbers = list(captions)
    place = {number: index for index, number in enumerate(numbers)}
    vectors = np.stack([captions[number] for number in numbers]).astype(np.float32)
    keys = [one.key for one in known]
    row_of = {key: row for row, key in enumerate(keys)}
    rows = max(1, _AT_ONCE // max(len(vectors), len(pictures)))
    texts: list[tuple[tuple[int, float], ...]] = []
    for start in range(0, len(pictures), rows):
        for line, one in zip(pictures[start : start + rows] @ vectors.T, known[start : start + rows]):
            best = _best(line, [place[number] for number in one.texts], _DEEPEST)
            texts.append(tuple((numbers[at], float(line[at])) for at in best))
    right = {number: owners for one in known for number, owners in zip(one.texts, one.pictures)}
    found: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(vectors), rows):
        for line, number in zip(vectors[start : start + rows] @ pictures.T, numbers[start : start + rows]):
            best = _best(line, [row_of[key] for key in right[number] if key in row_of], _DEEPEST)
            found[number] = tuple(int(keys[at] or 0) for at in best)
    return texts, found


def _best(line: NDArray[np.float32], right: Sequence[int], count: int) -> NDArray[np.int64]:
    """Places of the largest; of equal ones those that are right come last."""
    last = np.zeros(len(line), np.bool_)
    last[[one for one in right if one >= 0]] = True
    some = np.arange(len(line))
    if count < len(line):
        least = np.partition(line, -count)[-count]
        some = np.flatnonzero(line >= least)
    order = np.lexsort((last[some], -line[some]))
    best: NDArray[np.int64] = some[order][:count]
    return best


def _classes(given: Any, known: Any) -> NDArray[np.float64]:
    return np.array([(one["label"] == of.label, 1.0) if of.label != NO_CLASS else (0.0, 0.0)
                     for one, of in zip(given, known, strict=True)], np.float64).reshape(-1, 2)


def _texts(depth: int, given: Any, known: Any) -> NDArray[np.float64]:
    """Whether one of a picture's captions is among the first; any of them counts once."""
    return np.array([(any(number in of.texts for number, _ in one["texts"][:depth]), float(bool(of.texts)))
                     for one, of in zip(given, known, strict=True)], np.float64).reshape(-1, 2)


def _pictures(depth: int, given: Any, known: Any) -> NDArray[np.float64]:
    """For how many of a picture's captions one of the pictures that it is written for is among the first."""
    return np.array([(sum(bool(owners & {*found[:depth]}) for found, owners in zip(one["pictures"], of.pictures)),
                      len(of.texts)) for one, of in zip(given, known, strict=True)], np.float64).reshape(-1, 2)


def _mean(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def _words(known: Any) -> Mapping[int, str]:
    """Captions by their number."""
    return {number: text for one in known for number, text in zip(one.texts, one.words)}
