"""TextBrewer's own recipe on a case of this folder, beside what Stilla does there when nothing is said.

    python -m benchmarks.gap.brewer --cases sib200 --seeds 3

Its experiments (airaria/TextBrewer, docs/source/ExperimentResults.md) learn the teacher's softened answers at T = 8 alone,
for thirty passes at 1e-4. Student, start and teacher are the case's own, and each model reads its own tokens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
from torch import Tensor, nn
from transformers import AutoTokenizer, get_linear_schedule_with_warmup

from benchmarks.gap.cases import CASES, SINGLE_TEXTS
from benchmarks.gap.classifiers import load, tokens
from benchmarks.gap.measured import Ways, measure
from benchmarks.gap.options import parser
from benchmarks.gap.runs import Bench, Kept
from stilla.recipe.models import Training
from stilla.training.arguments import precision_of

TEMPERATURE, PASSES, RATE, BATCH = 8.0, 30, 1e-4, 32
WARMUP, CLIP = 0.1, 1.0
NAME = "TextBrewer, T = 8, 30 passes, 0.0001"
BESIDE = ("labels, 8 passes, 0.0001", "default")


def main() -> None:
    measure(parse(), ways)


def ways(bench: Bench, case: str) -> Ways:
    beside = {name: partial(bench.student, case, name) for name in BESIDE}
    return {**beside, NAME: partial(brewed, bench, case, bench.teacher(case))}


def brewed(bench: Bench, case: str, teacher: Path, seed: int) -> Kept:
    place = bench.folder(case) / "textbrewer" / str(seed)

    def train() -> tuple[Path, float]:
        start = bench.begun(case)
        column = CASES[case].data["text"]
        texts = pq.read_table(bench.folder(case) / "data" / "train.parquet").column(column).to_pylist()
        return place / "student", distil(teacher, start, texts, seed, place / "student")

    return bench.kept(place / "kept.npz", case, train)


def distil(teacher: Path, start: Path, texts: list[str], seed: int, output: Path) -> float:
    """Train and save the student; seconds of the processor."""
    torch.manual_seed(seed)
    models = [load(folder) for folder in (teacher, start)]
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (teacher, start)]
    batches = Batches(texts, list(zip(tokenizers, models, strict=True)), seed)
    student = models[1]
    steps = PASSES * len(batches)
    config = DistillationConfig(temperature=TEMPERATURE, kd_loss_type="ce", kd_loss_weight=1.0, hard_label_weight=0.0)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        training = TrainingConfig(ckpt_steps=steps + 1, output_dir=folder, device="cpu")
        distiller = GeneralDistiller(training, config, Precise(models[0]), Precise(student), _adapt, _adapt)
        with distiller:
            distiller.train(
                torch.optim.AdamW(student.parameters(), lr=RATE), batches, num_steps=steps, max_grad_norm=CLIP,
                scheduler_class=get_linear_schedule_with_warmup,
                scheduler_args={"num_warmup_steps": int(WARMUP * steps), "num_training_steps": steps})
    seconds = time.process_time() - began
    student.save_pretrained(output)
    AutoTokenizer.from_pretrained(start).save_pretrained(output)
    return seconds


class Precise(nn.Module):
    """A model in bfloat16 where the processor has it, as Stilla trains, with logits in float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.mixed = precision_of(Training()) == "bfloat16"

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            logits: Tensor = self.model(**inputs).logits
        return {"logits": logits.float()}


class Batches:
    """Every pass in a new order; a batch for the teacher and one for the student, each by its own tokenizer."""

    def __init__(self, texts: list[str], readers: list[tuple[Any, Any]], seed: int) -> None:
        """`readers`: tokenizer and model, of the teacher and of the student."""
        self.texts, self.readers = texts, readers
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.texts) // BATCH)

    def __iter__(self) -> Iterator[dict[str, dict[str, Tensor]]]:
        for part in torch.randperm(len(self.texts), generator=self.generator).split(BATCH):
            chosen = [self.texts[index] for index in part.tolist()]
            yield {side: tokens(tokenizer, chosen, model)
                   for side, (tokenizer, model) in zip(("teacher", "student"), self.readers, strict=True)}


def _adapt(_: dict[str, Tensor], outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs


def parse() -> argparse.Namespace:
    return parser("benchmarks.gap.brewer", __doc__, SINGLE_TEXTS, ["sib200"]).parse_args()


if __name__ == "__main__":
    main()
