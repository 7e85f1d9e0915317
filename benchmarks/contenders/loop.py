"""The minimal loop by hand: what one would write with torch alone, for this one training."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

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


def distill(setting: Setting, clock: Clock) -> nn.Module:
    teacher, student = (load(Path(setting.folder) / name) for name in ("teacher", "student"))
    teacher.eval().requires_grad_(False)
    student.train()
    texts = Texts(setting)
    optimiser = optimiser_for(student)
    schedule = get_linear_schedule_with_warmup(optimiser, warmup_steps(setting.steps), setting.steps)
    torch.manual_seed(setting.seed)
    for indices in given_order(setting):
        clock.begin_step()
        loss = loss_of(student, teacher, texts.batch(indices), setting)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    return student


def load(folder: Path) -> nn.Module:
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model


def loss_of(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], setting: Setting) -> Tensor:
    """Labels, softened logits and, if the setting says so, hidden states."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bfloat16"):
        with torch.no_grad():
            wanted = teacher(**inputs, output_hidden_states=setting.hidden)
        said = student(**inputs, output_hidden_states=setting.hidden)
    logits = said.logits.float()
    soft, target = (F.log_softmax(one / TEMPERATURE, -1) for one in (logits, wanted.logits.float()))
    loss = LABELS * F.cross_entropy(logits, batch["labels"])
    loss = loss + LOGITS * TEMPERATURE**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)
    if setting.hidden:
        valid = batch["attention_mask"].bool()
        # the first hidden state of both is what enters the first layer
        targets = [wanted.hidden_states[layer + 1] for layer in setting.answers]
        errors = [F.mse_loss(ours[valid].float(), theirs[valid].float())
                  for ours, theirs in zip(said.hidden_states[1:], targets, strict=True)]
        loss = loss + HIDDEN * torch.stack(errors).mean()
    return loss


if __name__ == "__main__":
    contend(distill)
