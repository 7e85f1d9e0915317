"""What models over a vocabulary are asked, and how it is judged: every row by a few numbers, never by its logits.

Rows are measured where they are computed, in float32 and a chunk of logits at a time; only the columns below leave the
batch. An exported file gives dense logits; those go through the same measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.rows import row_measures
from stilla.signals import Batch, Dense, Headed, Side, Signals
from stilla.tasks.answers import Answers, Decisions, Given, Metric
from stilla.tasks.exam import ForwardExam, any_of, array, side_by_side
from stilla.tasks.forward import listen
from stilla.tasks.shared.metrics import by_sums
from stilla.tasks.text.sequences import NO_ROW
from stilla.views import Mark, Text

if TYPE_CHECKING:
    from stilla.tasks.language.vocabulary import Vocabulary

NLL, TOP, CONFIDENCE, DIVERGENCE = range(4)
"""What is kept of a row, (examples, positions, 3 or 4): the negative log-likelihood of its label, the likeliest token, the
log-probability of that one, and KL(teacher || model), all in nats, where the teacher was asked too."""

GONE = -1
"""The likeliest token of a teacher, where its student does not have it."""

_LOGITS = 2**26
"""Logits that an exported file may give at once: 256 MiB."""

_PROBED = 256
"""Rows whose logits are looked at for what lies on outputs that no token uses."""

_WORTH_A_WORD = 1e-3

_CONTEXT = 24
"""Labels before a token that are shown with it."""


@dataclass(frozen=True)
class Heard:
    """What a model said of a batch's rows, and as whom it was asked."""

    signals: Signals
    side: Side


@dataclass(frozen=True)
class TokenExam(ForwardExam):
    """Every token with a label is one decision; a model's answer to an example is (positions, 3 or 4), see above."""

    task: Vocabulary

    units: ClassVar[str] = "tokens"
    beside: ClassVar[bool] = True

    def outputs(self, outputs: Any) -> Tensor:
        """(batch, positions, classes): all logits, as an exported file gives them; too many to keep of a whole split."""
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        return logits

    def metrics(self) -> tuple[Metric, ...]:
        return PERPLEXITY, TOKEN_ACCURACY

    def ask(self, forward: Any, batch: Batch, side: Side) -> Heard:
        """The rows as signals; a file is asked for a few examples at a time."""
        if isinstance(forward, nn.Module):
            return Heard(listen(forward, self.task, batch, side), side)
        return Heard(of_file(forward, self.task, batch, side), side)

    def given(self, said: Heard, batch: Batch, teacher: Heard | None) -> NDArray[Any]:
        return array(measured(self.task, said.signals, batch, None if teacher is None else teacher.signals, said.side))

    def joined(self, parts: Sequence[Given], *, references: bool = False) -> NDArray[Any]:
        return side_by_side([np.asarray(part) for part in parts], NO_ROW if references else 0)

    def comparable(self, answers: Sequence[Answers]) -> bool:
        """Perplexities over two vocabularies say nothing about each other."""
        first, *others = (np.asarray(one.references) for one in answers)
        return all(one.shape == first.shape and np.array_equal(one, first) for one in others)

    def decisions(self, answers: Answers) -> Decisions:
        """The likeliest token at each position with a label."""
        outputs, labels = np.asarray(answers.given), np.asarray(answers.references)
        examples, positions = np.nonzero(labels != NO_ROW)
        there = outputs[examples, positions]
        return Decisions(there[:, TOP].astype(np.int64), labels[examples, positions], examples, positions,
                         np.exp(there[:, CONFIDENCE].astype(np.float64)))

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        """As it was measured beside the teacher, of every row."""
        outputs = np.asarray(answers.given)
        if outputs.shape[-1] <= DIVERGENCE:
            return None
        found: NDArray[np.float64] = outputs[np.asarray(answers.references) != NO_ROW][:, DIVERGENCE].astype(np.float64)
        return found

    def constant(self, answers: Answers) -> NDArray[np.float64]:
        """Every token by how often it stands among the labels: their unigram perplexity, which nothing that does not look
        at the text can surpass."""
        labels = np.asarray(answers.references)
        there = labels != NO_ROW
        counts = np.bincount(labels[there].astype(np.int64))
        log_frequency = np.log(np.maximum(counts, 1e-9) / max(1, counts.sum()))
        columns = np.zeros((*labels.shape, 3))
        columns[..., NLL] = -log_frequency[np.where(there, labels, 0).astype(np.int64)]
        columns[..., TOP], columns[..., CONFIDENCE] = counts.argmax(), log_frequency.max()
        return columns

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> None:
        """An answer is about the labels of its own example."""
        return

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Text:
        """What stands before the token, and a mark where it stands."""
        before = np.asarray(any_of(answers).references)[example, :place]
        said = self.task.decoded(before[before != NO_ROW][-_CONTEXT:].tolist())
        return Text(said, (Mark(len(said), len(said)),))

    def named(self, decision: Any) -> str:
        """The token, with what cannot be seen written out."""
        if int(decision) == GONE:
            return "(a token that the student does not have)"
        said = self.task.decoded([int(decision)])
        return said if said.strip() and "\n" not in said else repr(said)

    def remarks(self, said: Mapping[str, Heard], batch: Batch) -> list[str]:
        """Every score is over the tokens in use; a model that is deployed chooses among all of its outputs. A teacher's
        probability of tokens that its student does not have is taught to nobody."""
        unused = {name: unused_mass(one.signals, self.task, batch, one.side) for name, one in said.items()}
        remarks = [f"{name}: {mass:.1%} of its probability lies on outputs that no token uses (a padded vocabulary); "
                   "scores leave them out, whoever generates with it should too"
                   for name, mass in unused.items() if mass > _WORTH_A_WORD]
        if self.task.numbering is not None:
            gone = {name: gone_mass(one.signals, self.task, batch) for name, one in said.items() if one.side is Side.TEACHER}
            remarks += [f"{name}: {mass:.1%} of its probability lies on tokens that the student does not have; what it is "
                        "compared with is the teacher's distribution among the others" for name, mass in gone.items()]
        return remarks


