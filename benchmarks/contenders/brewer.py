"""TextBrewer's GeneralDistiller on the same models, data and, where asked, the same batches.

What differs: its cross-entropy with the teacher leaves T² out, so the weight brings it here; it has no mixed
precision but apex', so bfloat16 is wrapped around both models here; it has no batches by length.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from benchmarks.contenders.common import (
    CLIP,
    HIDDEN,
    LABELS,
    LOGITS,
    TEMPERATURE,
    Clock,
    Setting,
    Texts,
    contend,
    given_order,
    optimiser_for,
    warmup_steps,
)
from benchmarks.contenders.loop import load


def distill(setting: Setting, clock: Clock) -> nn.Module:
    teacher, student = (load(Path(setting.folder) / name) for name in ("teacher", "student"))
    teacher.requires_grad_(False)
    batches = Batches(Texts(setting), setting, clock)
    # its hidden states are numbered from what enters the first layer
    matches = [{"layer_T": theirs + 1, "layer_S": ours, "feature": "hidden", "loss": "hidden_mse",
                "weight": HIDDEN / len(setting.answers)} for ours, theirs in enumerate(setting.answers, 1)]
    config = DistillationConfig(
        temperature=TEMPERATURE, kd_loss_type="ce", kd_loss_weight=LOGITS * TEMPERATURE**2,
        hard_label_weight=LABELS, intermediate_matches=matches if setting.hidden else None)
    with tempfile.TemporaryDirectory() as output:
        training = TrainingConfig(ckpt_steps=setting.steps, output_dir=output, device="cpu")
        models = Precise(teacher, setting), Precise(student, setting)
        distiller = GeneralDistiller(training, config, *models, adapt, adapt)
        torch.manual_seed(setting.seed)
        with distiller:
            distiller.train(
                optimiser_for(student), batches, num_steps=setting.steps, max_grad_norm=CLIP,
                scheduler_class=get_linear_schedule_with_warmup, output_hidden_states=setting.hidden,
                scheduler_args={"num_warmup_steps": warmup_steps(setting.steps), "num_training_steps": setting.steps})
    return student


class Precise(nn.Module):
    """A model in the precision of the setting, with logits and loss in float32."""

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        super().__init__()
        self.model = model
        self.mixed = setting.precision == "bfloat16"

    def forward(self, labels: Tensor, **inputs: Any) -> dict[str, Any]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            outputs = self.model(**inputs)
        logits = outputs.logits.float()
        states = tuple(state.float() for state in outputs.hidden_states or ())
        return {"logits": logits, "hidden": states, "losses": nn.functional.cross_entropy(logits, labels)}


def adapt(batch: dict[str, Tensor], outputs: dict[str, Any]) -> dict[str, Any]:
    return {**outputs, "inputs_mask": batch["attention_mask"]}


class Batches:
    """The given batches, or random ones."""

    def __init__(self, texts: Texts, setting: Setting, clock: Clock) -> None:
        self.texts, self.setting, self.clock = texts, setting, clock

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for indices in self._random() if self.setting.own_order else given_order(self.setting):
            self.clock.begin_step()
            yield self.texts.batch(indices)

    def _random(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.setting.seed)
        order = torch.randperm(len(self.texts.tokens), generator=generator)
        return [part.tolist() for part in order.split(self.setting.batch_size)]


if __name__ == "__main__":
    contend(distill)
