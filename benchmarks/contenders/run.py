"""Stilla as a run uses it: data, task, teacher, student, and the run's own training with its log, bar and guard.

Left out is what is paid once per run and not per step: checkpoints (five in a run of any length) and evaluation.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import set_seed

from benchmarks.contenders.common import (
    HIDDEN,
    LABELS,
    LEARNING_RATE,
    LOGITS,
    TEMPERATURE,
    WARMUP,
    WEIGHT_DECAY,
    Clock,
    Setting,
    contend,
)
from stilla import data, tasks
from stilla.objectives import term
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.runtime.quiet import quiet_libraries
from stilla.stages.folder import RunFolder
from stilla.stages.starting import start_student
from stilla.stages.training import train


def distill(setting: Setting, clock: Clock) -> nn.Module:
    quiet_libraries()
    recipe = recipe_for(setting)
    stage = recipe.distill[0]
    splits = data.load(recipe.data, seed=recipe.seed)
    task = tasks.find(recipe.task).understand(recipe.data, splits)
    teacher = task.load(recipe.teacher, labelled=True)
    task = task.adapted_to(teacher)
    set_seed(recipe.seed)
    student, loaded = start_student(recipe.student, task, teacher)
    prepared = task.prepare(splits["train"], loaded.processor, teacher.processor, training=True, seed=recipe.seed)
    validation = task.prepare(splits["validation"], loaded.processor, teacher.processor, training=False)

    def collate(examples: Any) -> Any:
        # the trainer looks at a single example before it starts; every step has more
        if len(examples) > 1:
            clock.begin_step()
        return prepared.collate(examples)

    folder = RunFolder(Path(recipe.output))
    folder.open(overwrite=True)
    terms = [term(spec) for spec in stage.objectives or ()]
    train("student", student, teacher.model, terms, stage, task=task, train_data=replace(prepared, collate=collate),
          validation_data=validation, folder=folder, seed=recipe.seed)
    return student.model


def recipe_for(setting: Setting) -> Recipe:
    objectives: list[dict[str, Any]] = [
        {"kind": "labels", "weight": LABELS}, {"kind": "logits", "weight": LOGITS, "temperature": TEMPERATURE}]
    if setting.hidden:
        objectives.append({"kind": "hidden", "weight": HIDDEN, "distance": "mse"})
    return from_options({
        "task": "text-classification", "data": {"train": setting.data}, "seed": setting.seed,
        "teacher": {"model": str(Path(setting.folder) / "teacher")}, "student": {"layers": 3},
        "distill": {
            "max_steps": setting.steps, "batch_size": setting.batch_size, "learning_rate": LEARNING_RATE,
            "warmup": WARMUP, "weight_decay": WEIGHT_DECAY, "precision": setting.precision, "objectives": objectives,
            "dropout": "model",  # as the others train
            # a run logs a hundred times, at every tenth step if it has a thousand
            "trainer": {"save_strategy": "no", "eval_strategy": "no", "logging_steps": 10, "use_cpu": True},
        },
        "output": str(Path(setting.result).with_suffix(".run")),
    })


if __name__ == "__main__":
    contend(distill)
