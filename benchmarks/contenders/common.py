"""What all contenders share: the setting, taking turns step by step, and what is left behind."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_model
from torch import Tensor, nn
from transformers import AutoTokenizer

LABELS, LOGITS, HIDDEN = 0.3, 0.7, 1.0
"""Weights of the terms: cross-entropy, T² KL, and (where it is on) the squared error of hidden states."""
TEMPERATURE = 2.0
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01
WARMUP = 0.06
CLIP = 1.0


@dataclass(frozen=True)
class Setting:
    """One training. `folder`: holds `teacher/`, `student/` (where it starts) and `order.json` (examples by step).

    `own_order`: shuffle freely instead of the given batches. `result`: the file to write.
    """

    folder: str
    data: str
    result: str
    steps: int
    batch_size: int
    hidden: bool
    precision: str
    threads: int
    seed: int
    answers: tuple[int, ...] = ()
    """Per student layer the teacher layer it answers to, both from 0."""
    own_order: bool = False

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @property
    def kept(self) -> Path:
        """Where the trained student is kept."""
        return Path(self.result).with_suffix(".safetensors")


class Clock:
    """Times every step, and lets the others do the same step in between.

    `begin_step` is called when a step's batch is made, so that it is in nobody's way: it says on the pipe `done` that
    the step before is over and waits on `go` for its turn.
    """

    def __init__(self, go: int, done: int) -> None:
        self.go, self.done = go, done
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.begun: tuple[float, float] | None = None

    def begin_step(self) -> None:
        self.finish_step()
        os.read(self.go, 1)
        self.begun = time.perf_counter(), time.process_time()

    def finish_step(self) -> None:
        if self.begun is not None:
            self.wall.append(time.perf_counter() - self.begun[0])
            self.cpu.append(time.process_time() - self.begun[1])
        os.write(self.done, b".")


def contend(distill: Callable[[Setting, Clock], nn.Module]) -> None:
    """Train as this process was told to, and write what was measured: seconds of every step, the largest memory."""
    file, go, done = sys.argv[1:]
    setting = Setting(**json.loads(Path(file).read_text()))
    torch.set_num_threads(setting.threads)
    clock = Clock(int(go), int(done))
    student = distill(setting, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(setting.result).write_text(json.dumps({"wall": clock.wall, "cpu": clock.cpu, "peak": peak}))
    save_model(student, str(setting.kept))
    clock.finish_step()


class Texts:
    """The training texts as tokens, for contenders that bring no data handling of their own."""

    def __init__(self, setting: Setting) -> None:
        tokenizer = AutoTokenizer.from_pretrained(Path(setting.folder) / "student")
        data = Dataset.from_parquet(str(Path(setting.data) / "train.parquet"))
        self.tokens = [torch.tensor(ids) for ids in tokenizer(list(data["text"]))["input_ids"]]
        self.labels = torch.tensor(data["intent"])
        self.padding = tokenizer.pad_token_id

    def batch(self, indices: list[int]) -> dict[str, Tensor]:
        """Padded to the longest text of the batch."""
        chosen = [self.tokens[index] for index in indices]
        ids = nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=self.padding)
        lengths = torch.tensor([len(one) for one in chosen])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return {"input_ids": ids, "attention_mask": mask, "labels": self.labels[indices]}


def given_order(setting: Setting) -> list[list[int]]:
    """The examples of every step."""
    order: list[list[int]] = json.loads((Path(setting.folder) / "order.json").read_text())
    return order[: setting.steps]


def optimiser_for(student: nn.Module) -> torch.optim.Optimizer:
    """AdamW as transformers sets it up: no decay of biases and norms."""
    decayed = [parameter for parameter in student.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in student.parameters() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)


def warmup_steps(steps: int) -> int:
    return math.ceil(WARMUP * steps)
