"""What does not answer a query, found among the documents of the training data by the teacher, or by another model of vectors
(`data.negatives` of a recipe).

First its vectors of all queries and documents, then for every query the nearest, exactly, by products of blocks. Both are
written part by part into the run's folder: a run that was killed goes on, and ends with the same bytes. What is found stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy.typing import NDArray

from stilla.data import fingerprint, to_learn_from
from stilla.errors import CompatibilityError, DataError, RecipeError, counted
from stilla.models.fingerprint import of_model, of_processor
from stilla.recipe import Recipe
from stilla.runtime.differences import fingerprint as digest
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main, processes
from stilla.stages.clocks import timed
from stilla.stages.parts import Parts
from stilla.tasks.base import Loaded, Task
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.mining import WHERE, Mines, Mining, Questions, nearest
from stilla.tasks.retrieval.told import embed

if TYPE_CHECKING:  # a check asks here too, and imports nothing that trains
    from stilla.stages.place import Place

STAGE = "negatives"
VECTORS = "vectors"
TEXTS = 32
"""Texts of a forward."""
AT_ONCE = 2**24
"""Similarities held at a time: 64 MB."""
ROWS = 256
"""Queries of a block at most."""
VECTOR_SCHEMA = pa.schema([("key", pa.int64()), ("vector", pa.binary())])
SCHEMA = pa.schema([("key", pa.int64()), ("query", pa.string()), ("answer", pa.string()), ("places", pa.list_(pa.int64())),
                    ("documents", pa.list_(pa.string()))])


def problems(recipe: Recipe, task: Task) -> list[str]:
    """Why nothing can be found for this recipe."""
    mining = mining_of(task)
    if mining is None:
        return []
    found = []
    if recipe.teacher.api is not None and mining.section.by is None:
        found.append(f"{WHERE}: needs vectors of all queries and documents, and a teacher behind an address answers in "
                     "texts. Give a model as the teacher, or a file of its vectors")
    if not recipe.data.is_labelled:
        found.append(f"{WHERE}: is found in data.train, and there is none. Give queries with what answers them as data.train")
    if recipe.data.unlabelled is not None:
        found.append(f"{WHERE}: is found for queries with what answers them, and beside them stand unlabelled examples, "
                     "which would have no candidates. Leave one out")
    if recipe.teacher.train is not None and mining.form.kind != "answered" and mining.section.by is None:
        found.append("teacher.train: the teacher learns from labels before it finds what does not answer a query "
                     f"({WHERE}), and a folder for search says nothing of texts by themselves. Give a trained teacher")
    return found


def mining_of(task: Task) -> Mining | None:
    return task.mining if isinstance(task, Mines) else None


def mined(place: Place, teacher: Loaded) -> Place:
    """The place with what is found beside the queries of the training data, if the recipe wants that. The stage is done
    first, where it is not.

    Raises:
        RecipeError: it cannot be found for this recipe.
        DataError: there are too few documents.
        CompatibilityError: vectors that are not finite.
    """
    mining, task, folder = mining_of(place.task), place.task, place.folder.path / STAGE
    if mining is None or not isinstance(task, Mines):
        return place
    if wrong := problems(place.recipe, place.task):
        raise RecipeError(wrong[0])
    mining, finder = task.found_by(teacher)
    questions = mining.questions(place.splits["train"])
    search = Search(mining, questions, finder)
    inputs = search.inputs()
    if place.to_do(STAGE, inputs, folder, by_parts=True):
        with timed(place.folder.append_log, STAGE):
            search.write(folder, inputs)
        on_main(lambda: shutil.rmtree(folder / VECTORS, ignore_errors=True))
        on_main(lambda: place.folder.finish(STAGE, inputs, folder))
    found = told(Parts(folder, SCHEMA).table(), mining)
    train = mining.with_found(place.splits["train"], questions, found)
    splits = {**place.splits, "train": train}
    return replace(place, task=task.with_found(mining.learnt), splits=splits,
                   content=fingerprint.of_splits(to_learn_from(splits)))


def told(table: pa.Table, mining: Mining) -> dict[int, Sequence[int]]:
    """Of every row for which enough was found, the places of documents; says how many there are, and how many were not.

    Raises:
        DataError: there are none.
    """
    rows: Sequence[Sequence[int]] = table["places"].to_pylist()
    wanted, section = mining.section.mined, mining.section
    found = {row: places for row, places in enumerate(rows) if len(places) == wanted}
    left_out = len(rows) - len(found)
    why = (f"fewer than {wanted} documents are left that are no answers, not nearer than {section.below:g} of the answer, "
           f"and behind the first {section.after}")
    if not found:
        raise DataError(f"{WHERE}: for none of {counted(len(rows), 'query')} was enough found: {why}. Ask for "
                        "fewer (mined, after), or allow nearer ones (below)")
    less = f"; {left_out:,} left out, for which {why}" if left_out else ""
    say(f"{STAGE}: {counted(wanted, 'document')} beside each of {counted(len(found), 'query')}{less}")
    return found


@dataclass(frozen=True)
class Search:
    """Vectors of queries and documents, and what is nearest to what. `finder`: the teacher, or who looks in its place."""

    mining: Mining
    questions: Questions
    finder: Loaded

    def inputs(self) -> dict[str, Any]:
        """All that is found depends on."""
        asked = self.questions
        said = self.mining.section.model_dump(mode="json", exclude={"by"})  # the model itself is among them
        return {**said, "texts": digest([asked.queries, asked.documents]),
                "answers": digest([asked.asked.tolist(), asked.answers.tolist(), [sorted(one) for one in asked.others]]),
                "max_length": self.mining.max_length, "teacher": of_model(self.finder.model),
                "processor": of_processor(self.finder.processor),
                "vectors": None if self.mining.shape is None else asdict(self.mining.shape)}

    def write(self, folder: Path, stamp: Mapping[str, Any]) -> None:
        """Every process of a launched run calls this and writes its share."""
        self._write_vectors(Parts(folder / VECTORS, VECTOR_SCHEMA), stamp)
        found = _Among(self, Parts(folder / VECTORS, VECTOR_SCHEMA))
        size = max(1, min(ROWS, AT_ONCE // len(self.questions.documents)))
        blocks = [range(start, min(start + size, len(self.questions))) for start in range(0, len(self.questions), size)]
        Parts(folder, SCHEMA).make(blocks, found.rows, stamp, title=STAGE)

    def _write_vectors(self, parts: Parts, stamp: Mapping[str, Any]) -> None:
        asked, texts = self.questions, self.questions.texts

        def kind(number: int) -> Kind:
            return "query" if number < len(asked.queries) else "document"

        def begin(missing: int) -> None:
            say(f"{STAGE}: {self.mining.section.by or 'the teacher'} reads {counted(len(asked.queries), 'query')} and "
                f"{counted(len(asked.documents), 'document')}, {counted(missing, 'text')} in all that are not there yet")
            self.finder.model.to(processes().device)

        def rows_of(numbers: Sequence[int]) -> list[dict[str, Any]]:
            vectors = embed(self.finder, [texts[one] for one in numbers], [kind(one) for one in numbers],
                            self.mining.max_length)
            if not np.isfinite(vectors).all():
                raise CompatibilityError(f"{WHERE}: the vectors of {self.finder.source} are not finite, so that nothing is "
                                         "near to anything")
            return [{"key": one, "vector": vector.tobytes()}
                    for one, vector in zip(numbers, self.mining.as_compared(vectors), strict=True)]

        # texts of one length together: little is spent on padding
        order = np.argsort([-len(text) for text in texts], kind="stable").tolist()
        parts.make([order[start : start + TEXTS] for start in range(0, len(order), TEXTS)], rows_of, stamp, title=VECTORS,
                   begin=begin)


@dataclass(frozen=True)
class _Among:
    """What is nearest, by vectors that were written."""

    search: Search
    parts: Parts

    @cached_property
    def vectors(self) -> Float32[NDArray[Any], "texts width"]:
        """Of queries, then of documents; read file by file, so that they are there once."""
        whole = np.empty((0, 0), np.float32)
        for number in range(self.parts.settings()["parts"]):
            table = pq.read_table(self.parts.file(number))
            rows = np.stack([np.frombuffer(one, np.float32) for one in table["vector"].to_pylist()])
            if not len(whole):
                whole = np.empty((len(self.search.questions.texts), rows.shape[1]), np.float32)
            whole[table["key"].to_numpy()] = rows
        return whole

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """What is found for these rows, in the form of `SCHEMA`."""
        asked, count = self.search.questions, len(self.search.questions.queries)
        queries, answers = asked.asked[numbers], asked.answers[numbers]
        found = nearest(self.vectors[queries], self.vectors[count:], answers, [asked.others[one] for one in queries],
                        self.search.mining.section)
        return [{"key": number, "query": asked.queries[query], "answer": asked.documents[answer], "places": places.tolist(),
                 "documents": [asked.documents[place] for place in places]}
                for number, query, answer, places in zip(numbers, queries, answers, found, strict=True)]
