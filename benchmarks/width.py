"""Narrower layers: what measuring is worth over drawing at random, on all-MiniLM-L6-v2 and the 150 intents of clinc150.

    python -m benchmarks.width --data CLINC150 --limit 4000 --threads 1

The teacher is fine-tuned first, and kept in the folder of the runs. Each student keeps all layers and a part of their width,
by what was measured to matter or at random, and is then distilled for a few epochs by a recipe's defaults. The same command
again continues: what was trained is read.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed

from benchmarks.inputs import add_data_option, clinc150, minilm
from benchmarks.students import parser
from benchmarks.tables import markdown
from stilla import data, tasks
from stilla.data import from_all_over
from stilla.evaluate import Asked, examine
from stilla.export import save_student
from stilla.models.members import Units
from stilla.objectives import Labels, term
from stilla.objectives.base import Term
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.report import numbers
from stilla.runtime.quiet import quiet_libraries
from stilla.stages import narrowing
from stilla.stages.folder import RunFolder
from stilla.stages.starting import start_student, trained, transformer, whole_width
from stilla.stages.training import train
from stilla.students import Plan, by_width
from stilla.tasks.base import Loaded, Task
from stilla.tasks.shared.learning import objectives_for

WAYS: Mapping[str, Mapping[str, Any]] = {
    "neurons 0.67": {"ffn": 0.67}, "neurons 0.5": {"ffn": 0.5}, "neurons 0.25": {"ffn": 0.25},
    "heads and hidden state 0.67": {"heads": 0.67, "hidden": 0.67}, "all 0.67": {"ffn": 0.67, "heads": 0.67, "hidden": 0.67},
    "all 0.5": {"ffn": 0.5, "heads": 0.5, "hidden": 0.5},
}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/width", teacher_epochs=6.0, teacher_learning_rate=1e-4, epochs=3.0,
                  learning_rate=3e-4, seeds=1)
    made.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    made.add_argument("--rounds", type=int, nargs="+", default=[4])
    made.add_argument("--examples", type=int, nargs="+", default=[256])
    add_data_option(made)
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    with Bench(options) as bench:
        print(f"\nteacher: {bench.parameters(bench.teacher.model)}, {bench.accuracy(bench.teacher)} of the test data\n")
        rows = [bench.row(name, rounds, examples, measured) for name in options.ways for rounds in options.rounds
                for examples in options.examples for measured in (True, False)]
        print(markdown(["", "units", "parameters", "seconds to cut", "cut", "distilled"], [row for row in rows if row]))


class Bench:
    """One teacher, and students of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.recipe = self._recipe({"ffn": 0.5})
        self.splits = data.load(self.recipe.data, seed=self.recipe.seed)
        self.task: Task = tasks.find("text-classification").understand(self.recipe.data, self.splits).settled(
            self.recipe.teacher, self.recipe.student)
        self.folder = RunFolder(options.output)

    def __enter__(self) -> Bench:
        self.folder.open(overwrite=False)
        self.teacher = self._teacher()
        self.task = self.task.adapted_to(self.teacher)
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.close()

    def row(self, name: str, rounds: int, examples: int, measured: bool) -> list[str] | None:
        """Of a student: how large it is, and its accuracy as it was cut and after distillation."""
        label = f"{name}, {'measured' if measured else 'at random'}, {rounds} rounds, {examples} examples"
        if not measured and (rounds, examples) != (self.options.rounds[0], self.options.examples[0]):
            return None
        kept = self.folder.path / "rows" / f"{label.replace(' ', '-').replace(',', '')}.json"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(self._measured(label, WAYS[name], rounds, examples, measured)), encoding="utf-8")
        found: list[str] = json.loads(kept.read_text(encoding="utf-8"))
        return [name, *found]

    def _measured(self, label: str, width: Mapping[str, Any], rounds: int, examples: int, measured: bool) -> list[str]:
        recipe = self._recipe({**width, "rounds": rounds, "examples": examples})
        spec = recipe.student
        assert spec.width is not None
        set_seed(recipe.seed)
        whole = transformer(whole_width(spec, self.task, self.teacher, recipe.teacher))
        some = self.task.prepare(from_all_over(self.splits["train"], examples), self.teacher.processor, None, training=False)
        started = time.process_time()
        cut = narrowing.measure(Plan(whole, spec.width), self.task, some) if measured \
            else by_width(whole, spec.width, at_random)
        seconds = time.process_time() - started
        student, loaded = start_student(spec, self.task, self.teacher, recipe.teacher, cut=cut)
        before = self.accuracy(loaded)
        stage = recipe.distill[0]
        terms = [term(one) for one in objectives_for(self.task.row_classes())]
        train(label, student, self.teacher.model, terms, stage, task=self.task, folder=self.folder, seed=recipe.seed,
              train_data=self.task.prepare(self.splits["train"], loaded.processor, self.teacher.processor, training=True,
                                           seed=recipe.seed),
              validation_data=self.task.prepare(self.splits["validation"], loaded.processor, self.teacher.processor,
                                                training=False))
        units = f"measured, {rounds} rounds of {examples}" if measured else "at random"
        return [units, self.parameters(student.model), f"{seconds:.0f}", before, self.accuracy(loaded)]

    def accuracy(self, model: Loaded) -> str:
        """On the test data."""
        prepared = self.task.prepare(self.splits["test"], model.processor, None, training=False)
        exam = self.task.exam()
        said = examine(exam, {"it": Asked(model.model)}, prepared, batch_size=64, title="test")["it"]
        metric = next(one for one in exam.metrics() if one.name == "accuracy")
        return numbers.quality("accuracy", metric.compute(said.given, said.references))

    @staticmethod
    def parameters(model: nn.Module) -> str:
        return f"{sum(one.numel() for one in model.parameters()) / 1e6:.1f} M"

    def _teacher(self) -> Loaded:
        source, path = self.recipe.teacher, self.folder.teacher
        if not (path / "model.safetensors").exists():
            assert source.train is not None
            set_seed(self.recipe.seed)
            start = self.task.load(source, labelled=False)
            train("teacher", start.model, None, [Term(Labels(), name="labels")], source.train, task=self.task,
                  folder=self.folder, seed=self.recipe.seed,
                  train_data=self.task.prepare(self.splits["train"], start.processor, None, training=True),
                  validation_data=self.task.prepare(self.splits["validation"], start.processor, None, training=False))
            save_student(start.model, start.processor, path)
        return self.task.load(trained(source, path), labelled=True)

    def _recipe(self, width: Mapping[str, Any]) -> Recipe:
        options = self.options
        training = {"trainer": {"save_strategy": "no", "eval_strategy": "no"}}
        return from_options({
            "task": "text-classification", "output": str(options.output), "student": {"width": dict(width)},
            "data": {"train": str(clinc150(options.data)), "text": "text", "label": "intent", "limit": options.limit},
            "teacher": {"model": str(minilm()), "train": {
                "epochs": options.teacher_epochs, "learning_rate": options.teacher_learning_rate, **training}},
            "distill": {"epochs": options.epochs, "learning_rate": options.learning_rate, **training},
        })


def at_random(model: nn.Module, units: Sequence[Units]) -> dict[str, Tensor]:
    """In every round other ones."""
    return {one.name: torch.rand(one.count, dtype=torch.float64) for one in units}


if __name__ == "__main__":
    main()
