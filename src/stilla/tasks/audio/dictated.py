"""Batches of sounds and transcripts, for recognisers that write, with the prompts that their decoders read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch, Side
from stilla.tasks.audio.reading import Source
from stilla.tasks.audio.stenographer import Stenographer
from stilla.tasks.language.translations import Targets, prompted
from stilla.tasks.text.numbering import Numbering
from stilla.tasks.text.sequences import NO_ROW


@dataclass(frozen=True, eq=False)
class Heard:
    """Sounds that are to be written down, each behind the prompt."""

    source: Source
    prompt: Sequence[int]
    positions: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """In milliseconds."""
        return np.array([round(self.source.cut[one].seconds * 1000) for one in self.positions.tolist()], np.int64)

    def select(self, examples: NDArray[np.int64]) -> Heard:
        return replace(self, positions=self.positions[examples])

    def batch(self, examples: Sequence[int]) -> dict[str, Tensor]:
        inputs, _ = self.source.batch(self.positions[list(examples)].tolist())
        told = torch.tensor([list(self.prompt)]).expand(len(examples), -1)
        return {**inputs, "decoder_input_ids": told}


@dataclass(frozen=True)
class Collate:
    """`numbering`: of the teacher's, where it is asked about the student's pieces by other numbers. `timed`: which of the
    transcripts have their times; the others begin with the token that says that they have none, which is read and not learnt.
    None where that token ends the prompt of all."""

    source: Source
    targets: Targets
    keys: NDArray[np.int64]
    ours: Stenographer
    theirs: Stenographer
    numbering: Numbering | None
    timed: Bool[NDArray[np.bool_], " examples"] | None = None

    def __call__(self, examples: Sequence[int]) -> Batch:
        heard, other = self.source.batch(examples)
        said = self.targets.labels(examples)
        ours, others = ((one.prompt if self.timed is None else one.open_prompt) for one in (self.ours, self.theirs))
        labels, told = prompted(said, ours, self.ours.padding)
        if self.timed is not None:
            labels[torch.from_numpy(~self.timed[list(examples)]), len(ours) - 1] = NO_ROW
        student = {**heard, "decoder_input_ids": told}
        teacher = student
        if other is not heard or self.numbering is not None or ours != others:
            theirs: Int[Tensor, "batch positions"] = said if self.numbering is None else self.numbering.told(said)
            teacher = {**other, "decoder_input_ids": prompted(theirs, others, self.theirs.padding)[1]}
        batch = Batch(student=student, teacher=teacher, labels=labels, keys=torch.from_numpy(self.keys[list(examples)]))
        batch["frames"] = {Side.STUDENT.value: self.ours.frames(heard), Side.TEACHER.value: self.theirs.frames(other)}
        return batch
