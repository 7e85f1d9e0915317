"""Whole runs by the command line on the device: teacher, cache, student, measures and export, then in several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests import tiny

from benchmarks.gpu.found import LeftOutError, Notebook
from benchmarks.gpu.setting import Setting, need
from stilla.scores import Scores

SECONDS = 150
"""For one command; the slowest takes a third of it on two cores."""
STEPS: dict[str, Any] = {"batch_size": 8, "trainer": {"save_strategy": "epoch"}}


def ask(where: Setting, notebook: Notebook) -> None:
    notebook.check("stilla run: teacher, cached answers, student, measures", partial(_alone, where))
    notebook.check("the same command again skips what is finished", partial(_again, where))
    notebook.check("ONNX and int8 of the student answer as it does", partial(_exported, where))
    notebook.check("torchrun: a process for every GPU equals one process", partial(_together, where))
    notebook.check("torchrun: weights spread by FSDP2 equal one process", partial(_spread, where))


def _alone(where: Setting) -> str:
    recipe = _recipe(where, "one", batch_size=16)
    said = _stilla([], "run", recipe, "evaluate.speed=true", "cache.form=dense")
    scores = _scores(recipe)
    quality = scores.student["accuracy"]
    assert quality > 0.6, f"accuracy {quality} of three classes: the student has not learnt"
    place = next(line for line in said.splitlines() if "running in one process" in line)
    assert ("GPU" in place) == where.on_gpu, place
    assert (recipe.parent / "run" / "cache").is_dir()
    return f"accuracy {quality:.3f}; {place.strip()}"


def _again(where: Setting) -> str:
    said = _stilla([], "run", _place(where, "one"), "evaluate.speed=true", "cache.form=dense")
    skipped = [line.strip() for line in said.splitlines() if "skipped" in line or "finished" in line]
    assert skipped, said[-600:]
    return "; ".join(skipped)


def _exported(where: Setting) -> str:
    need("onnx", "onnxruntime", "onnxscript")
    recipe = _place(where, "one")
    _stilla([], "run", recipe, "evaluate.speed=true", "cache.form=dense", "export=[onnx,int8]")
    found = {name: _scores(recipe).subjects[name]["accuracy"] for name in ("student", "onnx", "int8")}
    assert abs(found["onnx"] - found["student"]) < 0.02, f"accuracy: {found}"
    return "accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items())


def _together(where: Setting) -> str:
    number = torch.accelerator.device_count() if where.on_gpu else 2
    one = _recipe(where, f"beside {number}", batch_size=8 * number)
    two = _recipe(where, f"{number} processes", batch_size=8)
    _stilla([], "run", one)
    said = _stilla(_torchrun(number), "run", two)
    place = next(line for line in said.splitlines() if "running in" in line)
    return f"{place.strip()}; {_difference(one, two)}"


def _spread(where: Setting) -> str:
    number = torch.accelerator.device_count() if where.on_gpu else 0
    if number < 2:
        raise LeftOutError("needs two GPUs")
    one, two = (_recipe(where, name, batch_size=size) for name, size in (("beside spread", 16), ("spread", 8)))
    _stilla([], "run", one)
    _stilla(_torchrun(2), "run", two, "distill.trainer.fsdp=true")
    return _difference(one, two)


def _recipe(where: Setting, name: str, *, batch_size: int) -> Path:
    """Without dropout, in float32 and with SGD, which does not turn rounding into steps: what can be compared."""
    folder = where.folder / name
    folder.mkdir(parents=True)
    training = {"epochs": 2, "learning_rate": 0.1, "precision": "float32", "batch_size": batch_size,
                "trainer": {"optim": "sgd", "save_strategy": "epoch"}}
    adam = {"epochs": 8, "batch_size": 8, "learning_rate": 5e-3}  # precision: what the device computes natively
    given = tiny.recipe(folder, teacher={"model": tiny.bert(folder / "calm", dropout=0.0), "train": training},
                        distill=training, allow_weak_teacher=True, student={"layers": 2})
    if name == "one":
        given |= {"teacher": {**given["teacher"], "train": adam}, "distill": {**adam, "learning_rate": 2e-3}}
    given["data"]["augment"] = "none"
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(given))  # which YAML is
    return path


def _place(where: Setting, name: str) -> Path:
    path = where.folder / name / "recipe.yaml"
    if not path.is_file():
        raise LeftOutError("the run before it did not begin")
    return path


def _torchrun(number: int) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]


def _stilla(launcher: list[str], *arguments: object) -> str:
    """What it said.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run([sys.executable, *launcher, "-m", "stilla", *map(str, arguments)], capture_output=True, text=True,
                          timeout=SECONDS, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stderr


def _scores(recipe: Path) -> Scores:
    return Scores.load(recipe.parent / "run" / "scores.json")


def _difference(one: Path, two: Path) -> str:
    from safetensors.torch import load_file

    far = 0.0
    for role in ("teacher", "student", "baseline"):
        a, b = (load_file(path.parent / "run" / role / "model.safetensors") for path in (one, two))
        far = max([far, *((a[name] - b[name]).abs().max().item() for name in a)])
    assert far < 1e-4, f"weights differ by {far:.1e}"
    return f"weights differ by {far:.1e}"
