"""An exam whose answers have no one shape: guesses about the things of an example, of which each has its own number.

Nothing in `evaluate/` or `report/` knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.signals import Batch
from stilla.tasks.answers import Answers, Decisions, Metric
from stilla.tasks.base import Prepared
from stilla.tasks.exam import ClassValues, ForwardExam, any_of
from stilla.views import Mark, Text

NAMES = ("cat", "dog", "eel")
NOTHING = "nothing"

Guess = tuple[int, str, float]
"""(thing, name, score)."""


Hits = tuple[list[tuple[float, bool]], int]


def _found(given: Sequence[Sequence[Guess]], references: Sequence[Sequence[str]]) -> list[Hits]:
    """Of every example: (score, whether it is right) of each guess, and how many things there are."""
    return [([(score, truth[thing] == name) for thing, name, score in guesses], len(truth))
            for guesses, truth in zip(given, references)]


def average_precision(found: Any, counts: NDArray[np.int64]) -> float:
    """Mean over all things of the precision down to each right guess, the surest guesses first; 0 for things not found."""
    guesses = [(score, hit, count) for (guessed, _), count in zip(found, counts.tolist()) for score, hit in guessed]
    guesses.sort(key=lambda one: -one[0])
    seen = right = total = 0.0
    for _, hit, count in guesses:
        for _ in range(count):
            seen, right = seen + 1, right + hit
            total += hit * right / seen
    things = sum(number * count for (_, number), count in zip(found, counts.tolist()))
    return total / things if things else float("nan")


def _recalled(given: Sequence[Sequence[Guess]], references: Sequence[Sequence[str]]) -> NDArray[Any]:
    """(examples, 2): things that are named rightly, of how many."""
    return np.array([[sum(truth[thing] == name for thing, name, _ in guesses), len(truth)]
                     for guesses, truth in zip(given, references)], np.float64)


AVERAGE_PRECISION = Metric("average_precision", _found, from_list=average_precision)
RECALL = Metric("recall", _recalled, lambda sums: float(sums[0] / sums[1]))


@dataclass(frozen=True)
class BoxExam(ForwardExam):
    """An answer is a list of guesses; every thing of an example is a unit."""

    units: ClassVar[str] = "boxes"
    class_metric: ClassVar[str] = "average_precision"

    def metrics(self) -> tuple[Metric, ...]:
        return AVERAGE_PRECISION, RECALL

    def outputs(self, outputs: Any) -> Tensor:
        return outputs["logits"]

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> list[list[Guess]]:
        probabilities = said.softmax(-1)
        found = []
        for one, there in zip(probabilities, batch.student["there"]):
            best = one.max(-1)
            found.append([(thing, NAMES[int(best.indices[thing])], float(best.values[thing]))
                          for thing in range(int(there.sum())) if best.indices[thing] < len(NAMES)])
        return found

    def decisions(self, answers: Answers) -> Decisions:
        """The name of each thing's guess, if there is one."""
        decided, sure, truth, where = [], [], [], []
        for example, (guesses, names) in enumerate(zip(answers.given, answers.references)):
            said = {thing: (name, score) for thing, name, score in guesses}
            for thing, name in enumerate(names):
                decided.append(said.get(thing, (NOTHING, 0.5))[0])
                sure.append(said.get(thing, (NOTHING, 0.5))[1])
                truth.append(name)
                where.append((example, thing))
        example, place = np.array(where, np.int64).reshape(-1, 2).T
        return Decisions(np.array(decided), np.array(truth), example, place, np.array(sure))

    def by_class(self, answers: Answers) -> ClassValues:
        values = []
        for name in NAMES:
            only = [[one for one in guesses if one[1] == name] for guesses in answers.given]
            hits = [hits for hits, _ in _found(only, answers.references)]
            found = list(zip(hits, [truth.count(name) for truth in answers.references]))
            values.append(average_precision(found, np.ones(len(found), np.int64)))
        support = [sum(truth.count(name) for truth in answers.references) for name in NAMES]
        return ClassValues(NAMES, np.array(support), np.array(values))

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Text:
        things = split[int(any_of(answers).keys[example])]["text"]
        start = sum(len(word) + 1 for word in things.split()[:place])
        return Text(things, (Mark(start, start + len(things.split()[place]), "here"),))


class Finder(nn.Module):
    """Different in every thing of every example, and in every seed."""

    def __init__(self, seed: float) -> None:
        super().__init__()
        self.seed = nn.Parameter(torch.tensor(seed))

    def forward(self, values: Tensor, there: Tensor) -> dict[str, Tensor]:
        things = torch.arange(1, values.shape[1] + 1)
        turns = (values + 1)[..., None] * things[:, None] * torch.arange(1, len(NAMES) + 2)
        return {"logits": 3 * torch.sin(self.seed + turns)}


class Things(torch.utils.data.Dataset[tuple[int, int]]):
    """(key, how many things the example has)."""

    def __init__(self, keys: NDArray[np.int64], numbers: Sequence[int]) -> None:
        self.keys, self.numbers = keys, numbers

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return int(self.keys[index]), self.numbers[index]


def _collate(examples: Sequence[tuple[int, int]]) -> Batch:
    most = max(number for _, number in examples)
    keys = torch.tensor([key for key, _ in examples])
    there = torch.tensor([[thing < number for thing in range(most)] for _, number in examples]).reshape(len(examples), most)
    inputs = {"values": keys[:, None].expand(-1, most).float(), "there": there}
    return Batch(student=inputs, teacher=inputs, keys=keys)


def truth_of(key: int, number: int) -> list[str]:
    """What is there, by example and thing."""
    return [NAMES[(key + 2 * thing) % len(NAMES)] for thing in range(number)]


def prepared(numbers: Sequence[int]) -> Prepared:
    keys = np.arange(len(numbers))
    references = [truth_of(key, number) for key, number in enumerate(numbers)]
    return Prepared(Things(keys, numbers), _collate, keys, numbers, references=references)


def split(numbers: Sequence[int]) -> Dataset:
    return Dataset.from_dict({"text": [" ".join(f"<thing{thing}>" for thing in range(number)) for number in numbers]})
