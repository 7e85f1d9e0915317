"""What one model takes of a batch that a person's collator made: its inputs by name, and what its decoder reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import TransformersKwargs

from stilla.errors import CompatibilityError
from stilla.tasks.language.translations import decoder_inputs

LABELS = ("labels", "label", "label_ids")
"""What a dataset's column, or a collator's tensor, of labels may be called; the first is there if several are."""

_DECODER = ("decoder_input_ids", "decoder_inputs_embeds")

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Intake:
    """A model, the inputs that its forward names, and whether its decoder's have to be made from the labels.

    names: None where a forward takes everything (`**inputs` of a class outside transformers).
    """

    model: nn.Module
    names: frozenset[str] | None
    decodes: bool = False

    @classmethod
    def of(cls, model: nn.Module, *, decodes: bool) -> Self:
        """`decodes`: whether rows are tokens of a decoder, where the model has one."""
        inside = _unwrapped(model)
        parameters = inspect.signature(inside.forward).parameters.values()
        names = {one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
        if any(one.kind is one.VAR_KEYWORD for one in parameters):
            if not isinstance(inside, PreTrainedModel):
                return cls(model, None)
            names |= TransformersKwargs.__annotations__.keys()
        own = isinstance(inside, PreTrainedModel) and bool(inside.config.is_encoder_decoder)
        return cls(model, frozenset(names - {*LABELS}), decodes and own)

    def __call__(self, tensors: Mapping[str, Tensor], labels: Tensor | None) -> Inputs:
        """The model's inputs; with those of its decoder, as its own forward would make them of the labels."""
        inputs = {name: value for name, value in tensors.items() if self.names is None or name in self.names}
        if self.decodes and labels is not None and not any(name in inputs for name in _DECODER):
            inputs["decoder_input_ids"] = self.before(labels)
        return inputs

    def before(self, labels: Int[Tensor, "batch positions"]) -> Int[Tensor, "batch positions"]:
        """What the decoder has read before each label.

        Raises:
            CompatibilityError: the model does not say what its decoder begins with.
        """
        model = _unwrapped(self.model)
        config: Any = model.config
        methods: dict[str, Callable[..., Tensor]] = dict(inspect.getmembers(type(model), inspect.isfunction))
        make = methods.get("prepare_decoder_input_ids_from_labels")
        try:
            if make is not None:
                return make(model, labels=labels)
            return decoder_inputs(labels, int(config.decoder_start_token_id), int(config.pad_token_id))
        except Exception as error:  # each class complains in its own way about a config without the numbers
            raise CompatibilityError(f"{type(model).__name__} cannot make decoder inputs of the labels ({error}): set "
                                     "decoder_start_token_id and pad_token_id in its config, or let the collator make "
                                     "`decoder_input_ids`.") from error


def refuse_other_starts(student: Intake, teacher: Intake, tensors: Mapping[str, Tensor], labels: Tensor | None) -> None:
    """Where the collator makes decoder inputs, both models read the same, which their decoders have to begin alike for.

    Raises:
        CompatibilityError: they begin otherwise.
    """
    if labels is None or "decoder_input_ids" not in tensors or not (student.decodes and teacher.decodes):
        return
    ours, theirs = (one.before(labels[:1])[:, 0].tolist() for one in (student, teacher))
    if ours != theirs:
        raise CompatibilityError(
            f"the student's decoder begins with token {ours[0]}, the teacher's with {theirs[0]}, and the collator makes one "
            "`decoder_input_ids` for both. Leave its `model=` out: each model then gets its own, made of the labels.")


def _unwrapped(model: nn.Module) -> nn.Module:
    """What a wrapper of peft's is around."""
    if type(model).__module__.partition(".")[0] != "peft":
        return model
    from peft import PeftModel  # a second to import, and few bring one

    return model.get_base_model() if isinstance(model, PeftModel) else model
