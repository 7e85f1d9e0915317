"""Whether a checkpoint can be continued as a training is started now: in as large steps, and with parts that fit.

    checkpoint-40/made.json     in how many processes it was made, of how many examples each, and who spread its weights
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import TrainingArguments

from stilla.errors import CompatibilityError, counted
from stilla.runtime.files import write_whole
from stilla.training import checkpoints
from stilla.training.spreading import asked_for

MADE = "made.json"
_HOW = {None: "with neither `fsdp` nor `deepspeed`", "fsdp": "with `fsdp`", "deepspeed": "with `deepspeed`"}


@dataclass(frozen=True)
class Made:
    """How a training is cut over processes. spread: `fsdp`, `deepspeed` or None."""

    processes: int
    batch_size: int
    accumulate: int
    spread: str | None

    @classmethod
    def by(cls, args: TrainingArguments) -> Made:
        return cls(args.world_size, args.per_device_train_batch_size, args.gradient_accumulation_steps, asked_for(args))

    @property
    def examples(self) -> int:
        """Of one step."""
        return self.processes * self.batch_size * self.accumulate

    def write(self, checkpoint: Path) -> None:
        write_whole(checkpoint / MADE, json.dumps(asdict(self)))

    @classmethod
    def read(cls, checkpoint: Path) -> Made | None:
        """None in checkpoints of before it was written down."""
        path = checkpoint / MADE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def __str__(self) -> str:
        several = "one process" if self.processes == 1 else f"{self.processes} processes"
        return (f"{several}, {counted(self.examples, 'example')} a step ({self.processes} processes × batch size "
                f"{self.batch_size} × accumulate {self.accumulate})")


def checkpoint_of(place: str | bool | None, args: TrainingArguments) -> Path | None:
    """The checkpoint that a training is to continue from, as transformers finds it."""
    if place is True:
        return checkpoints.last(Path(args.output_dir or "."))
    return Path(place) if isinstance(place, str) else None


def refuse_unlike(checkpoint: Path | None, args: TrainingArguments) -> None:
    """Raises:
        CompatibilityError: the folder is no checkpoint; it was made in steps of another size, or cannot be put together here.
    """
    if checkpoint is None:
        return
    if not (checkpoint / "trainer_state.json").is_file():
        raise CompatibilityError(f"resume_from_checkpoint: '{checkpoint}' is no checkpoint of a trainer (no "
                                 "trainer_state.json). What `save_model` wrote is the student alone: load it with "
                                 "from_pretrained and give it as the student")
    before, now = Made.read(checkpoint), Made.by(args)
    if before is None:
        return
    if before.spread != now.spread:
        raise CompatibilityError(f"{checkpoint}: it was made {_HOW[before.spread]}, and its optimizer can only be read so. "
                                 f"Continue {_HOW[before.spread]}, or begin anew without this checkpoint")
    if before.examples != now.examples:
        raise CompatibilityError(f"{checkpoint}: it was made in {before}; here are {now}: in other steps, some examples "
                                 f"would be learnt twice, others never. Start {before.processes} processes again, let the "
                                 f"three numbers make {before.examples}, or begin anew without this checkpoint")
    if before.spread == "deepspeed" and before.processes != now.processes:
        raise CompatibilityError(f"{checkpoint}: DeepSpeed kept a part for each of {before.processes} processes, and here "
                                 f"are {now.processes}. Start {before.processes} again, or begin anew without it")
