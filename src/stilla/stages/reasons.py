"""What answers rest on, measured for a run: teacher, students, and the teacher trained once more as the ceiling."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stilla.data import from_all_over, rows_as_read
from stilla.errors import StillaError, counted
from stilla.evaluate import headline_split
from stilla.evaluate.reasons import Weighed, agreement, integrated, mean_of, of_examples
from stilla.recipe import Recipe
from stilla.runtime.narrate import progress, say
from stilla.scores import Reason, Reasons, Scores
from stilla.signals import Side
from stilla.stages.measuring import place
from stilla.tasks.answers import Answers
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.views import Overlays, Picture, Sound, View, Weights

CEILING = "ceiling"
"""Among the subjects, the teacher trained once more."""
SHOWN = (4, 2)
"""Examples on a page: those on which student and teacher agree least, and most."""
_STRENGTH = 0.7
_SIGNS = "▁▂▃▄▅▆▇█"


def said_in(
    scores: Scores, recipe: Recipe, task: Task, splits: Mapping[str, Dataset], teacher: Loaded | None,
    made: Mapping[str, Sequence[Loaded]], again: Loaded | None,
) -> Scores:
    """The scores with how far answers rest on what the teacher's do, where the recipe asks for it; or why nobody can say.

    again: the teacher trained once more, where it was.
    """
    if recipe.evaluate.saliency is None or teacher is None:
        return scores
    try:
        found = _measured(recipe, task, splits, teacher, made, again)
    except StillaError as error:
        note = f"saliency: not measured: {error}"
        say(note)
        return replace(scores, notes=(*scores.notes, note))
    note = in_words(found)
    say(note)
    return replace(scores, reasons=found, notes=(*scores.notes, note))


def in_words(found: Reasons) -> str:
    """A sentence for terminal, page and card."""
    said = ", ".join(f"{one} of the {name}" for name, one in found.agreement.items())
    ceiling = "no ceiling, as the recipe trains no teacher a second time" if found.ceiling is None else \
        f"{found.ceiling} of the teacher trained again with another seed, the ceiling of models that share no weights with it"
    return (f"saliency: Spearman's correlation with what the teacher's answers rest on (integrated gradients of its answer, "
            f"{counted(found.steps, 'step')}, {counted(found.examples, 'example')}): {said}; {ceiling}")


def _measured(
    recipe: Recipe, task: Task, splits: Mapping[str, Dataset], teacher: Loaded, made: Mapping[str, Sequence[Loaded]],
    again: Loaded | None,
) -> Reasons:
    asked = recipe.evaluate.saliency
    assert asked is not None
    split = splits[headline_split(list(splits))]
    subjects = {name: seeds[0] for name, seeds in made.items()} | ({} if again is None else {CEILING: again})
    place([teacher, *subjects.values()])
    some = from_all_over(split, asked.examples)
    student = made["student"][0]
    prepared = task.between(student, teacher).prepare(some, student.processor, teacher.processor, training=False)
    if not (prepared.aligned and prepared.framed):
        raise StillaError("teacher and student cut the examples differently (two tokenizers, or two image sizes), so that "
                          "no position answers to another")
    weighed: dict[str, list[Weighed]] = {}
    tokens: list[list[int]] = []
    names: list[str] = []
    for batch in _batches(prepared, recipe.evaluate.batch_size, next(teacher.model.parameters()).device):
        theirs = integrated(teacher.model, task, batch, Side.TEACHER, asked.steps)
        weighed.setdefault("teacher", []).append(theirs)
        for name, one in subjects.items():
            side = Side.TEACHER if name == CEILING else Side.STUDENT
            weighed.setdefault(name, []).append(integrated(one.model, task, batch, side, asked.steps, theirs.classes))
        tokens += batch.student["input_ids"].tolist() if "input_ids" in batch.student else []
        names += task.attributed_names(theirs.classes, batch, some)
    agreed = {name: np.concatenate([agreement(ours, theirs) for ours, theirs in zip(ones, weighed["teacher"], strict=True)])
              for name, ones in weighed.items() if name != "teacher"}
    means = {name: mean_of(of_examples(one, prepared.keys), resamples=recipe.evaluate.resamples, seed=recipe.seed)
             for name, one in agreed.items()}
    return Reasons(
        examples=len(np.unique(prepared.keys)), steps=asked.steps, ceiling=means.pop(CEILING, None), agreement=means,
        shown=tuple(_shown(task, some, prepared, student, weighed, agreed, tokens, names)))


def _batches(prepared: Prepared, size: int, device: torch.device) -> Iterator[Any]:
    with progress("saliency", len(prepared)) as advance:
        for start in range(0, len(prepared), size):
            examples = [prepared.examples[index] for index in range(start, min(start + size, len(prepared)))]
            yield prepared.collate(examples).to(device)
            advance(len(examples))


def _shown(
    task: Task, split: Dataset, prepared: Prepared, student: Loaded, weighed: Mapping[str, Sequence[Weighed]],
    agreed: Mapping[str, NDArray[np.float64]], tokens: Sequence[Sequence[int]], names: Sequence[str],
) -> Iterator[Reason]:
    """Where student and teacher agree least, and most."""
    order = np.argsort(np.where(np.isfinite(agreed["student"]), agreed["student"], np.nan))
    known = [int(one) for one in order if np.isfinite(agreed["student"][one])]
    least, most = known[:SHOWN[0]], known[SHOWN[0]:][-SHOWN[1]:]
    flat = {name: _flat(ones) for name, ones in weighed.items() if name != CEILING}
    answers = Answers(prepared.keys, prepared.keys, prepared.keys)  # whose example it is is all that is asked
    for index in [*least, *most]:
        weights = {name: rows[index] for name, rows in flat.items()}
        view = _of_tokens(student, weights, tokens[index]) if tokens else None
        if view is None:
            shown = task.exam().view(split, {"teacher": answers, "student": answers}, index, 0)
            view = _over(shown, weights)
        yield Reason(str(rows_as_read(split, [int(prepared.keys[index])])[0]), view, names[index],
                     {name: round(float(one[index]), 4) for name, one in agreed.items()
                      if name != CEILING and np.isfinite(one[index])})


@dataclass(frozen=True)
class _Row:
    """Of one example, and one subject."""

    weights: NDArray[np.float64]
    there: NDArray[np.bool_]
    grid: tuple[int, int] | None
    heard: NDArray[np.float64] | None


def _flat(ones: Sequence[Weighed]) -> list[_Row]:
    return [_Row(weights, there, one.grid, None if one.heard is None else one.heard[row])
            for one in ones for row, (weights, there) in enumerate(zip(one.weights, one.there, strict=True))]


def _of_tokens(student: Loaded, weights: Mapping[str, _Row], ids: Sequence[int]) -> View | None:
    """The tokens with what answers rest on; None where nobody knows what they spell."""
    tokenizer = getattr(student.processor, "tokenizer", student.processor)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return None
    there = next(iter(weights.values())).there
    pieces = tuple(tokenizer.convert_ids_to_tokens([one for one, is_there in zip(ids, there) if is_there]))
    return Weights(pieces, {name: _scaled(row.weights[there]) for name, row in weights.items()})


def _over(shown: View, weights: Mapping[str, _Row]) -> View:
    """A picture or a sound with what answers rest on; or the example as it is, where nobody can draw that."""
    first = next(iter(weights.values()))
    if isinstance(shown, Picture) and first.grid is not None:
        return Overlays(shown.uri, {name: _heated(shown.uri, row.weights, first.grid) for name, row in weights.items()})
    if isinstance(shown, Sound) and first.heard is not None:
        return replace(shown, weights=Weights(_levels(first.heard[first.there]), {
            name: _scaled(row.weights[row.there]) for name, row in weights.items()}))
    return shown


def _levels(heard: NDArray[np.float64]) -> tuple[str, ...]:
    """A sign for each part of a sound, as high as it is loud."""
    spread = np.ptp(heard)
    heights = (heard - heard.min()) / spread if spread else np.zeros(len(heard))
    return tuple(_SIGNS[int(one)] for one in np.minimum(heights * len(_SIGNS), len(_SIGNS) - 1))


def _scaled(row: NDArray[np.float64]) -> tuple[float, ...]:
    largest = float(np.abs(row).max(initial=0.0))
    return tuple(round(float(one) / largest, 4) if largest else 0.0 for one in row)


def _heated(uri: str, row: NDArray[np.float64], grid: tuple[int, int]) -> str:
    """The picture in grey, warm where the cells speak for the class and cold where they speak against it."""
    picture = PIL.Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L")
    values = PIL.Image.fromarray(np.asarray(_scaled(row), np.float32).reshape(grid)).resize(picture.size)
    heat = np.asarray(values)[..., None]
    colour = np.where(heat > 0, np.array([230.0, 120, 30]), np.array([40.0, 110, 220]))
    grey = np.asarray(picture, np.float32)[..., None]
    mixed = (1 - _STRENGTH * np.abs(heat)) * grey + _STRENGTH * np.abs(heat) * colour
    written = BytesIO()
    PIL.Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(written, "PNG")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
