"""Unlabelled texts that a causal language model writes like those of the data (`data.unlabelled.generate` of a recipe).

"Generate, annotate, and learn" (He et al. 2022, arXiv:2106.06168), without classes: a model that was shown inputs of the
task, and no label, writes more of them, and the teacher says what they are. They are written once, part by part, into the
run's folder; a run that was killed goes on with the next part and ends with the same bytes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from transformers import AutoModelForCausalLM

from stilla.data.overlap import Trace, normal
from stilla.errors import CompatibilityError, DataError, StillaError, all_at_once, counted
from stilla.evaluate.generate import room
from stilla.models.fingerprint import of_model, of_processor
from stilla.recipe import Generate, ModelSource, Recipe
from stilla.runtime.differences import fingerprint
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main, processes
from stilla.stages.clocks import timed
from stilla.stages.parts import Parts
from stilla.stages.prompting import Prompts
from stilla.stages.sampling import Chance, sample
from stilla.stages.unlabelled import Pool
from stilla.tasks.base import Loaded, Task
from stilla.tasks.language.models import language_model, refuse_looking_ahead
from stilla.tasks.text.tokens import tokenizer_for

if TYPE_CHECKING:  # a check asks here too, and imports nothing that trains
    from stilla.stages.place import Place

WHERE = "data.unlabelled.generate"
EMPTY, TWICE, COPY = "generated empty", "generated twice", "generated as they stand in the data"
SCHEMA = pa.schema([("key", pa.int64()), ("text", pa.string()), ("cut", pa.bool_())])


def problems(recipe: Recipe, task: Task) -> list[str]:
    """Why no text can be generated for this task."""
    if section_of(recipe) is None or task.text_column is not None:
        return []
    return [f"{WHERE}: a text that is written is an example only where models read one column of text and nothing else; "
            f"`{task.kind}` reads something else here (pairs, pictures, sounds, or a text for each of several columns). "
            "Leave it out"]


def section_of(recipe: Recipe) -> Generate | None:
    return None if recipe.data.unlabelled is None else recipe.data.unlabelled.generate


def source_of(section: Generate) -> ModelSource:
    """Where the model comes from that writes."""
    return ModelSource(model=section.model, revision=section.revision, precision=section.precision)


def written(place: Place, given: Pool | None) -> Pool | None:
    """What a model has written for this run, without what is empty, there twice or a copy; None where the recipe asks for
    none. The stage is done first, where it is not.

    given: unlabelled examples that the recipe names.

    Raises:
        CompatibilityError: the task reads no single texts; the model cannot write.
        DataError: nothing is left.
    """
    section, task, folder = section_of(place.recipe), place.task, place.folder.generated
    if section is None:
        return None
    if wrong := problems(place.recipe, task):
        raise CompatibilityError(wrong[0])
    writing = Writing.of(section, task, place.splits, given, place.recipe.seed)
    inputs = writing.inputs()
    if place.to_do("generated", inputs, folder, by_parts=True):
        with timed(place.folder.append_log, "generated"):
            writing.write(folder, inputs)
        on_main(lambda: place.folder.finish("generated", inputs, folder))
    return read(task, place.splits, given, folder)


def again(recipe: Recipe, task: Task, splits: Mapping[str, Dataset], given: Pool | None, folder: Path) -> Pool | None:
    """The same of a run that is finished, from its folder of such texts."""
    return None if section_of(recipe) is None else read(task, splits, given, folder)


@dataclass(frozen=True)
class Writing:
    """A model with the texts that it may be shown. Text number n is the same in whatever batch, but for rounding."""

    section: Generate
    model: Loaded
    shown: Sequence[str]
    seed: int

    @classmethod
    def of(
        cls, section: Generate, task: Task, splits: Mapping[str, Dataset], given: Pool | None, seed: int
    ) -> Writing:
        """Raises:
            CompatibilityError: the model cannot write, or there is no room for a prompt and a text.
        """
        writing = cls(section, _loaded(section), shown(section, task, splits, given), seed)
        writing.prompts.tokens(writing.prompts.drawn(0)[0])
        return writing

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.section, self.model.processor, self.shown,
                       min(room(self.model.model), self.model.processor.model_max_length), self.seed)

    def inputs(self) -> dict[str, Any]:
        """All that the texts depend on."""
        return {**self.section.model_dump(mode="json", exclude={"model", "revision"}), "seed": self.seed,
                "model": of_model(self.model.model), "tokenizer": of_processor(self.model.processor),
                "shown": fingerprint(self.shown)}

    def write(self, folder: Path, stamp: Mapping[str, Any]) -> None:
        """All texts into Parquet files of `folder`; parts that are there are kept. `stamp`: what the texts depend on.

        Every process of a launched run calls this and writes its share. The bytes do not depend on how many there are.
        """
        section, numbers = self.section, range(self.section.count)
        after = f", each after {min(section.shown, len(self.shown))} of the data" if section.shown else ""

        def begin(missing: int) -> None:
            say(f"generated: {section.model} writes {counted(missing, 'text')}{after}")
            self.model.model.to(processes().device)

        batches = [numbers[start : start + section.batch_size] for start in range(0, section.count, section.batch_size)]
        Parts(folder, SCHEMA).make(batches, self.rows, stamp, title="generating", begin=begin)

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The texts of these numbers."""
        section, prompts, tokenizer = self.section, self.prompts, self.model.processor
        drawn = [prompts.drawn(number) for number in numbers]
        texts = sample(self.model.model, tokenizer, [prompts.tokens(shots) for shots, _ in drawn],
                       np.stack([draws for _, draws in drawn]), Chance(section.temperature, section.top_p),
                       prompts.is_whole if section.shown else None)
        rows = []
        for number, one in zip(numbers, texts):
            said = tokenizer.decode(one.ids, skip_special_tokens=True)
            whole = one.ended or (bool(section.shown) and prompts.is_whole(said))
            rows.append({"key": number, "text": prompts.text_of(said), "cut": not whole})
        return rows


