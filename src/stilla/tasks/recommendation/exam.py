"""What recommenders are asked: all items put in order for every user, and where the one stands that he took next.

Over the whole catalogue, never against a few that were drawn: such numbers put models in another order (Krichene and Rendle
2020, doi:10.1145/3394486.3403226). Items of equal score are ahead of the one that was taken: who cannot tell items apart gets
nothing for it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.data.histories import ITEMS, NEXT, USER
from stilla.objectives.logits import forward_kl
from stilla.signals import Batch, Dense, Headed, Side, Signals
from stilla.tasks.answers import NO_ANSWER, Answers, Decisions, Given, Metric
from stilla.tasks.exam import ForwardExam, Simple, array
from stilla.tasks.forward import listen
from stilla.tasks.language.token_exam import Heard, of_file
from stilla.tasks.shared.metrics import by_sums
from stilla.views import Listed, Ranking

if TYPE_CHECKING:
    from stilla.tasks.recommendation.recommendation import Recommendation

RANK, CONFIDENCE, DIVERGENCE, LIST = range(4)
"""What is kept of a user: where the item stands that he took next (1: first; 0: nowhere), the log-probability of what stands
first, KL(teacher || model) in nats where the teacher was asked too (else -1), from here on the items of the list (-1: none is
left), and behind them the log-probability of each."""

POPULARITY = "popularity"

AHEAD = ("measured is the last event of every user, which may lie before what was learnt of others: what all took later is "
         "known already, and numbers are better than they will be. data.hold_out: time parts by a moment, where there "
         "are times")

_SHOWN, _HISTORY = 10, 15
"""Items of a list, and of a history, that a person is shown."""


@dataclass(frozen=True)
class Wanted:
    """What is right of a user. `item`: its number, negative where models do not know it. `seen`: what he has taken before,
    where that is not recommended again."""

    item: int
    seen: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class RecommendationExam(ForwardExam):
    """An answer is (3 + twice the longest list) numbers, see above."""

    task: Recommendation

    units: ClassVar[str] = "users"
    beside: ClassVar[bool] = True

    @property
    def at(self) -> tuple[int, ...]:
        """How long the lists are."""
        return (10,) if self.task.section is None else self.task.section.at

    def outputs(self, outputs: Any) -> Tensor:
        """(batch, positions, numbers): the raw scores, as an exported file gives them."""
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        return logits

    def metrics(self) -> tuple[Metric, ...]:
        lists = [by_sums(f"{name}_at_{k}", functools.partial(counted, k), _mean)
                 for k in self.at for name, counted in (("ndcg", _gains), ("hr", _hits))]
        covered = [Metric(f"coverage_at_{k}", functools.partial(_listed, k), from_list=self._covered) for k in self.at]
        return (*lists, by_sums("mrr", _reciprocals, _mean), *covered)

    def _covered(self, lists: NDArray[Any], counts: NDArray[np.int64]) -> float:
        """The share of all items that stand in anybody's list."""
        there = np.zeros(self.task.row_classes() + 1, bool)
        there[lists[counts > 0]] = True  # none is -1, the place behind the last
        return float(there[:-1].mean()) if len(there) > 1 else float("nan")

    def ask(self, forward: Any, batch: Batch, side: Side) -> Heard:
        if isinstance(forward, nn.Module):
            return Heard(listen(forward, self.task, batch, side), side)
        return Heard(of_file(forward, self.task, batch, side), side)

    def given(self, said: Heard, batch: Batch, teacher: Heard | None) -> NDArray[Any]:
        logits = _logits(self.task.alone(said.signals, batch))
        told = None if teacher is None else _logits(self.task.alone(teacher.signals, batch))
        assert said.signals.labels is not None
        return array(judged(logits, said.signals.labels, batch.get("seen"), max(self.at), told))

    def comparable(self, answers: Sequence[Answers]) -> bool:
        """Items of other catalogues have other numbers."""
        first, *others = ([one.item for one in said.references] for said in answers)
        return all(one == first for one in others)

    def decisions(self, answers: Answers) -> Decisions:
        """What stands first."""
        given = np.asarray(answers.given)
        right = np.array([one.item if one.item >= 0 else NO_ANSWER - 1 for one in answers.references])
        return Decisions.of_examples(given[:, LIST].astype(np.int64), right, np.exp(given[:, CONFIDENCE]))

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        found = np.asarray(answers.given)[:, DIVERGENCE].astype(np.float64)
        return None if (found == -1).any() else found

    def constant(self, answers: Answers) -> Given:
        """What is taken next most often, to everybody."""
        wanted = np.array([one.item for one in answers.references])
        counts = np.bincount(wanted[wanted >= 0], minlength=self.task.row_classes())
        return self._by_number(counts, answers)

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> None:
        """A list is about what its own user took."""

    def without_a_model(self, answers: Answers) -> Mapping[str, Simple]:
        """What was taken most often in the training data, to everybody, without what he has where that is not recommended."""
        counts = self.task.popularity()
        if not counts.any():
            return {}
        return {POPULARITY: Simple(self._by_number(counts, answers), len(counts))}

    def _by_number(self, counts: NDArray[np.int64], answers: Answers) -> NDArray[np.float64]:
        """The same order of the items for everybody, by how often each is taken: as `judged`, without a row of all items."""
        longest, order = max(self.at), np.argsort(-counts, kind="stable")
        ahead = len(counts) - np.searchsorted(np.sort(counts), counts, side="left")
        found = np.full((len(answers), LIST + 2 * longest), -1.0)
        found[:, LIST + longest :] = 0.0
        for row, one in enumerate(answers.references):
            seen = np.zeros(0, np.int64) if one.seen is None else one.seen
            wanted = one.item >= 0 and one.item not in seen
            found[row, RANK] = ahead[one.item] - (counts[seen] >= counts[one.item]).sum() if wanted else 0
            listed = order[: longest + len(seen)]
            listed = listed[~np.isin(listed, seen)][:longest]
            found[row, LIST : LIST + len(listed)] = listed
            left = max(1, counts.sum() - counts[seen].sum())
            found[row, LIST + longest :][: len(listed)] = np.log(np.maximum(counts[listed], 1e-3) / left)
            found[row, CONFIDENCE] = found[row, LIST + longest]
        return found

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Ranking:
        """What the user has taken, and what each would recommend; what he took next is marked."""
        said = next(iter(answers.values()))
        row, wanted = split[int(said.keys[example])], said.references[example]
        catalogue = self.task.catalogue
        taken = row[ITEMS] if NEXT in row else row[ITEMS][:-1]
        names = [catalogue.called(number) for number in catalogue.read(taken[-_HISTORY:]).tolist()]
        question = f"{row.get(USER) or 'a user'}: {'... → ' if len(taken) > _HISTORY else ''}{' → '.join(names)}"
        return Ranking(question, {subject: tuple(
            Listed(catalogue.called(int(item)), int(item) == wanted.item, round(float(np.exp(sure)), 4))
            for item, sure in list(zip(*np.split(np.asarray(one.given)[example, LIST:], 2)))[:_SHOWN] if item >= 0)
            for subject, one in answers.items()})

    def remarks(self, said: Mapping[str, Any], batch: Batch) -> list[str]:
        return [AHEAD] if self.task.looks_ahead else []

    def named(self, decision: Any) -> str:
        return self.task.catalogue.called(int(decision))


