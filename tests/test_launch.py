from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import safetensors.torch
from ruamel.yaml import YAML

from stilla.scores import Scores
from tests import markdown, tiny
from tests.equivalence.sharded import zero

pytestmark = pytest.mark.slow

SGD = {"optim": "sgd", "save_strategy": "epoch"}  # Adam turns rounding of a zero gradient into a step of full size


def written(folder: Path, *, batch_size: int, epochs: int = 2, unlabelled: bool = False, **trainer: Any) -> Path:
    training = {"epochs": epochs, "learning_rate": 0.1, "precision": "float32", "batch_size": batch_size,
                "trainer": {**SGD, **trainer}}
    plain = tiny.recipe(folder, distill=training, allow_weak_teacher=True,
                        teacher={"model": tiny.bert(folder / "calm", dropout=0.0), "train": training},
                        student={"config": {"num_hidden_layers": 2, "hidden_size": 16}})
    if unlabelled:
        pool = tiny.texts(folder / "pool", train=101, seed=5)["train"]
        plain["data"] = {**plain["data"], "unlabelled": {"examples": pool, "near": 0.9}}
        plain["distill"] = {**training, "unlabelled": {"linear": [0.2, 0.9]}}
    path = folder / "recipe.yaml"
    with path.open("w") as file:
        YAML().dump(plain, file)
    return path


def environment(*, cpu: bool = True) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **({"ACCELERATE_USE_CPU": "true"} if cpu else {})}