def of_file(forward: Callable[[Mapping[str, Tensor]], Tensor], task: Vocabulary, batch: Batch, side: Side) -> Signals:
    """What an exported file says of a batch's rows, asked for a few examples at a time; for all at once where some have more
    pictures than others, which lie one after the other."""
    inputs = batch[side.value]
    count, positions = inputs["decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"].shape
    size = max(1, _LOGITS // max(1, positions * task.row_classes()))
    if any(len(value) != count for value in inputs.values()):
        size = count
    labels = batch.labels
    assert labels is not None
    said = []
    for start in range(0, count, size):
        part = batch.part(slice(start, start + size))
        # a file answers on the processor, wherever the models are
        said.append(task.signals(forward(part[side.value]).to(labels.device), part, side))
    return Signals(Dense(torch.cat([one.logits.logits for one in said if isinstance(one.logits, Dense)])),
                   torch.cat([one.labels for one in said if one.labels is not None]))


def measured(
    task: Vocabulary, said: Signals, batch: Batch, teacher: Signals | None = None, side: Side = Side.STUDENT
) -> Float[Tensor, "batch positions columns"]:
    """The columns of every position with a label, 0 elsewhere; with KL(teacher || model) if the teacher was asked too.

    A teacher with more tokens than its student is measured over all of its own. Where the likeliest is none of the student's,
    its number is GONE: no label is.
    """
    if side is Side.TEACHER:
        own = task.remembered(said, batch)
        assert own.logits is not None
        found = row_measures(own.logits, own.labels)
        top = found.top1 if task.numbering is None else task.numbering.classes.ours(found.top1)
    else:
        ours = task.alone(said, batch)
        assert ours.logits is not None
        found = row_measures(ours.logits, ours.labels, None if teacher is None else task.taught(teacher).logits)
        top = found.top1
    assert batch.labels is not None
    columns = [found.nll, top.float(), found.confidence, *([] if found.kl is None else [found.kl])]
    labels = batch.labels
    kept = torch.zeros(*labels.shape, len(columns), device=found.nll.device)
    kept[labels != NO_ROW] = torch.stack(columns, dim=-1)
    return kept


@torch.no_grad()
def unused_mass(said: Signals, task: Vocabulary, batch: Batch, side: Side = Side.STUDENT) -> float:
    """Mean probability, over some rows, of the outputs that no token uses (models pad their vocabularies)."""
    used = task.remembered(said, batch) if side is Side.TEACHER else task.alone(said, batch)
    return _mass_between(said, used)


@torch.no_grad()
def gone_mass(teacher: Signals, task: Vocabulary, batch: Batch) -> float:
    """Mean probability, over some rows, of a teacher's tokens that its student does not have."""
    return _mass_between(task.remembered(teacher, batch), task.taught(teacher))


def _mass_between(more: Signals, less: Signals) -> float:
    """Mean probability of the outputs that only the first has."""
    whole, part = _some(more), _some(less)
    if whole is None or part is None or whole.shape[1] == part.shape[1] or not len(whole):
        return 0.0
    inside = (part.double().logsumexp(-1) - whole.double().logsumexp(-1)).exp()
    return float((1 - inside).clamp_min(0).mean())


def _some(said: Signals) -> Tensor | None:
    form = said.logits
    if isinstance(form, Headed):
        form = form.rows(0, _PROBED).dense()
    return form.logits[:_PROBED] if isinstance(form, Dense) else None


# --- metrics: answers (examples, positions, 3 or 4), references (examples, positions) ---


def _surprise(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    there = labels != NO_ROW
    return np.stack([(outputs[..., NLL].astype(np.float64) * there).sum(1), there.sum(1)], axis=1)


def _hits(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    there = labels != NO_ROW
    return np.stack([((outputs[..., TOP] == labels) & there).sum(1), there.sum(1)], axis=1).astype(np.float64)


PERPLEXITY = by_sums("perplexity", _surprise, lambda sums: float(np.exp(sums[0] / sums[1])), higher=False, bounded=False)
"""exp of the mean negative log-likelihood of a token, over all tokens of all examples."""

TOKEN_ACCURACY = by_sums("token_accuracy", _hits, lambda sums: float(sums[0] / sums[1]))
"""Fraction of the tokens that are the likeliest to the model."""
