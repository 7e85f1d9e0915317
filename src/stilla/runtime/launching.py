"""How many processes a launcher was asked for, and whether there are as many: else each would be a run of its own.

accelerate 1.15 starts a single process, without a word, where it is asked for several on processors (`accelerate launch
--cpu --num_processes 2`, or a config that says so) or on a machine with one GPU: only MPI would start the others. It
tells that process nothing of the number, so its own command line is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from stilla.errors import RecipeError

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Where launchers say how many processes they have started: torchrun, MPI, srun."""


@dataclass(frozen=True)
class Wish:
    """`number`: of processes; None is several. `by`: the launcher, or the variable that says it."""

    number: int | None
    by: str


def refuse_another_world(number: int) -> None:
    """Raise where a launcher was asked for another number of processes than there are.

    Raises:
        RecipeError: how many were wished by whom, and how they are started.
    """
    for wish in (_of_accelerate(os.environ, _lines_above()), *_of_variables(os.environ)):
        if wish is not None and wish.number != number and not (wish.by in SIZES and (wish.number or 0) < number):
            raise RecipeError(_refusal(wish, number))


def _refusal(wish: Wish, number: int) -> str:
    several = "several" if wish.number is None else str(wish.number)
    started = "one is here" if number == 1 else f"{number} are here"
    if wish.by in SIZES:
        return (f"{wish.by}={several} says that {several} processes work together, and {started}: each would take itself for "
                "the only one and write into the same run folder. Start them with torchrun or accelerate launch; or unset "
                f"{wish.by}, if this is to run alone")
    each = "N" if wish.number is None else wish.number
    return (f"{wish.by} was asked for {several} processes, and {started}: without several GPUs it starts one, whatever is "
            f"asked for. Start them with: torchrun --nproc_per_node {each} -m stilla ...; or ask for one: accelerate launch "
            "--num_processes 1 -m stilla ...")


def _of_variables(environment: Mapping[str, str]) -> list[Wish]:
    return [Wish(int(environment[name]), name) for name in SIZES if environment.get(name, "").isdecimal()]


def _of_accelerate(environment: Mapping[str, str], above: Sequence[Sequence[str]]) -> Wish | None:
    """What `accelerate launch` was asked for, if it started this. `above`: command lines of the processes above this one."""
    if "ACCELERATE_MIXED_PRECISION" not in environment:  # which it always sets
        return None
    for line in above:
        arguments = _launched(line)
        if arguments is not None:
            number = _number(arguments)
            return None if number is None else Wish(number, "accelerate launch")
    # unseen; where it is asked for several it sets a port, and a launcher that starts several also says how many there are
    alone = "MASTER_PORT" in environment and not any(name in environment for name in SIZES)
    return Wish(None, "accelerate launch") if alone else None


def started_by() -> Sequence[str]:
    """The command that started these processes, up to what it started: `torchrun --nproc_per_node 2 -m`."""
    for line in _lines_above():
        found = _launched(line)
        name, arguments = ("accelerate launch", found) if found is not None else ("torchrun", _by_torchrun(line))
        if arguments is not None and "stilla" in arguments:
            return [*name.split(), *arguments[: arguments.index("stilla")]]
    return ["torchrun", "--nproc_per_node", os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")), "-m"]


def _lines_above() -> list[list[str]]:
    try:
        return [one.cmdline() for one in psutil.Process().parents()]
    except (psutil.Error, OSError):
        return []


def _launched(line: Sequence[str]) -> Sequence[str] | None:
    """The arguments of `accelerate launch` in a command line; None if it is another one."""
    for name, rest in _programs(line):
        if name in ("accelerate-launch", "accelerate.commands.launch"):
            return rest
        if name in ("accelerate", "accelerate.commands.accelerate_cli") and rest[:1] == ["launch"]:
            return rest[1:]
    return None


def _by_torchrun(line: Sequence[str]) -> Sequence[str] | None:
    """The same of torchrun."""
    return next((rest for name, rest in _programs(line) if name in ("torchrun", "torch.distributed.run")), None)


def _programs(line: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """What may be the program in a command line, with the words behind it: the first one, or what Python was given."""
    for index, word in enumerate(line[:4]):
        if any(not option.startswith("-") for option in line[1:index]):  # another program, with words of its own
            return
        yield Path(word).name.removesuffix(".exe"), line[index + 1 :]


def _number(arguments: Sequence[str]) -> int | None:
    """The number of processes that these arguments, or accelerate's config, ask for; None: as many as there are GPUs."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    try:
        asked, _ = launch_command_parser().parse_known_args(list(arguments))
    except SystemExit:
        return None
    number = asked.num_processes
    if number is None and (asked.config_file is not None or (Path(default_config_file).is_file() and not asked.cpu)):
        number = load_config_from_file(asked.config_file).num_processes
    return number if number is None or number > 0 else None