def run(*command: str, cpu: bool = True, seconds: int = 400) -> str:
    """What it says, if all goes well."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=seconds, check=False,
                          env=environment(cpu=cpu))
    assert done.returncode == 0, done.stderr.partition("torch.distributed.elastic")[0][-3000:]
    return done.stderr


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def largest_difference(one: Path, other: Path) -> float:
    a, b = (safetensors.torch.load_file(path / "model.safetensors") for path in (one, other))
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_a_run_of_two_processes_equals_a_run_of_one(unlabelled: bool, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                "--main_process_port", "0"]
    for name, command, size in (("one", [sys.executable], 16), ("two", launcher, 8)):
        (tmp_path / name).mkdir()
        recipe = written(tmp_path / name, batch_size=size, unlabelled=unlabelled)
        done = subprocess.run([*command, "-m", "stilla", "run", str(recipe)], capture_output=True, text=True, timeout=400,
                              check=False, env=environment())
        assert done.returncode == 0, done.stderr[-3000:]
    for role in ("teacher", "student", "baseline"):
        assert largest_difference(*(tmp_path / name / "run" / role for name in ("one", "two"))) < 2e-5, role
    one, two = (Scores.load(tmp_path / name / "run" / "scores.json") for name in ("one", "two"))
    assert one.student["accuracy"] == two.student["accuracy"]
    assert one.learnt == two.learnt
    assert bool(one.learnt) == unlabelled


PROGRAMS = {"torchrun": ["-m", "torch.distributed.run"], "accelerate": ["-m", "accelerate.commands.accelerate_cli"]}
PAGE = markdown.ROOT / "docs" / "processes.md"
ON_ONE_MACHINE = [one for one in markdown.commands(PAGE) if one.split()[0] in PROGRAMS and "--num_machines" not in one]


def test_the_page_has_commands_of_both_launchers() -> None:
    assert {one.split()[0] for one in ON_ONE_MACHINE} == PROGRAMS.keys()


@pytest.mark.parametrize("command", ON_ONE_MACHINE)
def test_the_commands_of_the_page_start_several_processes(command: str, tmp_path: Path) -> None:
    """As they stand there, with two processes in the place of eight."""
    recipe = written(tmp_path, batch_size=8, epochs=1)
    program, *words = shlex.split(command.replace(" 8 ", " 2 "))
    assert words[-1] == "recipe.yaml"
    if program == "accelerate":
        words[1:1] = ["--main_process_port", "0"]  # a free one
    done = subprocess.run([sys.executable, *PROGRAMS[program], *words[:-1], str(recipe), "data.augment=none"],
                          capture_output=True, text=True, timeout=400, check=False, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert "running in 2 processes (gloo), on the CPU with 1 thread each" in done.stderr


def test_a_run_goes_on_in_another_number_of_processes_in_steps_as_large_or_not_at_all(tmp_path: Path) -> None:
    """Two processes end while the student is trained; one goes on."""
    for name in ("alone", "two"):
        (tmp_path / name).mkdir()
    alone, folder = (written(tmp_path / name, batch_size=size) for name, size in (("alone", 16), ("two", 8)))
    changed = ["distill.epochs=12", "distill.trainer.save_strategy=steps", "distill.trainer.save_steps=2"]
    run("-m", "stilla", "run", str(alone), *changed)

    with (tmp_path / "log").open("w") as log:
        two = subprocess.Popen([sys.executable, *TORCHRUN, "-m", "stilla", "run", str(folder), *changed], stdout=log,
                               stderr=log, env=environment())
    checkpoints, deadline = folder.parent / "run" / "checkpoints" / "student", time.monotonic() + 200
    while len(list(checkpoints.glob("*-*"))) < 2 and time.monotonic() < deadline:  # the first of them is whole
        time.sleep(0.02)
    for process in [*psutil.Process(two.pid).children(recursive=True), psutil.Process(two.pid)]:
        process.kill()
    two.wait()

    same = [sys.executable, "-m", "stilla", "run", str(folder), *changed]
    done = subprocess.run(same, capture_output=True, text=True, timeout=200, check=False, env=environment())
    assert done.returncode == 2
    assert "teacher.train: 16 examples a step in 2 processes -> 8" in done.stderr
    larger = ["teacher.train.batch_size=16", "distill.batch_size=16"]
    assert "student: continues after step" in run("-m", "stilla", "run", str(folder), *changed, *larger)
    for role in ("teacher", "student", "baseline"):
        assert largest_difference(*(path.parent / "run" / role for path in (alone, folder))) < 5e-5, role


@pytest.mark.parametrize("how", ["fsdp", pytest.param("deepspeed", marks=pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"))])
def test_a_run_whose_weights_are_spread_equals_a_run_of_one(how: str, tmp_path: Path) -> None:
    spread: dict[str, Any] = {"fsdp": True} if how == "fsdp" else {"deepspeed": zero(3)}
    for name, size, trainer in (("one", 16, {}), ("two", 8, spread)):
        (tmp_path / name).mkdir()
        recipe = str(written(tmp_path / name, batch_size=size, **trainer))
        program = ("-m", "tests.equivalence.sharded", recipe, "run") if name == "two" and how == "fsdp" else (
            "-m", "stilla", "run", recipe)
        run(*(TORCHRUN if name == "two" else ()), *program, cpu=how == "fsdp")
    for role in ("teacher", "student", "baseline"):
        assert largest_difference(*(tmp_path / name / "run" / role for name in ("one", "two"))) < 2e-5, role
    one, two = (Scores.load(tmp_path / name / "run" / "scores.json") for name in ("one", "two"))
    assert one.student["accuracy"] == two.student["accuracy"]


def test_a_run_that_would_not_spread_its_weights_is_refused(tmp_path: Path) -> None:
    recipe = str(written(tmp_path, batch_size=8, fsdp=True))
    done = subprocess.run([sys.executable, *TORCHRUN, "-m", "stilla", "run", recipe], capture_output=True, text=True,
                          timeout=200, check=False, env=environment())
    assert done.returncode != 0
    said = "accelerate spreads weights over accelerators only"
    assert done.stderr.count(said) == 2  # of the teacher and of the student
    assert "[rank0]" not in done.stderr  # no traceback


def test_an_error_of_the_main_process_ends_every_process(tmp_path: Path) -> None:
    recipe = written(tmp_path, batch_size=8)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
               "--main_process_port", "0", "-m", "stilla", "run", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment())
    assert done.returncode != 0
    assert done.stderr.count("no run of Stilla") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_prints_the_command_that_continues(tmp_path: Path, number: int) -> None:
    recipe = written(tmp_path, batch_size=4, epochs=40)
    command = [sys.executable, "-m", "stilla", "run", str(recipe), "evaluate.baseline=false"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 200
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130 if number == signal.SIGINT else process.returncode in (130, 143)
    assert "stilla run" in said
    assert "evaluate.baseline=false" in said
    assert list((tmp_path / "run" / "checkpoints" / "teacher").glob("checkpoint-*"))
