"""Asking models and exported files about one split: an answer per example, in the order of the split.

Live models and exported files go through the same function, batch by batch side by side, so that each can be compared with
the teacher while both have their outputs in hand, and nothing large is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from stilla.errors import DataError
from stilla.models.modes import in_eval_mode
from stilla.runtime.narrate import progress
from stilla.signals import Batch, Side
from stilla.tasks.answers import Answers, Given
from stilla.tasks.base import Prepared
from stilla.tasks.exam import ForwardExam, array
from stilla.tasks.forward import cast, dtype_of

Inputs = Mapping[str, Tensor]
"""Keyword arguments of a forward."""

Forward = nn.Module | Callable[[Inputs], Tensor]
"""A model, or a function from inputs to what `ForwardExam.outputs` would give (an exported file)."""

Precision = Literal["float32", "bfloat16"]
"""Of the computation: `float32` runs a model as it is, `bfloat16` under autocast."""

Within = Callable[[Callable[[], Any]], Any]
"""Calls a function and gives what it gives, where a model's weights are whole: within the forward of its wrapper."""

TEACHER = "teacher"
"""The subject whose answers to a batch the others are compared with."""

IN_MEMORY = 2**28
"""Bytes of one model's answers to one split; more are kept in a file without a name."""


def directly(call: Callable[[], Any]) -> Any:
    """For models that are whole in every process."""
    return call()


@dataclass(frozen=True)
class Asked:
    """Who is asked, whose inputs of a batch it gets, in what precision it computes, and where."""

    forward: Forward
    side: Side = Side.STUDENT
    precision: Precision = "float32"
    within: Within = directly


def examine(
    exam: ForwardExam,
    subjects: Mapping[str, Asked],
    prepared: Prepared,
    *,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    together: bool = False,
    title: str = "predicting",
) -> dict[str, Answers]:
    """Every subject's answer to every example of a split, once, without gradients and in eval mode.

    All are asked about a batch before the next one comes; the subject `teacher` first, so that `exam.given` has what it
    said. Examples of similar length are batched together and put back in order. Models' modes are restored, and nothing is
    drawn from the global random generators.

    Args:
        device: where inputs go; by default to the first parameter of the first model, the CPU for a function.
        together: the processes of `torch.distributed` share the work; all must call, and get all of it.
            Each makes the same number of forwards, as sharded models need.
        title: of the progress bar.

    Raises:
        DataError: no examples, or no references.
    """
    if not len(prepared.keys):
        raise DataError("no examples to evaluate on: the split is empty")
    place = torch.device(device) if device is not None else _device(next(iter(subjects.values())).forward)
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    batches = _by_length(prepared, batch_size)
    mine = _share(batches, rank, world)
    # a generator of its own: the loader would draw its seed from the global one, and resuming would differ
    loader = DataLoader(prepared.examples, batch_sampler=mine, collate_fn=prepared.collate,
                        generator=torch.Generator())
    kept = {name: _Kept(exam, len(prepared)) for name in subjects}
    references = _Kept(exam, len(prepared), references=True)
    shared: list[tuple[list[int], dict[str, Given], Given | None]] = []
    with ExitStack() as stack, progress(title, len(prepared.keys) // world, show=rank == 0) as advance:
        asks = {name: stack.enter_context(asking(exam, one)) for name, one in subjects.items()}
        for positions, batch in zip(mine, loader):
            _check_keys(batch, prepared.keys[positions])
            given = _given(exam, asks, batch.to(place))
            labels = None if batch.labels is None or prepared.references is not None else array(batch.labels)
            if together:
                shared.append((positions, given, labels))
            else:
                _keep(kept, references, positions, given, labels)
            advance(len(positions))
    for share in _gathered(shared, world) if together else ():
        for one in share:
            _keep(kept, references, *one)
    compared = references.whole() if prepared.references is None else prepared.references
    if compared is None:
        raise DataError("the examples have no labels: nothing to compare predictions with")
    return {name: exam.finished(Answers(prepared.keys, one.all(), compared)) for name, one in kept.items()}


def remarks(exam: ForwardExam, subjects: Mapping[str, Asked], prepared: Prepared, *, examples: int = 8) -> tuple[str, ...]:
    """What a reader has to know of what these models say, seen on a few examples from all over the split."""
    place = _device(next(iter(subjects.values())).forward)
    some = np.linspace(0, len(prepared) - 1, min(examples, len(prepared))).astype(int)
    batch = prepared.collate([prepared.examples[int(one)] for one in some]).to(place)
    with ExitStack() as stack:
        asks = {name: stack.enter_context(asking(exam, one)) for name, one in subjects.items()}
        return tuple(exam.remarks({name: ask(batch) for name, ask in asks.items()}, batch))


@contextmanager
def evaluating(
    forward: Forward, device: torch.device, precision: Precision, within: Within = directly,
) -> Iterator[Callable[[Inputs], Any]]:
    """The forward as a function of its inputs: eval mode, no gradients; each module's mode is restored."""
    if not isinstance(forward, nn.Module):
        yield forward
        return
    model, dtype = forward, dtype_of(forward)
    with in_eval_mode(model):

        def run(inputs: Inputs) -> Any:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                return within(lambda: model(**cast(inputs, dtype)))

        yield run


@contextmanager
def asking(exam: ForwardExam, asked: Asked) -> Iterator[Callable[[Batch], Any]]:
    """What the exam asks of one subject, as a function of a batch; eval mode, no gradients."""
    forward, side = asked.forward, asked.side
    dtype = dtype_of(forward) if isinstance(forward, nn.Module) else torch.float32

    def ask(batch: Batch) -> Any:
        inputs = batch[side.value]
        given = batch if dtype == torch.float32 else Batch({**batch, side.value: cast(inputs, dtype)})
        kind = next(iter(inputs.values())).device.type
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=asked.precision == "bfloat16"):
            return asked.within(lambda: exam.ask(forward, given, side))

    with in_eval_mode(forward) if isinstance(forward, nn.Module) else nullcontext():
        yield ask