def judged(
    logits: Float[Tensor, "users items"], wanted: Int[Tensor, " users"], seen: Int[Tensor, "users most"] | None, longest: int,
    teacher: Float[Tensor, "users items"] | None = None,
) -> Float[Tensor, "users columns"]:
    """The columns above. wanted: negative where nobody knows it. seen: items that are left out, negative behind the last.

    NaN in all of a user's columns where one of his scores is.
    """
    users, items = logits.shape
    scores = logits.double()
    broken = scores.isnan().any(1)
    if seen is not None:
        left_out = torch.zeros(users, items + 1, dtype=torch.bool, device=scores.device)
        left_out.scatter_(1, torch.where(seen < 0, items, seen), True)
        scores = scores.masked_fill(left_out[:, :items], -torch.inf)
    mine = scores.gather(1, wanted.clamp(0, items - 1)[:, None])
    there = (wanted >= 0)[:, None] & (mine > -torch.inf)
    rank = torch.where(there, (scores >= mine).sum(1, keepdim=True), 0).double()
    best, listed = scores.topk(min(longest, items), 1)
    listed = torch.where(best > -torch.inf, listed, -1)
    short = torch.full((users, longest - listed.shape[1]), -1.0, dtype=scores.dtype, device=scores.device)
    sure = torch.where(listed < 0, 0.0, best - scores.logsumexp(1, keepdim=True))
    apart = torch.full_like(rank, -1) if teacher is None else forward_kl(
        teacher.double().log_softmax(-1), logits.double().log_softmax(-1))[:, None]
    columns = torch.cat([rank, sure[:, :1], apart, listed.double(), short, sure, torch.zeros_like(short)], 1)
    return torch.where(broken[:, None], torch.nan, columns)


def _logits(said: Signals) -> Tensor:
    form = said.logits
    dense = form.dense() if isinstance(form, Headed) else form
    assert isinstance(dense, Dense)
    return dense.logits


# --- metrics: answers (users, columns) ---


def _hits(k: int, given: NDArray[Any], _: Any) -> NDArray[np.float64]:
    ranks = np.asarray(given)[:, RANK]
    return np.stack([(ranks >= 1) & (ranks <= k), np.ones(len(ranks))], 1).astype(np.float64)


def _gains(k: int, given: NDArray[Any], _: Any) -> NDArray[np.float64]:
    """1 / log2(1 + rank): one item is right, so that the ideal list has 1."""
    ranks = np.asarray(given)[:, RANK]
    return np.stack([_hits(k, given, _)[:, 0] / np.log2(1 + np.maximum(ranks, 1)), np.ones(len(ranks))], 1)


def _reciprocals(given: NDArray[Any], _: Any) -> NDArray[np.float64]:
    """Over the whole order, however long."""
    ranks = np.asarray(given)[:, RANK]
    return np.stack([np.where(ranks >= 1, 1 / np.maximum(ranks, 1), 0), np.ones(len(ranks))], 1)


def _listed(k: int, given: NDArray[Any], _: Any) -> NDArray[np.int64]:
    return np.asarray(given)[:, LIST : LIST + k].astype(np.int64)


def _mean(sums: NDArray[Any]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")