def shown(section: Generate, task: Task, splits: Mapping[str, Dataset], given: Pool | None) -> list[str]:
    """The texts that may be shown: the training data's; where there are none, of the unlabelled ones that are given."""
    if not section.shown:
        return []
    learnt = splits.get("train", None if given is None else given.data)
    return [] if learnt is None else _texts(task, learnt)


def read(task: Task, splits: Mapping[str, Dataset], given: Pool | None, folder: Path) -> Pool:
    """What was written, as examples of the task, without what is empty, there twice, or stands in the data that are learnt:
    in the training data or among the unlabelled examples that are `given`. Says how many are left out and why.

    Raises:
        StillaError: parts are missing.
        DataError: nothing is left.
    """
    assert task.text_column is not None  # refused before
    rows = Parts(folder, SCHEMA).rows()
    known, met, why = {normal(trace) for trace in _learnt(task, splits, given)}, set[Trace](), list[str | None]()
    for row in rows:
        found = normal((row["text"],))
        why.append(EMPTY if not row["text"] else COPY if found in known else TWICE if found in met else None)
        met.add(found)
    kept = [row["text"] for row, reason in zip(rows, why) if reason is None]
    counts = Counter(reason for reason in why if reason is not None)
    left_out = "".join(f", {count:,} left out ({reason})" for reason, count in counts.items())
    cut = sum(row["cut"] for row in rows)
    ends = f"; {cut:,} have no end and were cut at max_new_tokens" if cut else ""
    say(f"generated: {len(kept):,} of {len(rows):,} texts are kept{left_out}{ends}")
    if not kept:
        raise DataError(f"{WHERE}: none of the {len(rows):,} texts is kept{left_out}. Look at what the model writes in "
                        f"{folder}; another model, a higher temperature or other shots may write more.")
    return Pool(task.unlabelled(Dataset.from_dict({task.text_column: kept}), {}), dict(counts), len(kept))


def expected(recipe: Recipe, task: Task, splits: Mapping[str, Dataset], pool: Pool | None) -> Pool | None:
    """The pool with what will be generated, before it is: as many texts of the data in its place."""
    section = section_of(recipe)
    if section is None or problems(recipe, task):
        return pool
    assert task.text_column is not None  # known by now
    like = next(texts for split in (splits.get("train"), None if pool is None else pool.data, splits["validation"])
                if split is not None and (texts := _texts(task, split)))
    texts = list(itertools.islice(itertools.cycle(like), section.count))
    made = Pool(task.unlabelled(Dataset.from_dict({task.text_column: texts}), {}), {}, section.count)
    return made if pool is None else pool.beside(made)


def _learnt(task: Task, splits: Mapping[str, Dataset], given: Pool | None) -> Iterator[Trace]:
    """What is learnt from beside the generated texts, by its traces."""
    for split in (splits.get("train"), None if given is None else given.data):
        if split is not None:
            yield from task.traces(split)


def _texts(task: Task, split: Dataset) -> list[str]:
    """What models read of these examples: no label."""
    return [text for trace in task.traces(split) for text in trace if isinstance(text, str) and text.strip()]


def _loaded(section: Generate) -> Loaded:
    """The model that writes.

    Raises:
        StillaError: it is no causal language model, has no tokenizer, or no chat template where it is to have one.
    """
    source = source_of(section)
    try:
        model = language_model(source, AutoModelForCausalLM, labelled=True)
        refuse_looking_ahead(model, section.model)
        tokenizer = tokenizer_for(source, model)
    except StillaError as error:
        raise all_at_once([f"{WHERE}: {one}" for one in error.problems], type(error)) from error
    if section.chat and not tokenizer.chat_template:
        raise CompatibilityError(f"{WHERE}.chat: {section.model} has no chat template; leave chat out, or take a model that "
                                 "was trained to answer")
    return Loaded(model, tokenizer, section.model)
