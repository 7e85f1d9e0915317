"""As many processes as a launcher was asked for, or a refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stilla.errors import RecipeError
from stilla.runtime import launching
from stilla.runtime.launching import Wish, _launched, _of_accelerate, _of_variables, refuse_another_world

CONFIG = ("compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nuse_cpu: true\nnum_processes: 2\n"
          "num_machines: 1\nmachine_rank: 0\nmixed_precision: 'no'\ndebug: false\n")
BY_ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(("line", "arguments"), [
    ("python /bin/accelerate launch --cpu x.py", "--cpu x.py"),
    ("/bin/accelerate-launch --cpu x.py", "--cpu x.py"),
    ("python -m accelerate.commands.launch --cpu x.py", "--cpu x.py"),
    ("python -m accelerate.commands.accelerate_cli launch x.py", "x.py"),
    ("accelerate config", None), ("bash", None), ("python train.py accelerate launch", None), ("", None),
])
def test_a_launcher_is_known_by_its_command_line(line: str, arguments: str | None) -> None:
    found = _launched(line.split())
    assert (None if found is None else " ".join(found)) == arguments


@pytest.mark.parametrize(("asked", "number"), [
    ("--cpu --num_processes 2 -m stilla run r.yaml", 2), ("--num_processes=3 x.py", 3), ("--num-processes 4 x.py", 4),
    ("--cpu x.py --num_processes 2", None), ("--cpu --num_processes 1 x.py", 1), ("--no-such", None),
])
def test_what_accelerate_was_asked_for_is_read_as_it_reads_it(asked: str, number: int | None) -> None:
    wish = _of_accelerate(BY_ACCELERATE, [["bash"], ["python", "/bin/accelerate", "launch", *asked.split()]])
    assert wish == (None if number is None else Wish(number, "accelerate launch"))


def test_what_accelerates_config_says_counts(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    wish = _of_accelerate(BY_ACCELERATE, [["accelerate", "launch", "--config_file", str(config), "x.py"]])
    assert wish == Wish(2, "accelerate launch")


def test_without_a_launcher_there_is_no_wish() -> None:
    assert _of_accelerate({}, [["accelerate", "launch", "--num_processes", "2", "x.py"]]) is None
    assert _of_variables({"WORLD_SIZE": "", "SLURM_NTASKS": "4"}) == []


def test_a_launcher_that_cannot_be_seen_shows_by_its_port() -> None:
    assert _of_accelerate(BY_ACCELERATE, []) == Wish(None, "accelerate launch")
    assert _of_accelerate({"ACCELERATE_MIXED_PRECISION": "no"}, []) is None
    assert _of_accelerate({**BY_ACCELERATE, "WORLD_SIZE": "2"}, []) is None


@pytest.mark.parametrize(("environment", "number", "said"), [
    ({"WORLD_SIZE": "2"}, 1, "WORLD_SIZE=2 says that 2 processes work together, and one is here.*unset WORLD_SIZE"),
    ({"SLURM_STEP_NUM_TASKS": "4"}, 1, "SLURM_STEP_NUM_TASKS=4"), ({"OMPI_COMM_WORLD_SIZE": "8"}, 4, "4 are here"),
    ({"WORLD_SIZE": "2"}, 2, None), ({"SLURM_STEP_NUM_TASKS": "2", "WORLD_SIZE": "8"}, 8, None),
    ({"WORLD_SIZE": "1"}, 1, None),
])
def test_another_world_than_was_wished_is_refused(
    environment: Mapping[str, str], number: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "os", type("os", (), {"environ": environment}))
    if said is None:
        refuse_another_world(number)
    else:
        with pytest.raises(RecipeError, match=said):
            refuse_another_world(number)


# --- real launches ---

PROGRAM = """
import sys
from stilla.errors import StillaError
from stilla.runtime.processes import in_words
try:
    print(in_words())
except StillaError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def launched(tmp_path: Path):
    """Runs a program that says in how many processes it works, through a launcher."""
    (tmp_path / "program.py").write_text(PROGRAM)
    left_out = {"MASTER_ADDR", "MASTER_PORT", "ACCELERATE_USE_CPU", "WORLD_SIZE", "RANK", "LOCAL_RANK"}
    clean = {name: value for name, value in os.environ.items() if name not in left_out}

    def launched(*launcher: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *launcher, "program.py"], cwd=tmp_path, capture_output=True, text=True,
                              timeout=300, check=False, env={**clean, "OMP_NUM_THREADS": "1", **environment})

    return launched


ACCELERATE = ("-m", "accelerate.commands.launch")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--cpu", "--num_processes", "2"), ("--cpu", "--num_processes=3")])
def test_one_process_in_the_place_of_several_is_refused(launched, arguments) -> None:
    done = launched(*ACCELERATE, *arguments)
    assert done.returncode != 0
    assert f"asked for {arguments[-1][-1]} processes, and one is here" in done.stderr
    assert "torchrun --nproc_per_node" in done.stderr


@pytest.mark.slow
def test_a_config_that_wishes_for_several_is_refused(launched, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(CONFIG)
    done = launched(*ACCELERATE, "--config_file", "two.yaml")
    assert "asked for 2 processes, and one is here" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "environment", "said"), [
    ((), {}, "one process, on the CPU with 1 thread"),
    ((*ACCELERATE, "--cpu", "--num_processes", "1"), {}, "one process, on the CPU with 1 thread"),
    ((*ACCELERATE, "--cpu", "--num_processes", "1"), {"MASTER_PORT": "29555"}, "one process, on the CPU"),
    (("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"), {},
     "2 processes (gloo), on the CPU with 1 thread each"),
    ((*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"), {"ACCELERATE_USE_CPU": "true"},
     "2 processes (gloo), on the CPU with 1 thread each"),
])
def test_what_was_wished_for_works_and_is_said(launched, launcher, environment, said) -> None:
    done = launched(*launcher, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(said) == (2 if said.startswith("2") else 1)


@pytest.mark.slow
def test_a_number_without_a_launcher_is_refused(launched) -> None:
    done = launched(SLURM_STEP_NUM_TASKS="2")
    assert done.returncode != 0
    assert "SLURM_STEP_NUM_TASKS=2" in done.stderr
