"""How a student came from its teacher, in words: for the check, the scores and the model cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from stilla.errors import all_of
from stilla.models.configs import changed_numbers
from stilla.recipe import StudentSpec, Width


def how(spec: StudentSpec, teacher: nn.Module, student: nn.Module) -> str:
    """As the end of a sentence."""
    return f"{_model(spec)}{_moved(spec)}{_narrower(spec, teacher, student)}{_tokens(spec)}"


def narrowed(width: Width, teacher: nn.Module, student: nn.Module) -> str:
    """What of the config a cut of its width changed, and by what it was chosen which units stay."""
    assert isinstance(teacher, PreTrainedModel)
    assert isinstance(student, PreTrainedModel)
    what = all_of(changed_numbers(teacher.config, student.config))
    rounds = f"{width.rounds} round{'s' if width.rounds > 1 else ''}"
    return f"{what}, keeping what mattered most to up to {width.examples:,} training examples, in {rounds}"


def _model(spec: StudentSpec) -> str:
    if spec.model is not None:
        return f"a model of its own, started from {Path(spec.model).name}"
    if spec.config is not None:
        return f"the same architecture from random weights, with {_plain(dict(spec.config))}"
    if spec.static:
        return "a table of a vector for each of its tokens"
    return "all of its layers" if spec.layers is None else f"cut from it, layers {_plain(spec.layers)}"


def _moved(spec: StudentSpec) -> str:
    moved = "" if spec.interpolate is None else f", {spec.interpolate.share:.0%} of the way to its weights"
    if spec.reptile is not None:
        moved += f", its body first made quick to adapt by {len(spec.reptile.tasks)} other tasks"
    return moved + ("" if spec.freeze is None else f", without training {all_of(list(spec.freeze))}")


def _narrower(spec: StudentSpec, teacher: nn.Module, student: nn.Module) -> str:
    return "" if spec.width is None else f", made narrower ({narrowed(spec.width, teacher, student)})"


def _tokens(spec: StudentSpec) -> str:
    wanted = spec.vocabulary
    if wanted is None:
        return ""
    if wanted.tokens is not None:
        return f", with {wanted.tokens:,} of its tokens"
    kept = [*(["those of its tokens that its training texts use"] if wanted.data else []),
            *([f"those of frequent words of {all_of(list(wanted.languages))}"] if wanted.languages else []),
            *([f"{wanted.extra:,} more of them"] if wanted.extra else [])]
    return f", with {all_of(kept)}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(one)}" for key, one in value.items())
    return str(value)
