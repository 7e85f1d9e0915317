"""What taggers are asked, and how it is judged: every word is decided, entities are measured.

An answer is (words, tags) logits, a row of zeros where the model has no token of the word: it says nothing of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from stilla.signals import Batch, Side
from stilla.tasks.answers import NO_ANSWER, Answers, Decisions, Given, Metric
from stilla.tasks.exam import ClassValues, ForwardExam, any_of, array
from stilla.tasks.shared.class_exam import f1_by_class, kl_divergence, prior_logits
from stilla.tasks.shared.metrics import by_sums, ratio
from stilla.tasks.text import schemes
from stilla.tasks.text.schemes import Entity, Scheme
from stilla.tasks.text.windows import NO_WORD
from stilla.tasks.text.words import Words
from stilla.views import Mark, Text

_AROUND = 60
"""Words before and behind the one that is shown, of long texts."""


def answered_words(batch: Batch, side: Side) -> Tensor:
    """(batch, words) the position that answers for each word, UNSEEN where none does, NO_WORD behind the last.

    In batches that a person makes, the positions with a label are the words.
    """
    if "words" in batch:
        places: Tensor = batch["words"][side.value]
        return places
    labels: Any = batch.labels
    there = labels != NO_ANSWER
    order = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    behind = torch.where(there, order, labels.shape[1]).sort(dim=1).values
    return torch.where(behind < labels.shape[1], behind, NO_WORD)


@dataclass(frozen=True)
class TagExam(ForwardExam):
    """`names`: the tags in the models' order. `scheme`: how they say entities; None where each is its word's own. `shown`:
    the words of an example of a split."""

    names: tuple[str, ...]
    scheme: Scheme | None
    shown: Callable[[Dataset, int], Words]

    units: ClassVar[str] = "words"

    def outputs(self, outputs: Any) -> Tensor:
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        return logits

    def ask(self, forward: Any, batch: Batch, side: Side) -> list[Tensor]:
        """(words, tags) of every example."""
        inputs = batch[side.value]
        logits = self.outputs(forward(**inputs)) if isinstance(forward, nn.Module) else forward(inputs)
        places = answered_words(batch, side).to(logits.device)
        said = []
        for row, own in zip(logits, places):
            own = own[own != NO_WORD]
            said.append(torch.where((own >= 0)[:, None], row[own.clamp_min(0)], 0))
        return said

    def given(self, said: list[Tensor], batch: Batch, teacher: Any | None) -> list[NDArray[Any]]:
        return [array(one) for one in said]

    def joined(self, parts: Sequence[Given], *, references: bool = False) -> list[Any]:
        return list(chain.from_iterable(parts))

    def finished(self, answers: Answers) -> Answers:
        """One answer to every example, of all its windows in their order."""
        truth = [np.asarray(one)[np.asarray(one) != NO_ANSWER] for one in answers.references]
        order = np.argsort(answers.keys, kind="stable")
        keys, first = np.unique(answers.keys[order], return_index=True)
        parts = np.split(order, first[1:])
        return Answers(keys, [np.concatenate([answers.given[one] for one in part]) for part in parts],
                       [np.concatenate([truth[one] for one in part]) for part in parts])

    def metrics(self) -> tuple[Metric, ...]:
        return tag_metrics(self.names) if self.scheme is None else entity_metrics(self.names, self.scheme)

    def decisions(self, answers: Answers) -> Decisions:
        sizes = [len(truth) for truth in answers.references]
        logs = self._logs(answers)
        decided = np.concatenate([decided_by(one, self.names, self.scheme) for one in answers.given])
        return Decisions(decided, np.concatenate(list(answers.references)), np.repeat(np.arange(len(sizes)), sizes),
                         np.concatenate([np.arange(size) for size in sizes]), np.exp(logs.max(-1)))

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64]:
        """Of every word."""
        return kl_divergence(self._logs(teacher), self._logs(answers))

    def by_class(self, answers: Answers) -> ClassValues:
        """Of types of entities, or of tags."""
        if self.scheme is None:
            decisions = self.decisions(answers)
            # what is not said at all is none of the tags
            decided = np.where(decisions.decided == NO_ANSWER, len(self.names), decisions.decided)
            chosen = np.eye(len(self.names) + 1, len(self.names), dtype=bool)[decided]
            there = np.eye(len(self.names), dtype=bool)[decisions.references]
            return f1_by_class(self.names, chosen, there)
        types = types_of(self.names)
        sums = _entity_counts(list(answers.given), list(answers.references), names=self.names, scheme=self.scheme).sum(0)
        hits, said, there = sums.reshape(len(types), 3).T
        return ClassValues(types, there.astype(np.int64), ratio(2 * hits, said + there))

    def constant(self, answers: Answers) -> list[NDArray[np.float64]]:
        """Every word as the most frequent tag."""
        often = prior_logits(np.concatenate(list(answers.references)), len(self.names))
        return [np.tile(often, (len(truth), 1)) for truth in answers.references]

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> None:
        """Another example has another number of words."""

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Text:
        """The text around the word, with the entities that are there and those that every model says; of tags that are no
        entities, the word with what each says of it."""
        one = any_of(answers)
        words = self.shown(split, int(one.keys[example]))
        first, end = max(0, place - _AROUND), min(len(words), place + _AROUND + 1)
        there = words.part(first, end)
        # what stands before the first word belongs to the text too
        said: dict[str, NDArray[np.int64]] = {"": np.asarray(one.references[example])}
        said |= {name: decided_by(of.given[example], self.names, self.scheme) for name, of in answers.items()}
        marks = [Mark(there.starts[place - first], there.ends[place - first], "?")]
        for by, tags in said.items():
            marks += [Mark(there.starts[max(start, first) - first], there.ends[min(stop, end) - first - 1], name, by)
                      for start, stop, name in self._marked(tags, place) if start < end and stop > first]
        return Text(there.text, tuple(marks))

    def _marked(self, tags: NDArray[np.int64], place: int) -> list[Entity]:
        if self.scheme is None:
            return [(place, place + 1, self.named(tags[place]))]
        return said_entities(tags, self.names, self.scheme)

    def named(self, decision: Any) -> str:
        return "(nothing)" if decision == NO_ANSWER else self.names[int(decision)]

    def _logs(self, answers: Answers) -> NDArray[np.float64]:
        """(words, tags) of all examples."""
        return np.asarray(log_softmax(np.concatenate(list(answers.given)).astype(np.float64), axis=-1))


def types_of(names: Sequence[str]) -> tuple[str, ...]:
    """Of entities, in the order in which they first occur."""
    return tuple(dict.fromkeys(schemes.kinded(name)[1] for name in names if name != "O"))


def decided_by(logits: NDArray[Any], names: Sequence[str], scheme: Scheme | None) -> NDArray[np.int64]:
    """(words,) the likeliest tag. Of a word of which nothing is said, NO_ANSWER; where tags say entities, O."""
    decided = logits.argmax(-1)
    return np.where(logits.any(-1), decided, NO_ANSWER if scheme is None else names.index("O")).astype(np.int64)


def said_entities(tags: NDArray[np.int64], names: Sequence[str], scheme: Scheme) -> list[Entity]:
    kinds = [schemes.kinded(name) for name in names]
    return schemes.entities([kinds[tag] for tag in tags.tolist()], scheme)[0]


# --- metrics: answers (words, tags) per example, references (words,) ---


def entity_metrics(names: tuple[str, ...], scheme: Scheme) -> tuple[Metric, ...]:
    """An entity is right if its first and last word and its type are: seqeval's strict mode, all entities counted alike."""
    counts = partial(_entity_counts, names=names, scheme=scheme)
    types = len(types_of(names))

    def of_all(sums: NDArray[Any]) -> NDArray[Any]:
        totals: NDArray[Any] = sums.reshape(types, 3).sum(0)
        return totals

    def f1(sums: NDArray[Any]) -> float:
        hits, said, there = of_all(sums)
        return float(ratio(2 * hits, said + there))

    def macro(sums: NDArray[Any]) -> float:
        hits, said, there = sums.reshape(types, 3).T
        seen = said + there > 0
        return float(ratio(2 * hits, said + there)[seen].mean()) if seen.any() else 0.0

    return (
        by_sums("entity_f1", counts, f1),
        by_sums("entity_precision", counts, lambda sums: float(ratio(of_all(sums)[0], of_all(sums)[1]))),
        by_sums("entity_recall", counts, lambda sums: float(ratio(of_all(sums)[0], of_all(sums)[2]))),
        by_sums("entity_macro_f1", counts, macro),
        by_sums("word_accuracy", partial(_hits, names=names, scheme=scheme), _share),
    )


