"""Two machines with one folder: a machine that ends and is started again changes nothing of what comes out.

The machines are network namespaces where those may be made (as root on Linux), so that each has an address of its own; else
two launchers on this one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch
from ruamel.yaml import YAML

from stilla.cache import Store
from stilla.scores import Scores
from tests import tiny
from tests.markdown import ROOT, commands
from tests.test_launch import environment, run

pytestmark = pytest.mark.slow

STEPS, SAVED = 360, 12
LINK, ADDRESSES, PORT = "stilla0", ("10.231.7.1", "10.231.7.2"), 29544
PAGE = ROOT / "docs" / "processes.md"
STARTED: list[subprocess.Popen[str]] = []


@dataclass(frozen=True)
class Machine:
    """before: what a command is started by, to run there. address: where others reach it. link: by which it reaches them."""

    before: Sequence[str]
    address: str
    link: str

    def named(self, host: str) -> list[str]:
        """A namespace has an address and no name, by which torchrun would know where the others meet."""
        return ["--local_addr", self.address, "--rdzv_conf", f"is_host={self.address == host}"] if self.before else []

    def start(self, recipe: Path, host: str, log: Path) -> subprocess.Popen[str]:
        """The command of docs/processes.md, which is the same on every machine."""
        variable, _, *words = shlex.split(next(one for one in commands(PAGE) if "torchrun --nnodes" in one))
        name, _, value = variable.partition("=")
        words[words.index("--nproc_per_node") + 1] = "1"
        words[words.index("--rdzv_endpoint") + 1] = f"{host}:{PORT}"
        words[-1] = str(recipe)
        begin = words.index("-m")
        command = [*self.before, sys.executable, "-m", "torch.distributed.run", *words[:begin], *self.named(host),
                   *words[begin:]]
        with log.open("a") as output:
            started = subprocess.Popen(command, stdout=output, stderr=output, text=True, env={
                **environment(), "GLOO_SOCKET_IFNAME": self.link, name: value})
        STARTED.append(started)
        return started


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    names = [f"stilla-{os.getpid()}-{number}" for number in range(2)]
    try:
        yield _namespaces(names) or (Machine((), "127.0.0.1", "lo"),) * 2
    finally:
        for one in STARTED:
            if one.poll() is None:
                lost(one)
        for name in names if shutil.which("ip") else ():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _namespaces(names: Sequence[str]) -> tuple[Machine, Machine] | None:
    """Two with a cable between them; None where that is not allowed."""
    if shutil.which("ip") is None:
        return None
    one, other = names
    commands = [f"netns add {one}", f"netns add {other}",
                f"link add {LINK} netns {one} type veth peer name {LINK} netns {other}"]
    for name, address in zip(names, ADDRESSES, strict=True):
        commands += [f"-n {name} address add {address}/24 dev {LINK}", f"-n {name} link set {LINK} up",
                     f"-n {name} link set lo up"]
    if any(subprocess.run(["ip", *one.split()], capture_output=True, check=False).returncode for one in commands):
        return None
    return tuple(Machine(("ip", "netns", "exec", name), address, LINK)
                 for name, address in zip(names, ADDRESSES, strict=True))  # type: ignore[return-value]


def written(folder: Path) -> Path:
    """A student with dropout, taught from a cache that both processes fill."""
    training = {"max_steps": STEPS, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32",
                "trainer": {"save_steps": SAVED, "eval_strategy": "no"}}
    folder.mkdir()
    recipe = tiny.recipe(folder, teacher=tiny.bert(folder / "teacher"), distill=training, allow_weak_teacher=True,
                         cache={"form": "dense", "path": str(folder / "cache")}, evaluate={"resamples": 100, "speed": False})
    recipe["data"]["augment"] = "none"
    path = folder / "recipe.yaml"
    with path.open("w") as file:
        YAML().dump(recipe, file)
    return path


def reached(folder: Path, step: int, seconds: float = 200) -> None:
    """Wait until there is a checkpoint of at least this step."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        there = [int(path.name.rpartition("-")[2]) for path in (folder / "run" / "checkpoints" / "student").glob("*-*")]
        if max(there, default=0) >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step}")


def lost(machine: subprocess.Popen[str]) -> None:
    """The power goes off."""
    for process in [*psutil.Process(machine.pid).children(recursive=True), psutil.Process(machine.pid)]:
        process.kill()
    machine.wait()


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], float, set[bytes]]:
    """The student's weights, its score, and what the cache knows."""
    weights = safetensors.torch.load_file(folder / "run" / "student" / "model.safetensors")
    known = {bytes(key) for shard in Store(folder / "cache").shards for key in shard.keys}
    return weights, Scores.load(folder / "run" / "scores.json").student["accuracy"], known


def test_a_machine_that_is_lost_and_started_again_changes_nothing(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    quiet = written(tmp_path / "quiet")
    run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "stilla", "run", str(quiet))

    folder, (first, second) = tmp_path / "lost", machines
    recipe, host = written(folder), first.address
    logs = folder / "first.log", folder / "second.log"
    one = first.start(recipe, host, logs[0])
    time.sleep(2)  # on one machine, the first to come is the host of the others
    other = second.start(recipe, host, logs[1])
    reached(folder, 5 * SAVED)
    lost(other)
    other = second.start(recipe, host, logs[1])  # the first waits for it
    reached(folder, 15 * SAVED)
    lost(one)  # where they meet: nobody can wait
    assert other.wait(timeout=200) != 0
    one = first.start(recipe, host, logs[0])
    time.sleep(2)
    other = second.start(recipe, host, logs[1])
    assert [process.wait(timeout=300) for process in (one, other)] == [0, 0], logs[0].read_text()[-3000:]

    said = "".join(log.read_text() for log in logs)
    assert "another process of this run has ended" in said
    continued = [int(step) for step in re.findall(r"student: continues after step (\d+)", said)]
    assert len(continued) == 2
    assert all(0 < step < STEPS for step in continued)
    (weights, score, known), (alone, expected, there) = outcome(folder), outcome(quiet.parent)
    assert weights.keys() == alone.keys()
    assert all(torch.equal(weights[name], alone[name]) for name in weights)
    assert score == expected
    assert known == there
    assert len(known) == 120
