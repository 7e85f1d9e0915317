"""What every measured model writes for the measured splits, and by what it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn

from stilla.data import from_all_over
from stilla.errors import DataError, all_of
from stilla.evaluate.asking import Inputs
from stilla.evaluate.cost import Workload, Writing
from stilla.evaluate.generate import Decoding, Writer, Written, generate, of_all, some, writer
from stilla.recipe import Generation
from stilla.tasks.answers import Answers
from stilla.tasks.language.writing import Asked, Writes, WrittenExam

LOOKED_AT = 256
"""Examples among which the one of median length is chosen that writing is timed on."""


@dataclass(frozen=True)
class Author:
    """Who writes: a model or an exported file's writer, with what makes its inputs and reads its tokens. `task`: by which it
    is asked, where that is not the exam's own: of a teacher that reads something else than its students."""

    write: nn.Module | Writer
    processor: Any
    task: Writes | None = None


@dataclass(frozen=True)
class Wrote:
    """`answers`: by subject, then by split, one per seed. `notes`: for the scores."""

    answers: Mapping[str, Mapping[str, Sequence[Answers]]]
    notes: tuple[str, ...] = ()


def write_texts(
    exam: WrittenExam, splits: Mapping[str, Dataset], authors: Mapping[str, Sequence[Author]], batch_size: int,
) -> Wrote:
    """The texts of all authors on all splits.

    Raises:
        CompatibilityError: a model cannot write.
    """
    section, task = exam.section, exam.task
    decoding = Decoding(section.max_new_tokens, section.num_beams)
    size = section.batch_size or batch_size
    texts: dict[str, dict[str, list[Answers]]] = {}
    cut: dict[str, dict[str, float]] = {}
    for split, examples in splits.items():
        every = [(name, seed, author) for name, seeds in authors.items() for seed, author in enumerate(seeds)]
        asked = of_all([(author.task or task).asked(examples, author.processor) for _, _, author in every])
        for (name, seed, author), own in zip(every, asked, strict=True):
            done = generate(author.write, task, some(own, section.limit), author.processor, decoding, batch_size=size,
                            title=f"{name} writes, {split}")
            texts.setdefault(name, {}).setdefault(split, []).append(done.answers)
            if done.cut and not seed:
                cut.setdefault(split, {})[name] = done.cut
    return Wrote(texts, _unended(cut, decoding.max_new_tokens))


def number_asked(section: Generation, splits: Mapping[str, Dataset]) -> int:
    """How many texts a model writes to be measured on these splits."""
    return sum(len(split) if section.limit is None else min(section.limit, len(split)) for split in splits.values())


def writing(
    exam: WrittenExam, examples: Dataset, authors: Mapping[str, Sequence[Author]], batch_size: int,
) -> dict[str, Writing]:
    """What is timed of each author: the text for an example of median length, and those for a full batch of examples."""
    section, task = exam.section, exam.task
    decoding = Decoding(section.max_new_tokens, section.num_beams)
    size = section.batch_size or batch_size
    asked = some_questions(examples, size, {name: (author.task or task, author.processor)
                                            for name, (author, *_) in authors.items()})
    # what is too long for one model's tokens is left out of its questions: all are timed on what all were asked
    common = sorted(set.intersection(*(set(one.keys.tolist()) for one in asked.values()))) if asked else []
    if not common:
        return {}
    lengths = _lengths(next(iter(asked.values())), common)
    middle = common[int(np.argsort(lengths, kind="stable")[len(common) // 2])]
    batch = [common[place % len(common)] for place in range(size)]
    beams = f"{decoding.num_beams} beams" if decoding.num_beams > 1 else "greedily"
    what = f"whole texts of at most {decoding.max_new_tokens} tokens, written {beams}"
    found = {}
    for name, (author, *_) in authors.items():
        write, device = author.write, torch.device("cpu")
        if isinstance(write, nn.Module):
            device, write = next(write.parameters()).device, writer(write)
        load = Workload(_questions(asked[name], [middle], device), (_questions(asked[name], batch, device),), size,
                        _seconds(asked[name], batch))
        found[name] = Writing(partial(_written, write, asked[name].options, decoding), load, what)
    return found


def some_questions(examples: Dataset, least: int, whom: Mapping[str, tuple[Writes, Any]]) -> dict[str, Asked]:
    """What is asked of some of the examples, at least so many if there are, by every task and processor.

    Raises:
        DataError: all of them are too long, in all the examples.
    """
    try:
        few = from_all_over(examples, max(least, LOOKED_AT))
        return {name: task.asked(few, one) for name, (task, one) in whom.items()}
    except DataError:  # what is short enough may be elsewhere
        return {name: task.asked(examples, one) for name, (task, one) in whom.items()}


def _rows(asked: Asked, keys: Sequence[int]) -> list[int]:
    places = {int(key): row for row, key in enumerate(asked.keys)}
    return [places[key] for key in keys]


def _lengths(asked: Asked, keys: Sequence[int]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = asked.tokens.lengths[_rows(asked, keys)]
    return found


def _seconds(asked: Asked, keys: Sequence[int]) -> float | None:
    return None if asked.seconds is None else float(sum(asked.seconds[row] for row in _rows(asked, keys)))


def _questions(asked: Asked, keys: Sequence[int], device: torch.device) -> Inputs:
    return {name: value.to(device) for name, value in asked.tokens.batch(_rows(asked, keys)).items()}


def _written(write: Writer, options: Mapping[str, Any], decoding: Decoding, inputs: Inputs) -> list[Written]:
    return write(inputs, options, decoding)


def _unended(cut: Mapping[str, Mapping[str, float]], limit: int) -> tuple[str, ...]:
    """How often texts had no end within the limit: by split, then by subject; one note for all of it."""
    if not cut:
        return ()
    shares = [f"on {split} " + all_of([f"{name} {100 * share:.1f} %" for name, share in subjects.items()])
              for split, subjects in cut.items()]
    return (f"texts without an end after {limit} tokens, cut there: {'; '.join(shares)}",)
