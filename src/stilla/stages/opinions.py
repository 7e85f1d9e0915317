"""What the teacher thinks of unlabelled examples, and which of them the recipe leaves out for it.

It is asked once, part by part into the run's folder, so that other bounds (`min_confidence`, `max_entropy`, `near`, `keep`)
need no further answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.data import from_all_over, of_part, part_of
from stilla.errors import StillaError, counted
from stilla.recipe import Recipe, Unlabelled
from stilla.rows import row_measures
from stilla.runtime.imports import own_function
from stilla.runtime.narrate import say
from stilla.runtime.processes import processes
from stilla.signals import Dense, Signals
from stilla.stages.parts import Parts
from stilla.stages.unlabelled import Pool, is_written
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.teachers import LiveTeacher
from stilla.teachers.capture import batches_of

KEEP = "data.unlabelled.keep"
CENTRE = 2048
"""Labelled examples, from all over, whose mean is the centre."""
SCHEMA = pa.schema([("key", pa.int64()), ("rows", pa.int32()), ("confidence", pa.float64()), ("entropy", pa.float64()),
                    ("distance", pa.float64()), ("answer", pa.list_(pa.float64()))])


def wanted(section: Unlabelled) -> bool:
    """Whether the recipe leaves examples out for what the teacher thinks of them."""
    return not all(one is None for one in (section.min_confidence, section.max_entropy, section.near, section.keep))


def asked_of_all(recipe: Recipe, splits: Mapping[str, Dataset], pool: Pool | None) -> int:
    """How many examples teachers are asked about to know which to keep, of all tasks that are learnt."""
    labelled, pools = splits.get("train"), {} if pool is None else pool.parts or {"": pool}
    return sum(asked_about(recipe.data.by_name[name].unlabelled, len(() if labelled is None else one_of_all(labelled, name)),
                           len(one)) for name, one in pools.items())


def one_of_all(split: Dataset, name: str) -> Dataset:
    """The examples of the task of this name among several; of a single one, which has no name, all."""
    return part_of(split, name)[0] if name else split


def asked_about(section: Unlabelled | None, labelled: int, unlabelled: int) -> int:
    """How many examples the teacher is asked about to know which to keep."""
    if section is None or not wanted(section):
        return 0
    return unlabelled + (0 if section.near is None else min(CENTRE, labelled))


def problems_of(recipe: Recipe, task: Task) -> list[str]:
    """Why the filters of all tasks that are learnt cannot work, as far as it can be known without a model."""
    return [of_part(name, problem) if name else problem for name, own in task.by_name.items()
            for problem in problems(recipe.data.by_name[name].unlabelled, own)]


def problems(section: Unlabelled | None, task: Task) -> list[str]:
    """The same of one task."""
    if section is None or not wanted(section):
        return []
    named = [name for name in ("min_confidence", "max_entropy", "near", "keep") if getattr(section, name) is not None]
    if is_written(task):
        return [f"data.unlabelled.{name}: looks at what the teacher says of an example, and here it writes one; use the "
                "filters of completions (min_log_probability, min_tokens, keep: package.module:function)" for name in named]
    if not task.distributions:
        return [f"data.unlabelled.{name}: looks at a distribution over classes, and the teacher's answer is a vector, or "
                "boxes, masks or frames; leave it out, and choose the examples beforehand" for name in named]
    found = [f"data.unlabelled.{name}: looks at a distribution over classes, and the teacher's answer is a number; use near "
             "or keep" for name in named if name in ("min_confidence", "max_entropy") and task.row_classes() == 1]
    try:
        if section.keep is not None:
            own_function(section.keep, KEEP)
    except StillaError as error:
        found += error.problems
    return found


def ask(
    section: Unlabelled, task: Task, teacher: Loaded, pool: Pool, labelled: Dataset | None, folder: Path,
    stamp: Mapping[str, Any], batch_size: int,
) -> None:
    """What the teacher thinks of every example, into files of `folder`; parts that are there are kept.

    labelled: whose centre distances are from, where the recipe asks for them. stamp: what the answers depend on.
    """
    task = task.of_teacher()
    prepared = task.prepare(pool.data, teacher.processor, None, training=False)
    asked = _Asked(task, teacher, stacks=section.near is not None)
    beside: dict[str, Any] = {}
    if section.near is not None:
        assert labelled is not None  # known before
        asked.centre, near = _centre(asked, task.prepare(from_all_over(labelled, CENTRE), teacher.processor, None,
                                                         training=False), batch_size)
        beside = {"distances of labelled examples": near}

    def begin(missing: int) -> None:
        say(f"unlabelled: the teacher is asked about {counted(missing, 'example')}")
        asked.teacher.to(processes().device)

    Parts(folder, SCHEMA).make(list(batches_of(prepared, batch_size)), lambda batch: asked.rows(prepared, batch),
                               stamp, title="asking the teacher", begin=begin, beside=beside)


def kept(section: Unlabelled, task: Task, pool: Pool, folder: Path, name: str = "") -> Pool:
    """The pool without what the recipe leaves out, in its own order; says how many go and why. `name`: of the task, of
    several.

    Raises:
        DataError: nothing is left.
        RecipeError: the recipe's function raised something.
    """
    parts = Parts(folder, SCHEMA)
    opinions = _by_example(parts.rows(), len(pool))
    farthest = None if section.near is None else float(
        np.quantile(parts.settings()["distances of labelled examples"], section.near))
    why = np.full(len(pool), None, object)

    def leave_out(rows: NDArray[np.bool_], reason: str) -> None:
        why[rows & (why == None)] = reason  # noqa: E711 - of every entry

    if section.min_confidence is not None:
        leave_out(opinions["confidence"] < section.min_confidence, f"less sure than {section.min_confidence:g}")
    if section.max_entropy is not None:
        leave_out(opinions["entropy"] > section.max_entropy, f"an entropy above {section.max_entropy:g}")
    if farthest is not None:
        leave_out(opinions["distance"] > farthest, f"farther than {section.near:.0%} of the labelled examples")
    if section.keep is not None:
        keep = own_function(section.keep, KEEP)
        rows = np.array([not keep(example, said) for example, said in _with_examples(pool, opinions)], np.bool_)
        leave_out(rows, f"not kept by {section.keep}")
    counts = Counter(reason for reason in why if reason is not None)
    left_out = "".join(f", {count:,} left out ({reason})" for reason, count in counts.items())
    whose = f" of {name}" if name else ""
    say(f"unlabelled{whose}: {len(pool) - counts.total():,} of {len(pool):,} examples are kept{left_out}")
    return pool.without(why)


class _Asked:
    """The teacher, and the centre that distances are from, once it is known."""

    def __init__(self, task: Task, teacher: Loaded, *, stacks: bool) -> None:
        self.task = task
        self.teacher = LiveTeacher(teacher.model, task, stacks=stacks)
        self.centre: Tensor | None = None

    def rows(self, prepared: Prepared, batch: Sequence[int]) -> list[dict[str, Any]]:
        """What is thought of the examples of a batch."""
        said, segments = self.said(prepared, batch)
        assert said.logits is not None
        measures = row_measures(said.logits, None, entropy=True)
        assert measures.entropy is not None
        distances = None if self.centre is None else 1 - embeddings(said) @ self.centre
        whole = self.task.exam().units == "examples"  # else rows are of its tokens or words, and none of all of it
        found = []
        for segment in segments:
            here = segment.rows
            found.append({
                "key": int(prepared.keys[batch[segment.example]]), "rows": here.stop - here.start,
                "confidence": float(measures.confidence[here].double().exp().mean()),
                "entropy": float(measures.entropy[here].double().mean()),
                "distance": None if distances is None else float(distances[segment.example]),
                "answer": _answer(said.logits.logits[here]) if whole and isinstance(said.logits, Dense) else None})
        return found

    def said(self, prepared: Prepared, batch: Sequence[int]) -> tuple[Signals, list[Any]]:
        device = processes().device
        self.teacher.to(device)
        made = prepared.collate([prepared.examples[one] for one in batch]).to(device)
        dtype = next(one.dtype for one in self.teacher.model.parameters() if one.is_floating_point())
        # pictures come as float32, also to a model whose weights are bfloat16
        made["teacher"] = {name: value.to(dtype) if value.is_floating_point() else value
                           for name, value in made.teacher.items()}
        said = self.teacher(made)
        return self.task.align(said, said, made)[0], self.task.segments(made)


def embeddings(said: Signals) -> Tensor:
    """(batch, width) of length 1: the mean of an example's last hidden states."""
    last = list(said.stacks.values())[-1]
    return torch.nn.functional.normalize(last.pooled(-1, "mean").double(), dim=-1)


