"""What cross-encoders are asked: a score of every candidate, and how they are judged: by a query's best."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.answers import Answers, Decisions, Metric
from stilla.tasks.exam import ForwardExam, array
from stilla.tasks.retrieval import ranking
from stilla.tasks.retrieval.candidates import Asked
from stilla.tasks.shared.metrics import by_sums
from stilla.views import View

_TOLD = "teacher_kendall"


@dataclass(frozen=True)
class Judged:
    """What one query's ranking is compared with. `grades`: by document; None where nobody has said them. `told`: the
    teacher's scores; None where no teacher is known. `titles`: texts of candidates."""

    query: str
    grades: ranking.Grades | None
    told: Mapping[str, float] | None
    titles: Mapping[str, str]


class Judgements(Sequence[Any]):
    """(pairs,) what answers are compared with, before they are rankings. `ask`: gives the teacher's scores, when needed."""

    def __init__(self, asked: Sequence[Asked], ask: Callable[[], NDArray[np.float64]] | None) -> None:
        self.asked = asked
        self._ask = ask
        self._grades = [grade for one in asked for grade in one.grades]

    def __len__(self) -> int:
        return len(self._grades)

    def __getitem__(self, place: Any) -> Any:
        return self._grades[place]

    @cached_property
    def of_queries(self) -> list[Judged]:
        told = None if self._ask is None else self._ask()
        return [Judged(one.query, one.judged, None if told is None else dict(zip(one.names, told[span].tolist())),
                       dict(zip(one.names, one.documents))) for one, span in self.spans()]

    def spans(self) -> Iterator[tuple[Asked, slice]]:
        """Queries, and where their pairs stand."""
        start = 0
        for one in self.asked:
            yield one, slice(start, start + len(one.names))
            start += len(one.names)


@dataclass(frozen=True)
class RerankingExam(ForwardExam):
    """An answer is a score of a pair; in the end a ranking of the candidates of every query.

    judged: whether any split that the task knows says what answers.
    """

    judged: bool = True

    units: ClassVar[str] = "queries"

    def outputs(self, outputs: Any) -> Tensor:
        """(pairs,): the raw logit, never its sigmoid."""
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        return logits

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> NDArray[Any]:
        scores: NDArray[Any] = array(said).reshape(len(said), -1)[:, 0]
        return scores

    def finished(self, answers: Answers) -> Answers:
        known = answers.references
        if not isinstance(known, Judgements):
            return answers
        scores = np.asarray(answers.given)
        rankings = [ranking.ordered(one.names, scores[span]) for one, span in known.spans()]
        return Answers(np.array([one.row for one in known.asked], np.int64), rankings, known.of_queries)

    def metrics(self) -> tuple[Metric, ...]:
        told = by_sums(_TOLD, _kendalls, _mean, bounded=False, limits=(-1.0, 1.0))
        if not self.judged:
            return (told,)
        of_lists = [replace(one, statistics=functools.partial(_graded, one)) for one in ranking.metrics()
                    if one.name in ("ndcg_at_10", "mrr_at_10")]
        return (*of_lists, told)

    def concerns(self, metric: Metric, answers: Answers) -> bool:
        if not ranking.are_rankings(answers.given):
            return False
        judged: list[Judged] = [*answers.references]
        if metric.name == _TOLD:
            return any(one.told is not None for one in judged)
        if any(one.grades is None for one in judged):
            return False
        # of scores between 0 and 1, nobody has said from which on a candidate is right
        return metric.name != "mrr_at_10" or not any(grade % 1 for one in judged for grade in (one.grades or {}).values())

    def decisions(self, answers: Answers) -> Decisions | None:
        if not ranking.are_rankings(answers.given):
            return None
        return ranking.first_found(answers.given, [one.grades or {} for one in answers.references])

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        """Of the softmax over a query's candidates."""
        if not ranking.are_rankings(answers.given):
            return None
        return np.array([_kl(one, other) for one, other in zip(teacher.given, answers.given, strict=True)])

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> Any:
        """A query's candidates in any order: those of another would not be there."""
        if not ranking.are_rankings(answers.given):
            return None
        return [ranking.ordered(one["documents"], generator.permutation(one["similarities"])) for one in answers.given]

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        judged: Judged = next(iter(answers.values())).references[example]
        return ranking.shown(judged.query, judged.titles, judged.grades or {},
                             {name: said.given[example] for name, said in answers.items()})


def _graded(metric: Metric, given: Any, references: Any) -> Any:
    return metric.statistics(given, [(one.grades if isinstance(one, Judged) else None) or {} for one in references])


def _kendalls(given: Any, references: Any) -> NDArray[np.float64]:
    """τ_b of a query's scores and the teacher's, and 1; zeros where one of them has no order."""
    from scipy.stats import kendalltau  # most of a second to import

    found = np.zeros((len(given), 2))
    if not ranking.are_rankings(given):
        return found
    for row, (one, judged) in enumerate(zip(given, references, strict=True)):
        if judged.told is None or len(one["documents"]) < 2:
            continue
        tau = kendalltau(one["similarities"], [judged.told[name] for name in one["documents"]]).statistic
        told = [*judged.told.values()]
        if max(told) > min(told):  # a model that tells nothing apart has followed nothing of an order that is there
            found[row] = (0.0 if np.isnan(tau) else tau), 1.0
    return found


def _kl(teacher: ranking.Ranking, student: ranking.Ranking) -> float:
    from scipy.special import log_softmax

    said = dict(zip(student["documents"], student["similarities"]))
    p = log_softmax(np.asarray(teacher["similarities"], np.float64))
    q = log_softmax(np.array([said[name] for name in teacher["documents"]], np.float64))
    return float((np.exp(p) * (p - q)).sum())


def _mean(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")