def _given(exam: ForwardExam, asks: Mapping[str, Callable[[Batch], Any]], batch: Batch) -> dict[str, Given]:
    teacher = asks[TEACHER](batch) if TEACHER in asks and len(asks) > 1 else None
    found = {}
    for name, ask in asks.items():
        if name == TEACHER and teacher is not None:
            found[name] = exam.given(teacher, batch, None)
        else:
            found[name] = exam.given(ask(batch), batch, teacher)
    return found


class _Kept:
    """Answers to a split, put where they belong as they come: in memory, in a file where they are large, or in a list."""

    def __init__(self, exam: ForwardExam, count: int, *, references: bool = False) -> None:
        self.exam, self.count, self.references = exam, count, references
        self.rows: NDArray[Any] | None = None
        self.parts: list[tuple[list[int], Given]] = []

    def put(self, positions: Sequence[int], part: Given) -> None:
        if self.rows is None and not self.parts and isinstance(part, np.ndarray) and self._large(part):
            self.rows = _in_a_file((self.count, *part.shape[1:]), part.dtype)
        fitting = None if self.rows is None else self._fitting(self.rows, part)
        if self.rows is None or fitting is None:
            self.parts.append((list(positions), part))
        else:
            self.rows[list(positions)] = fitting

    def _fitting(self, rows: NDArray[Any], part: Given) -> NDArray[Any] | None:
        """The part as the exam joins it with a row of the file; None where they have no one shape and type even so."""
        joined = part
        if not isinstance(part, np.ndarray) or part.shape[1:] != rows.shape[1:]:
            joined = self.exam.joined([rows[:1], part], references=self.references)[1:]
        fits = isinstance(joined, np.ndarray) and joined.shape[1:] == rows.shape[1:] and joined.dtype == rows.dtype
        return np.asarray(joined) if fits else None

    def all(self) -> Given:
        whole = self.whole()
        assert whole is not None  # every batch has been answered
        return whole

    def whole(self) -> Given | None:
        """None where nothing came."""
        if not self.parts:
            return self.rows
        if self.rows is not None:  # some would not fit
            rest = sorted({*range(self.count)}.difference(*(positions for positions, _ in self.parts)))
            self.parts.append((rest, self.rows[rest]))
        joined = self.exam.joined([part for _, part in self.parts], references=self.references)
        places, first = np.unique(np.concatenate([positions for positions, _ in self.parts]), return_index=True)
        assert len(places) == self.count
        return joined[first] if isinstance(joined, np.ndarray) else [joined[place] for place in first]

    def _large(self, part: NDArray[Any]) -> bool:
        """Whether all of it is; numbers only: strings of later batches may be longer."""
        return part.dtype.kind in "biufc" and part.nbytes // max(1, len(part)) * self.count > IN_MEMORY


def _in_a_file(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array in a file that is gone with it."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _keep(kept: Mapping[str, _Kept], references: _Kept, positions: list[int], given: Mapping[str, Given],
          labels: Given | None) -> None:
    for name, part in given.items():
        kept[name].put(positions, part)
    if labels is not None:
        references.put(positions, labels)


def _gathered(mine: Any, world: int) -> list[Any]:
    gathered: list[Any] = [None] * world
    distributed.all_gather_object(gathered, mine)
    return gathered


def _by_length(prepared: Prepared, batch_size: int) -> list[list[int]]:
    """Positions in batches, the longest examples first: what does not fit into memory then fails at once."""
    order = np.arange(len(prepared.keys))
    if prepared.lengths is not None:
        order = np.argsort(-np.asarray(prepared.lengths), kind="stable")
    return [order[start:start + batch_size].tolist() for start in range(0, len(order), batch_size)]


def _share(batches: list[list[int]], rank: int, world: int) -> list[list[int]]:
    """Every `world`-th batch; who has one less answers the last again: all make as many forwards."""
    mine = batches[rank::world]
    return mine if len(mine) == -(-len(batches) // world) else [*mine, batches[-1]]


def _check_keys(batch: Batch, expected: NDArray[np.int64]) -> None:
    """Answers joined to the wrong examples would be wrong without a sign."""
    if batch.keys_ is not None and not np.array_equal(array(batch.keys_), expected):
        raise DataError(f"a batch holds the examples {array(batch.keys_)[:5]}, expected {expected[:5]}: the "
                        "collator must keep the order of its examples")


def _device(forward: Forward) -> torch.device:
    first = next(forward.parameters(), None) if isinstance(forward, nn.Module) else None
    return torch.device("cpu") if first is None else first.device