def _answer(logits: Tensor) -> list[float]:
    """Probabilities of the classes, or of several labels; or the number."""
    if logits.shape[1] == 1:
        return [float(one) for one in logits[:, 0]]
    probabilities = logits.double().softmax(-1)
    return [float(one) for one in (probabilities[0] if len(probabilities) == 1 else probabilities[:, 1])]


def _centre(asked: _Asked, labelled: Prepared, batch_size: int) -> tuple[Tensor, list[float]]:
    """The mean of the labelled examples' embeddings, as a direction, and how far each is from it."""
    parts = [embeddings(asked.said(labelled, batch)[0]) for batch in batches_of(labelled, batch_size)]
    whole = torch.cat(parts)
    centre = torch.nn.functional.normalize(whole.mean(0), dim=0)
    return centre, [round(float(one), 12) for one in 1 - whole @ centre]


def _by_example(rows: Sequence[Mapping[str, Any]], number: int) -> dict[str, NDArray[Any]]:
    """Of every example, NaN where nothing of it can be predicted; of several pieces the mean over their rows."""
    keys = np.array([row["key"] for row in rows], np.int64)
    weights = np.array([row["rows"] for row in rows], np.float64)
    totals = np.bincount(keys, weights, number)
    found: dict[str, NDArray[Any]] = {}
    with np.errstate(invalid="ignore"):
        for name in ("confidence", "entropy", "distance"):
            values = np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
            found[name] = np.bincount(keys, weights * values, number) / totals
    answers = np.full(number, None, object)
    for row in rows:
        answers[row["key"]] = row["answer"]
    return {**found, "answer": answers}


def _with_examples(
    pool: Pool, opinions: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every example, as the data have it, and what is thought of it."""
    for row, example in enumerate(pool.data.with_format(None)):
        yield example, {name: _plain(values[row]) for name, values in opinions.items()}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value

