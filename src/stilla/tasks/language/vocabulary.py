"""What tasks over a vocabulary share: rows are tokens, both models number the tokens alike, unused numbers are cut off.

A task that derives from this says where the tokens come from (`prepare`, and where its models stand in transformers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense, Headed, Side, Signals
from stilla.tasks.base import Loaded, SectionT, Segment, Task
from stilla.tasks.language.byte_exam import ByteExam
from stilla.tasks.language.models import language_model
from stilla.tasks.language.token_exam import TokenExam
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import Numbering, numbering
from stilla.tasks.text.sequences import NO_ROW, valid


@dataclass(frozen=True)
class Vocabulary(Task[SectionT]):
    """The models' tokens are the classes.

    `classes`: how many of them the tokenizer uses, V*; 0 while no model is known. Models may have more outputs (padded to
    a round number), which mean nothing and are cut off on both sides before any softmax. `numbering`: of a student that has
    only some of its teacher's tokens; the teacher then answers for the pieces that the student reads, and its distribution is
    the one among the student's tokens (`rows/among.py`).
    """

    section: SectionT | None = None
    classes: int = 0
    tokenizer: Any = field(default=None, compare=False, repr=False)
    numbering: Numbering | None = field(default=None, compare=False, repr=False)

    vocabulary: ClassVar[bool] = True
    auto: ClassVar[Any]
    """The `AutoModelFor...` of its models."""
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        (*_tokens.INPUTS, "position_ids"), ("batch", "tokens"))

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        return cls(classes=int(model.config.get_text_config().vocab_size))  # type: ignore[union-attr,operator]

    def adapted_to(self, teacher: Loaded) -> Self:
        tokenizer = self.tokenizer_of(teacher.processor)
        return replace(self, classes=in_use(tokenizer), tokenizer=tokenizer, numbering=None)

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        ours, theirs = (self.tokenizer_of(one.processor) for one in (student, teacher))
        return replace(self.adapted_to(student), numbering=numbering(ours, theirs))

    def tokenizer_of(self, processor: Any) -> Any:
        return processor

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        model = language_model(source, self.auto, labelled=labelled)
        tokenizer = _tokens.tokenizer_for(source, model)
        outputs, used = outputs_of(model), in_use(tokenizer)
        if outputs < used:
            raise CompatibilityError(f"{source.model!r} has {outputs} outputs, and its tokenizer's tokens go up to "
                                     f"{used - 1}: they do not belong together.")
        return Loaded(model, tokenizer, source.model)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        rows = int((_labels(batch) != NO_ROW).sum())
        labelled = int((_given(batch) != NO_ROW).sum())
        tokens = self.mask(batch, Side.STUDENT)
        pieces = int(_begins(batch.student, tokens).sum())
        return {"rows": rows, "labelled": labelled, "tokens": int(tokens.sum()), "examples": pieces}

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        """The rows at positions with a label, in the order of the batch; of `Headed` positions, or of dense logits."""
        rows = (_labels(batch).flatten() != NO_ROW).nonzero().squeeze(1)
        places = rows if side is Side.STUDENT else _asked(batch).flatten().nonzero().squeeze(1)
        if isinstance(outputs, Headed):
            said: Dense | Headed = Headed(outputs.hidden.flatten(0, -2)[places], outputs.head)
        else:
            said = Dense(self.outputs(outputs).flatten(0, -2)[places])
        given = _given(batch).flatten()[rows]
        counted: Tensor | None = batch.get("counted")
        weights = None if counted is None else counted[:, None].expand(_labels(batch).shape).flatten()[rows]
        return Signals(logits=said, labels=given if side is Side.STUDENT else self.teacher_labels(given), weights=weights)

    def alike(self, student: Any, teacher: Any) -> bool:
        """Whether every token has the same number for both."""
        return bool(self.tokenizer_of(student).get_vocab() == self.tokenizer_of(teacher).get_vocab())

    def comparable(self, student: Any, teacher: Any) -> bool:
        return self.alike(student, teacher) or numbering(self.tokenizer_of(student), self.tokenizer_of(teacher)) is not None

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """Both without the outputs that no token uses, the teacher without those that the student does not have."""
        return self.alone(student, batch), self.taught(teacher)

    def taught(self, teacher: Signals) -> Signals:
        """What of a teacher's rows a student is compared with: its distribution among the student's tokens."""
        if self.numbering is None or teacher.logits is None:
            return _first(teacher, self.classes)
        return replace(teacher, logits=self.numbering.classes.among(teacher.logits))

    def alone(self, student: Signals, batch: Batch) -> Signals:
        return _first(student, self.classes)

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        return _first(teacher, self.teacher_classes())

    def teacher_classes(self) -> int:
        return self.classes if self.numbering is None else self.numbering.of

    def teacher_labels(self, labels: Tensor) -> Tensor:
        return labels if self.numbering is None else self.numbering.told(labels)

    def mask(self, batch: Batch, side: Side) -> Bool[Tensor, "batch positions"]:
        return valid_tokens(batch.student if side is Side.STUDENT else batch.teacher)

    def exam(self) -> TokenExam:
        return TokenExam(self)

    def apart(self) -> ByteExam:
        return ByteExam(self)

    def row_classes(self) -> int:
        return self.classes

    def numbers_of(self, length: int) -> int:
        return length * self.classes

    def decoded(self, tokens: Sequence[int]) -> str:
        """Tokens as text, for a person."""
        return " ".join(map(str, tokens)) if self.tokenizer is None else str(self.tokenizer.decode(list(tokens)))

    def segments(self, batch: Batch) -> list[Segment]:
        """Every piece with its tokens and the places of its rows in it."""
        segments, first = [], 0
        asked = _asked(batch).cpu()
        for row, start, end in _spans(batch.teacher):
            wanted = asked[row, start:end]
            rows = int(wanted.sum())
            if rows:
                ids = batch.teacher["input_ids"][row, start:end].cpu().numpy().astype(np.int32)
                places = wanted.nonzero().squeeze(1).numpy().astype(np.int32)
                segments.append(Segment(ids.tobytes() + places.tobytes(), slice(first, first + rows), row, slice(start, end)))
            first += rows
        return segments


def _first(said: Signals, classes: int) -> Signals:
    """The same of the first classes; 0: of all."""
    if not classes:
        return said
    if isinstance(said.logits, Headed):
        return replace(said, logits=said.logits.first(classes))
    if isinstance(said.logits, Dense):
        return replace(said, logits=Dense(said.logits.logits[:, :classes]))
    return said


def _spans(inputs: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
    """(row of the batch, first position, position after the last) of every piece, in order."""
    tokens = valid_tokens(inputs)
    spans = []
    for row, (starts, there) in enumerate(zip(_begins(inputs, tokens).cpu(), tokens.cpu())):
        last = int(there.nonzero().max()) + 1 if there.any() else 0
        borders = [*starts.nonzero().squeeze(1).tolist(), last]
        spans += [(row, start, end) for start, end in pairwise(borders)]
    return spans


def _begins(inputs: Mapping[str, Tensor], tokens: Tensor) -> Bool[Tensor, "batch positions"]:
    """Where a piece begins."""
    if "position_ids" in inputs:
        return (inputs["position_ids"] == 0) & tokens
    before = torch.nn.functional.pad(tokens[:, :-1], (1, 0))
    return tokens & ~before


def valid_tokens(inputs: Mapping[str, Tensor]) -> Bool[Tensor, "batch positions"]:
    """Which positions hold tokens, by the mask or by the positions of packed rows."""
    if "attention_mask" in inputs:
        return inputs["attention_mask"].bool()
    if "position_ids" in inputs:
        return valid(inputs["position_ids"])
    return torch.ones_like(inputs["input_ids"], dtype=torch.bool)


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise CompatibilityError("this batch has no `labels`: which positions are rows, and what stands there, is not known")
    return batch.labels


def _asked(batch: Batch) -> Bool[Tensor, "batch positions"]:
    """Where a teacher is asked: at the student's labels, or, where it reads something else before the same tokens, at its own
    places of them, in their order."""
    places: Tensor | None = batch["words"][Side.TEACHER.value] if "words" in batch else None
    if places is None:
        return _labels(batch) != NO_ROW
    there = torch.zeros(batch.teacher["input_ids"].shape, dtype=torch.bool, device=places.device)
    rows = torch.arange(len(places), device=places.device)[:, None].expand_as(places)[places >= 0]
    there[rows, places[places >= 0]] = True
    return there


def _given(batch: Batch) -> Tensor:
    """The labels without those of examples that nobody has labelled: what stands there is a row that only the teacher
    answers."""
    silent: Tensor | None = batch.get("unlabelled")
    return _labels(batch) if silent is None else _labels(batch).masked_fill(silent[:, None], NO_ROW)


def with_unlabelled(batch: Batch, unlabelled: NDArray[np.bool_]) -> Batch:
    """The batch with which of its examples nobody has labelled, where there are some."""
    if unlabelled.any():
        batch["unlabelled"] = torch.from_numpy(unlabelled)
    return batch


# --- tokenizers ---


def in_use(tokenizer: Any) -> int:
    """One more than the largest number of a token."""
    return 1 + max(int(number) for number in tokenizer.get_vocab().values())


def outputs_of(model: nn.Module) -> int:
    """Width of a row of a model's logits."""
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        raise CompatibilityError(f"{type(model).__name__} has no head over its vocabulary.")
    return int(head.weight.shape[0]) if head.weight.dim() == 2 else int(head.out_features)


