"""Two tokenizers of the same rules, one of which has only some of the other's tokens, by other numbers.

A student with a smaller vocabulary reads every text in tokens that its teacher has too. So the teacher can be asked about the
very pieces that the student reads, by its own numbers, and what it says of the tokens that the student has can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stilla.rows.among import Classes
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.text.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Numbering:
    """`theirs`: the teacher's number of each of the student's tokens, rising. `of`: one more than the teacher's largest."""

    theirs: Int[Tensor, " tokens"]
    of: int
    classes: Classes = field(init=False, repr=False)
    """The student's tokens among the teacher's classes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", Classes(self.theirs, self.of))

    def told(self, numbers: Int[Tensor, "*places"]) -> Int[Tensor, "*places"]:
        """The student's numbers as the teacher's; places without a row stay so."""
        theirs = self.theirs.to(numbers.device)[numbers.clamp_min(0)]
        return torch.where(numbers < 0, NO_ROW, theirs)

    def inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A student's inputs as the teacher's: the same pieces of the same texts."""
        return {name: self.told(value) if name.endswith("input_ids") else value for name, value in inputs.items()}


def numbering(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> Numbering | None:
    """How the teacher numbers the student's tokens; None where these are not some of its own, made by the same rules and kept
    in their order, or where both are the same."""
    if student is teacher or not (student.is_fast and teacher.is_fast):
        return None
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs or not ours.keys() <= theirs.keys():
        return None
    pairs = sorted((number, theirs[token]) for token, number in ours.items())
    told = torch.tensor([number for _, number in pairs])
    in_order = [number for number, _ in pairs] == list(range(len(pairs))) and bool((told.diff() > 0).all())
    if not in_order or _rules(student) != _rules(teacher):
        return None
    return Numbering(told, 1 + max(theirs.values()))


def for_teacher(
    inputs: Mapping[str, Tensor], rows: Sequence[int], student: Tokens, teacher: Tokens, known: Numbering | None
) -> Mapping[str, Tensor]:
    """What a teacher reads of the rows that its student reads as `inputs`: the same pieces by its own numbers where these are
    `known`, what its own tokenizer made of them, or the very same."""
    if known is not None:
        return known.inputs(inputs)
    return inputs if teacher is student else teacher.batch(rows)


def apart(
    inputs: Mapping[str, Tensor], rows: Sequence[int], teacher: Tokens, known: Numbering,
    changed: Bool[NDArray[np.bool_], " rows"] | None = None,
) -> Mapping[str, Tensor]:
    """What a teacher's own tokenizer made of the rows. Of rows that were `changed`, which it has never seen, the very pieces
    that its student reads as `inputs`."""
    own = teacher.batch(rows)
    if changed is None or not changed.any():
        return own
    told, which = known.inputs(inputs), torch.from_numpy(changed)[:, None]
    width = max(own["input_ids"].shape[1], told["input_ids"].shape[1])
    return {name: torch.where(which, teacher.widened(told[name], name, width), teacher.widened(value, name, width))
            for name, value in own.items()}


def same_pieces(student: Tokens, teacher: Tokens, known: Numbering) -> bool:
    """Whether both read all texts in the same pieces."""
    return bool(np.array_equal(student.starts, teacher.starts)
                and np.array_equal(known.theirs.numpy()[student.ids], teacher.ids))


def _rules(tokenizer: PreTrainedTokenizerBase) -> Any:
    """How it makes tokens, apart from which there are."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    model = {name: value for name, value in rules["model"].items() if name not in ("vocab", "merges", "unk_id")}
    return rules["normalizer"], rules["pre_tokenizer"], rules["decoder"], model, _without_numbers(rules["post_processor"])


def _without_numbers(processor: Any) -> Any:
    """What puts special tokens around a text, by their names."""
    if isinstance(processor, Mapping):
        return {name: _without_numbers(value) for name, value in processor.items() if name not in ("id", "ids")}
    if isinstance(processor, list):
        return [_without_numbers(one) for one in processor if not isinstance(one, int)]
    return processor
