"""Teachers of several tasks that read what their students do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import stilla
from stilla.errors import DataError, RecipeError
from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.tasks.several.processors import Processors
from stilla.tasks.several.sections import SeveralData
from stilla.tasks.several.several import Several
from tests import tiny
from tests.tasks.several import setting


def with_hints(folder: Path) -> dict[str, Any]:
    """The parts, with the topic's words and the document of each example beside what is read."""
    parts = setting.parts(folder)
    for file in map(Path, parts["topics"]["data"].values()):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({**row, "hint": " ".join(tiny.TOPICS[row["topic"]][:2])}) + "\n" for row in rows))
    for file in map(Path, parts["words"]["data"].values()):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({**row, "document": ["that", "that", *row["tokens"]]}) + "\n" for row in rows))
    parts["topics"]["data"] |= {"text": "text", "label": "topic"}
    parts["words"]["data"] |= {"tokens": "tokens", "tags": "tags"}
    parts["topics"]["teacher_data"] = {"text": "hint"}
    parts["words"]["teacher_data"] = {"tokens": "document", "max_length": 60}
    return parts


def split_of(parts: dict[str, Any]) -> Any:
    from stilla import data

    section = SeveralData.model_validate({"parts": parts})
    return section, data.load(section, seed=0)


def whole(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[one] for one in range(len(prepared))])


@pytest.mark.slow
def test_every_teacher_reads_its_own(tmp_path: Path) -> None:
    section, splits = split_of(with_hints(tmp_path))
    task = Several.understand(section, splits)
    tokenizer = Processors(dict.fromkeys(section.parts, tiny.tokenizer()))
    batch = whole(task.prepare(splits["validation"], tokenizer, tokenizer, training=False))
    alone = whole(task.of_teacher().prepare(splits["validation"], tokenizer, None, training=False))
    plain = {name: {key: value for key, value in one.items() if key != "teacher_data"}
             for name, one in with_hints(tmp_path / "again").items()}
    section, others = split_of(plain)
    same = whole(Several.understand(section, others).prepare(others["validation"], tokenizer, tokenizer, training=False))
    for name, part in task.parts_of(batch).items():
        own = task.parts_of(alone)[name].student["input_ids"]
        assert torch.equal(part.teacher["input_ids"], own)
        assert torch.equal(part.student["input_ids"], task.parts_of(same)[name].student["input_ids"])
        assert not torch.equal(part.student["input_ids"], own)


@pytest.mark.slow
def test_what_is_not_there_is_named_by_its_part(tmp_path: Path) -> None:
    parts = with_hints(tmp_path)
    parts["topics"]["teacher_data"] = {"text": "hints"}
    with pytest.raises(DataError, match=r"data\.parts\.topics\.teacher_data: .*there is no column 'hints'"):
        Several.understand(*split_of(parts))
    task = Several.understand(*split_of(with_hints(tmp_path / "other")))
    for wrong in (lambda: task.taught_from({"text": ("hint",)}, {}), lambda: task.taught_at_length(9)):
        with pytest.raises(DataError, match=r"teacher\.data: every task has data of its own"):
            wrong()
    assert task.taught_from({}, {}) is task


@pytest.mark.slow
def test_a_run_whose_teachers_read_their_own(tmp_path: Path) -> None:
    recipe = setting.recipe(tmp_path, evaluate={"resamples": 100, "speed": False},
                            distill={"max_steps": 4, "precision": "float32"}, cache="dense",
                            allow_weak_teacher=True)
    recipe["data"]["parts"] = with_hints(tmp_path / "told")
    run = stilla.distill(recipe)
    assert run.scores.teacher["topics/accuracy"] == 1.0  # the hint says the topic
    assert run.scores.student["topics/accuracy"] < 1.0
    recipe["data"]["parts"]["topics"]["teacher_data"] = {}
    with pytest.raises(RecipeError, match="teacher_data"):
        stilla.distill(recipe)