def tag_metrics(names: tuple[str, ...]) -> tuple[Metric, ...]:
    def macro(sums: NDArray[Any]) -> float:
        hits, said, there = sums.reshape(3, len(names))
        seen = said + there > 0
        return float(ratio(2 * hits, said + there)[seen].mean()) if seen.any() else 0.0

    return (by_sums("word_accuracy", partial(_hits, names=names, scheme=None), _share),
            by_sums("macro_f1", partial(_tag_counts, names=names), macro))


def _share(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def _hits(given: Sequence[NDArray[Any]], references: Sequence[NDArray[Any]], *, names: tuple[str, ...],
          scheme: Scheme | None) -> NDArray[np.float64]:
    """(examples, 2): words with the right tag, of how many."""
    return np.array([((decided_by(one, names, scheme) == truth).sum(), len(truth)) for one, truth in zip(given, references)],
                    np.float64).reshape(-1, 2)


def _tag_counts(given: Sequence[NDArray[Any]], references: Sequence[NDArray[Any]], *, names: tuple[str, ...]) -> NDArray[Any]:
    """(examples, 3 * tags): hits, decisions and occurrences of each tag."""
    counts = np.zeros((len(given), 3, len(names)))
    for row, (one, truth) in enumerate(zip(given, references)):
        decided = decided_by(one, names, None)
        counts[row, 0] = np.bincount(truth[decided == truth], minlength=len(names))
        counts[row, 1] = np.bincount(decided[decided != NO_ANSWER], minlength=len(names))
        counts[row, 2] = np.bincount(truth, minlength=len(names))
    return counts.reshape(len(given), -1)


def _entity_counts(given: Sequence[NDArray[Any]], references: Sequence[NDArray[Any]], *, names: tuple[str, ...],
                   scheme: Scheme) -> NDArray[np.float64]:
    """(examples, 3 * types): entities that are right, that are said, that are there, of each type."""
    index = {name: place for place, name in enumerate(types_of(names))}
    counts = np.zeros((len(given), len(index), 3))
    for row, (one, truth) in enumerate(zip(given, references)):
        said = set(said_entities(decided_by(one, names, scheme), names, scheme))
        there = set(said_entities(truth, names, scheme))
        for column, some in enumerate((said & there, said, there)):
            for *_, name in some:
                counts[row, index[name], column] += 1
    return counts.reshape(len(given), -1)
