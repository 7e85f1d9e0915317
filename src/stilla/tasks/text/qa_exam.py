"""What models that answer from a passage are asked, and how it is judged: exact match and F1 of the words of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.signals import Batch, Side
from stilla.tasks.answers import Answers, Decisions, Metric
from stilla.tasks.exam import ForwardExam, any_of, array
from stilla.tasks.shared.metrics import by_sums
from stilla.tasks.text import answer_texts, answering
from stilla.tasks.text.across import carried
from stilla.tasks.text.answer_texts import Language
from stilla.tasks.text.asked import Question
from stilla.tasks.text.passages import by_place
from stilla.views import Mark, Text

_AROUND = 400
"""Characters before and behind what is marked, of long passages."""


class Said(NamedTuple):
    """What one model says of a batch, at its own places. A tuple, which wrappers of models pass on."""

    logits: Float[Tensor, "batch 2 classes"]
    side: Side


def _at(side: Side, teacher: Said, batch: Batch) -> NDArray[np.float64]:
    """(batch, 2, classes): what the teacher says, at the places of this side."""
    logits = teacher.logits
    if "across" in batch and side is not teacher.side:
        across = {name: value.to(logits.device) for name, value in batch["across"].items()}
        logits = carried(logits, across["to"], across["cells"])
    return array(logits).astype(np.float64)


@dataclass(frozen=True)
class AnswerExam(ForwardExam):
    """Answers are as `answering` has them, references are the questions. `maybe_none`: whether the data have questions that
    their passages do not answer."""

    longest: int
    maybe_none: bool
    language: Language

    units: ClassVar[str] = "questions"
    beside: ClassVar[bool] = True

    def outputs(self, outputs: Any) -> Float[Tensor, "batch positions 2"]:
        """Start and end logits side by side."""
        if isinstance(outputs, Tensor):
            return outputs
        if "start_logits" not in outputs:  # a module of a person's own
            logits: Tensor = outputs["logits"]
            return logits
        return torch.stack([outputs["start_logits"], outputs["end_logits"]], -1)

    def ask(self, forward: Any, batch: Batch, side: Side) -> Said:
        inputs = batch[side.value]
        logits = self.outputs(forward(**inputs)) if isinstance(forward, nn.Module) else forward(inputs)
        return Said(by_place(logits, batch["places"][side.value].to(logits.device)), side)

    def given(self, said: Said, batch: Batch, teacher: Said | None) -> NDArray[np.float64]:
        """(windows, 1 + BEST, 3)."""
        logits, characters = array(said.logits).astype(np.float64), array(batch["characters"][said.side.value])
        apart = np.zeros(len(logits)) if teacher is None else answering.divergences(_at(said.side, teacher, batch), logits)
        return np.stack([answering.of_window(one, where, self.longest, far)
                         for one, where, far in zip(logits, characters, apart)])

    def finished(self, answers: Answers) -> Answers:
        """One answer to every question, of all its windows."""
        order = np.argsort(answers.keys, kind="stable")
        keys, first = np.unique(answers.keys[order], return_index=True)
        parts = np.split(order, first[1:])
        given = np.asarray(answers.given)
        return Answers(keys, np.stack([answering.of_windows(given[part]) for part in parts]),
                       [answers.references[part[0]] for part in parts])

    def settled(self, answers: Answers, validation: Answers) -> Answers:
        """With the threshold for no answer taken off, so that 0 is where it begins."""
        if not self.maybe_none:
            return answers
        given = np.array(answers.given)
        given[:, 0, 0] -= self.threshold(validation)
        return answers.but(given)

    def threshold(self, validation: Answers) -> float:
        """By how much no answer has to score higher than the best piece, so that F1 on these answers is highest."""
        with_piece = _worth(validation.given, validation.references, language=self.language, maybe_none=False)[:, 1]
        with_none = np.array([float(not _true(one, self.language)[0]) for one in validation.references])
        return answering.threshold(answering.margins(validation.given), with_piece, with_none)

    def metrics(self) -> tuple[Metric, ...]:
        return answer_metrics(self.maybe_none, self.language)

    def decisions(self, answers: Answers) -> Decisions:
        """What is compared are answers without articles, marks and capitals; "" is none. Of several right ones, that which
        was given."""
        said = _said(answers.given, answers.references, language=self.language, maybe_none=self.maybe_none)
        true = [_true(one, self.language) for one in answers.references]
        right = [one if one in known else known[0] for one, known in zip(said, true)]
        sure = [answering.confidence(one, maybe_none=self.maybe_none) for one in answers.given]
        return Decisions.of_examples(np.array(said, object), np.array(right, object), np.array(sure))

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64]:
        """Of every question, the mean of its windows."""
        return np.asarray(answers.given)[:, 0, 1]

    def constant(self, answers: Answers) -> NDArray[np.float64] | None:
        """No answer at all, where that can be right."""
        if not self.maybe_none:
            return None
        given = np.zeros_like(np.asarray(answers.given, np.float64))
        given[:, 1:, 0] = answering.ABSENT
        return given

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Text:
        """The passage with the right answers and those that the models gave, and the question before it."""
        asked: Question = any_of(answers).references[example]
        said = {name: answering.piece(of.given[example], maybe_none=self.maybe_none) for name, of in answers.items()}
        pieces = [(start, end, "") for start, end in asked.answers]
        pieces += [(start, end, name) for name, (start, end) in said.items() if end]
        first = max(0, min((start for start, *_ in pieces), default=0) - _AROUND)
        last = max((end for _, end, _ in pieces), default=0) + _AROUND
        question = f"{asked.question}\n\n"
        before = len(question) - first
        return Text(question + asked.context[first:last],
                    tuple(Mark(start + before, end + before, "", by) for start, end, by in pieces))

    def named(self, decision: Any) -> str:
        return str(decision) or "(no answer)"


def answer_metrics(maybe_none: bool, language: Language) -> tuple[Metric, ...]:
    """F1 and exact match with the nearest right answer, as SQuAD's scripts; where some questions have none, also by whether
    they have one."""
    counts = partial(_counts, language=language, maybe_none=maybe_none)

    def share(value: int, number: int) -> Any:
        return lambda sums: float(sums[value] / sums[number]) if sums[number] else float("nan")

    both = (by_sums("f1", counts, share(0, 2)), by_sums("exact_match", counts, share(1, 2)))
    if not maybe_none:
        return both
    return (*both, by_sums("has_answer_f1", counts, share(3, 5)), by_sums("has_answer_exact_match", counts, share(4, 5)),
            by_sums("no_answer_accuracy", counts, share(6, 7)))


def _counts(given: Sequence[NDArray[Any]], references: Sequence[Question], *, language: Language,
            maybe_none: bool) -> NDArray[np.float64]:
    """(questions, 8): F1, exact match, 1; the same of those with an answer; of those without: right, 1."""
    worth = _worth(given, references, language=language, maybe_none=maybe_none)
    some = np.array([bool(one.answers) for one in references])
    exact, near = worth.T
    ones = np.ones(len(worth))
    columns = [near, exact, ones, near * some, exact * some, ones * some, exact * ~some, ones * ~some]
    return np.stack(columns, axis=1)


def _worth(given: Any, references: Any, *, language: Language, maybe_none: bool) -> NDArray[np.float64]:
    """(questions, 2) exact match and F1."""
    said = _said(given, references, language=language, maybe_none=maybe_none)
    return np.array([answer_texts.best(one, _true(asked, language)) for one, asked in zip(said, references)]).reshape(-1, 2)


def _said(given: Any, references: Any, *, language: Language, maybe_none: bool) -> list[str]:
    pieces = [answering.piece(one, maybe_none=maybe_none) for one in given]
    return [answer_texts.normalised(asked.context[start:end], language) for (start, end), asked in zip(pieces, references)]


def _true(asked: Question, language: Language) -> tuple[str, ...]:
    """What would be right, normalised; "" where nothing is. An answer of which nothing counts is left out, as in SQuAD."""
    found = tuple(dict.fromkeys(one for text in asked.texts if (one := answer_texts.normalised(text, language))))
    return found or ("",)
