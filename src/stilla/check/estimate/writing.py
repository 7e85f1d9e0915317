"""How long whole texts take to be written: a few tokens of a few texts are, and scaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from stilla.check.estimate.clock import Stopwatch
from stilla.check.estimate.passes import device_for
from stilla.data import joined, to_measure
from stilla.evaluate import headline_split
from stilla.evaluate.generate import Decoding, effective, read_before, some, writer
from stilla.evaluate.texts import number_asked, some_questions
from stilla.recipe import Recipe
from stilla.stages.defaults import resolved_writing
from stilla.stages.unlabelled import Pool, number_written
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.language.writing import Writes
from stilla.tasks.text.sequences import NO_ROW

FEW = 2
"""Texts that are written to see how many of them can be written to measure."""
BUDGET = 0.3
"""Seconds that one measurement may take, if two texts take less."""
TOKENS = 4
"""Written after the first of a text, to see what one takes."""
TIMED = 10, 3
"""Texts, and batches of them, that a subject writes at least while its speed is measured."""


def seconds_of_writing(
    recipe: Recipe, task: Task, splits: Mapping[str, Dataset], teacher: Loaded, student: Loaded,
    prepared: Prepared, per_example: float, pool: Pool | None = None,
) -> dict[str, tuple[float, float]]:
    """By stage, from texts as long as the data's to texts that are all cut at the limit."""
    if not isinstance(task, Writes):
        return {}
    found = {}
    tokens, device = _answer_tokens(prepared, per_example), device_for(recipe.distill[0])
    section, generation = recipe.completions, resolved_writing(recipe.evaluate, task).writing
    here = recipe.teacher.api is None
    if section is not None and here:
        decoding = Decoding(section.max_new_tokens, section.num_beams)
        some = splits["train"] if pool is None else joined(None, pool.data)
        theirs = pace(task.of_teacher(), teacher, some, decoding, section.batch_size, device)
        number = number_written(recipe, splits, pool)
        found["completions"] = _between(tokens, decoding, lambda length: number * theirs(length))
    if generation is not None and generation.metrics:
        decoding = Decoding(generation.max_new_tokens, generation.num_beams)
        size = generation.batch_size or recipe.evaluate.batch_size
        measured = splits[headline_split(list(splits))]
        theirs, ours = (pace(asked, one, measured, decoding, size, device)
                        for asked, one in ((task.of_teacher(), teacher), (task, student)))
        students = recipe.evaluate.seeds * (1 + recipe.evaluate.baseline) + len(recipe.export)
        texts = number_asked(generation, to_measure(splits))
        one, many = TIMED
        timed = recipe.evaluate.speed * (one + many * size)

        def writing(length: float) -> float:
            own = (texts * students + timed * (1 + len(recipe.export))) * ours(length)
            return own + (texts + timed) * theirs(length) if here else own

        found["writing"] = _between(tokens, decoding, writing)
    return found


def _between(tokens: float, decoding: Decoding, seconds: Callable[[float], float]) -> tuple[float, float]:
    return seconds(min(tokens, decoding.max_new_tokens)), seconds(decoding.max_new_tokens)


@dataclass(frozen=True)
class Pace:
    """Seconds that a text takes in a batch: up to its first token, and for every further one."""

    first: float
    further: float

    def __call__(self, tokens: float) -> float:
        """For a text of so many."""
        return self.first + max(0.0, tokens - 1) * self.further


def pace(task: Writes, loaded: Loaded, examples: Dataset, decoding: Decoding, batch_size: int, device: str) -> Pace:
    """Of a model in batches of this size, or of fewer texts where these take long. Leaves the model on the CPU."""
    asked = some(some_questions(examples, batch_size, {"": (task, loaded.processor)})[""], batch_size)
    by_length = np.argsort(asked.tokens.lengths, kind="stable")
    stopwatch = Stopwatch(device)
    loaded.model.to(device)

    def writing(texts: int, tokens: int) -> Callable[[], object]:
        start = (len(by_length) - texts) // 2
        inputs = asked.tokens.batch(by_length[start : start + texts].tolist())
        exactly = {**asked.options, "min_new_tokens": tokens}
        return lambda: write(inputs, exactly, Decoding(tokens, decoding.num_beams))

    try:
        write = writer(loaded.model)
        # a context may be full before that
        before = read_before(loaded.model, asked.tokens.batch(by_length[-1:].tolist()))
        room = effective(loaded.model, {}, Decoding(TOKENS + 1), before).max_new_tokens
        texts = min(FEW, len(asked))
        stopwatch.once(writing(texts, 1))  # what a first call alone pays for
        texts = min(len(asked), max(texts, int(texts * BUDGET / max(stopwatch.once(writing(texts, 1)), 1e-9))))
        first, whole = stopwatch.least([writing(texts, 1), writing(texts, room)])
        further = max(0.0, whole - first) / (room - 1) if room > 1 else 0.0
    finally:
        loaded.model.cpu()
    return Pace(first / texts, further / texts)


def _answer_tokens(prepared: Prepared, per_example: float, sample: int = 64) -> float:
    """Of the data's own texts, per example; `per_example`: examples that are prepared of one of the data."""
    taken = np.unique(np.linspace(0, len(prepared) - 1, sample).astype(int))
    labels = prepared.collate([prepared.examples[int(index)] for index in taken]).labels
    assert labels is not None
    return per_example * float((labels != NO_ROW).sum()) / len(taken)