Asking = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""How a student's inputs become its teacher's."""


def same_inputs(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return inputs


def asked_by(student: Any, teacher: Any) -> Asking:
    """How a student's inputs become its teacher's: as they are, or by other numbers where it has some of its tokens.

    Raises:
        CompatibilityError: the tokens are others; what differs, and what can be done.
    """
    known = numbering(student, teacher)
    if known is not None:
        return known.inputs
    refuse_other_tokens(student, teacher)
    return same_inputs


def refuse_other_tokens(student: Any, teacher: Any) -> None:
    """Raise unless every token has the same number for both; equal sizes prove nothing.

    Raises:
        CompatibilityError: it has not; what differs, and what can be done.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return
    way_out = ("Tokens are compared one by one, which would teach nonsense here. Use a student with the teacher's tokenizer "
               "(`student: {layers: ...}` or `{config: {...}}` makes one), or text that the teacher writes "
               "(`completions: teacher`).")
    moved = sorted(token for token in ours.keys() & theirs.keys() if ours[token] != theirs[token])
    if moved:
        one = moved[0]
        raise CompatibilityError(f"teacher and student number {len(moved):,} tokens differently: {one!r} is {theirs[one]} to "
                                 f"the teacher and {ours[one]} to the student. {way_out}")
    only = sorted(ours.keys() ^ theirs.keys())
    raise CompatibilityError(f"the teacher's tokenizer has {len(theirs):,} tokens, the student's {len(ours):,}, and "
                             f"{len(only):,} are known to one of them only, {only[0]!r} for one. {way_out}")
