"""Whether a model that was built of another's config can be run at all: configs do not look whether their sizes fit."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from stilla.models.features import made_up_inputs


def failure(student: PreTrainedModel, teacher: PreTrainedModel) -> Exception | None:
    """What a forward of one made-up example ends in; None where it runs, or the teacher's fails too, as its class reads
    what cannot be made up."""
    error = _failure(student)
    return error if error is not None and _failure(teacher) is None else None


def _failure(model: PreTrainedModel) -> Exception | None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(**made_up_inputs(model))
    except Exception as error:  # whatever a class says to what it does not take
        return error
    return None
