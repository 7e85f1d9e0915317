"""Tasks of models with two towers, of pictures and of texts, whose vectors are compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Batch, Dense, Dims, Pairs, Side, Signals
from stilla.tasks.base import Loaded, Segment, Task, content
from stilla.tasks.vision_text import loading
from stilla.tasks.vision_text.batches import NONE
from stilla.tasks.vision_text.model import DualEncoder, begin
from stilla.tasks.vision_text.sections import ImageTextData

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class TowerTask(Task[ImageTextData]):
    """Base of `image-text`: what models with two towers say of a batch, which holds pictures, and texts that are each read
    once, whoever's they are. What is stored of a teacher is a vector of every picture and every text.
    """

    section: ImageTextData | None = None
    """None for a model whose batches a person makes."""
    shape: tuple[int, float, float | None] | None = None
    """The teacher's vectors: numbers of each, and by what scale and bias it compares them."""

    distributions: ClassVar[bool] = False
    answer: ClassVar[str] = "embeddings"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "pixel_values": ("pictures",), **dict.fromkeys(_INPUTS, ("texts", "tokens"))}
    towers: ClassVar[Mapping[str, tuple[str, ...]]] = {"vision": ("pixel_values",), "text": _INPUTS}

    # --- models ---

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        if not isinstance(model, DualEncoder):
            raise CompatibilityError(f"{type(model).__name__} does not give vectors by itself; load it as "
                                     "stilla.tasks.vision_text.loading does")
        return cls(shape=_shape(model))

    def adapted_to(self, teacher: Loaded) -> Self:
        return replace(self, shape=_shape(teacher.model))

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        return loading.load(source, trained=labelled)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        if isinstance(model, DualEncoder):
            begin(model)
        return model

    # --- batches and signals ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Every picture and every text is an example, with a vector; a picture counts as one token."""
        pictures, texts = int((batch["pictures"] != NONE).sum()), len(batch["of"])
        mask = batch.student.get("attention_mask")
        tokens = batch.student["input_ids"].numel() if mask is None and texts else 0 if mask is None else int(mask.sum())
        return {"rows": texts, "labelled": int((batch["written"] != NONE).sum()), "tokens": tokens + pictures,
                "examples": pictures + texts}

    def mask(self, batch: Batch, side: Side) -> Tensor | None:
        """Of texts; a picture's positions are all valid (`stack_mask`)."""
        inputs = batch.student if side is Side.STUDENT else batch.teacher
        mask = inputs.get("attention_mask")
        return None if mask is None else mask.bool()

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Tensor | None:
        return self.mask(batch, side) if stack.startswith("text") else None

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        return self._said(outputs.image_embeds, outputs.text_embeds, batch, outputs.scale, outputs.bias)

    def _said(
        self, images: Tensor | None, texts: Tensor | None, batch: Batch, scale: Tensor, bias: Tensor | None
    ) -> Signals:
        embeddings = {} if images is None else {"image": images}
        if texts is not None:
            embeddings["text"] = texts[batch["texts"]]
        keys, there = batch["keys"], batch["pictures"] != NONE
        of = batch["written"]
        written = torch.where(of != NONE, keys[of.clamp_min(0)], NONE) if len(of) else of
        pairs = Pairs(keys[there], batch["numbers"], written, scale, bias)
        return Signals(embeddings=embeddings, pairs=pairs)

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        if teacher.embeddings or not isinstance(teacher.logits, Dense):
            return student, teacher
        assert self.shape is not None  # of a cache, which a teacher filled
        vectors, (_, scale, bias) = teacher.logits.logits, self.shape
        pictures = int((batch["pictures"] != NONE).sum())
        said = self._said(vectors[:pictures] if pictures else None, vectors[pictures:] if len(batch["of"]) else None, batch,
                          vectors.new_tensor(scale), None if bias is None else vectors.new_tensor(bias))
        return student, replace(said, stacks=teacher.stacks)

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        """A vector of every picture, then of every text that is read."""
        parts = [teacher.embeddings["image"]] if "image" in teacher.embeddings else []
        if "text" in teacher.embeddings:
            first = {which: place for place, which in reversed([*enumerate(batch["texts"].tolist())])}
            parts.append(teacher.embeddings["text"][[first[which] for which in range(len(first))]])
        return Signals(logits=Dense(torch.cat(parts)), stacks=teacher.stacks)

    def told(self, stored: Dims) -> Dims:
        return replace(stored, classes=0, embedding=stored.classes)

    def segments(self, batch: Batch) -> list[Segment]:
        found: list[Segment] = []
        for names in self.towers.values():
            inputs = {name: batch.teacher[name] for name in names if name in batch.teacher}
            for one in range(len(next(iter(inputs.values()), ()))):
                found.append(Segment(content(inputs, one), slice(len(found), len(found) + 1), one))
        return found

    def embedding_width(self, model: nn.Module) -> int:
        return model.width if isinstance(model, DualEncoder) else 0

    def row_classes(self) -> int:
        return 0

    def teacher_classes(self) -> int:
        """Numbers of a vector: what is stored of a picture or a text."""
        return 0 if self.shape is None else self.shape[0]

    def numbers_of(self, length: int) -> int:
        return 2 * self.teacher_classes()


def _shape(model: Any) -> tuple[int, float, float | None]:
    weights = dict(model.named_parameters(recurse=False))
    bias = weights.get("logit_bias")
    return model.width, float(weights["logit_scale"].detach().float().exp()), None if bias is None else float(bias.detach())
