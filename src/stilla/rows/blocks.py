"""The elementwise work on a block of rows: every term's losses, and their gradient in the place of the product.

It is plain torch, and the same function is what a compiler gets: neither objectives nor anything here is written twice.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.objectives.base import Gradient, RowObjective, Softened
from stilla.rows.products import Products
from stilla.signals import Dense, Form

Block = Callable[..., tuple[Tensor, Tensor | None]]
GRAPHS = 64
"""So many variants (terms, forms, heads) may be compiled in one process; torch's own limit of 8 is too few for a run."""


def compare(
    objectives: Sequence[RowObjective],
    coefficients: Float[Tensor, " terms"],
    taught: Sequence[bool],
    progress: float,
    ours: Products,
    product: Float[Tensor, "rows classes"],
    theirs: Products | None,
    told: Float[Tensor, "rows classes"] | None,
    form: Form | None,
    labels: Tensor | None,
    biased: bool,
) -> tuple[Float[Tensor, "terms rows"], Float[Tensor, " classes"] | None]:
    """Every term's losses, and the sum's gradient with respect to the bias, where `biased`. That with respect to `product` is
    written over it.

    coefficients: of the gradients alone. taught: which terms have a gradient that is wanted. product, told: the bare
    products of the student and of the teacher, if that has a head; form: the teacher else.
    """
    student = Softened(ours.logits(product))
    teacher = Dense(theirs.logits(told)) if theirs is not None and told is not None else form
    losses: dict[int, Tensor] = {}
    gradients: dict[int, Gradient] = {}
    # those of a teacher first: the softmax at T = 1, which labels need, is in that at T = 2
    for place, objective in sorted(enumerate(objectives), key=lambda one: not one[1].needs_teacher):
        if taught[place]:
            losses[place], gradients[place] = objective.losses_and_gradients(student, teacher, labels, progress)
        else:
            losses[place] = objective.losses(student.logits, teacher, labels, progress)
    each = torch.stack([losses[place] for place in range(len(objectives))])
    # bare products are the logits, and nobody needs them any more but a part that is them
    free = ours.bare and not any(part is student.logits for one in gradients.values() for part, _ in one.parts)
    total: Tensor | None = None
    for place, gradient in gradients.items():
        total = gradient.added(total, coefficients[place], out=product if free else None)
    if total is None:
        product.zero_()
        return each, None
    if free:
        return each, None
    total = ours.before_cap(total, student.logits)
    bias = total.sum(0) if biased else None
    product.copy_(total if ours.head.scale == 1 else total.mul_(ours.head.scale))
    return each, bias


@functools.cache
def compiled(device: str) -> Block:
    """`compare` by torch.compile, whole or not at all; rows may be any number, other sizes are compiled anew.

    Raises:
        CompatibilityError: there is nothing to compile with, or an objective that cannot be compiled (when called).
    """
    if problem := compiler_problem():
        raise CompatibilityError(problem)
    # called from C++, or only one thread at a time would be in a graph: Python's lock is held around kernels else
    made = torch.compile(compare, fullgraph=True, options={"cpp_wrapper": device == "cpu"})

    def block(*given: Any) -> tuple[Tensor, Tensor | None]:
        _rows_may_vary(*given[5:10])
        try:
            found: tuple[Tensor, Tensor | None] = made(*given)
        except torch._dynamo.exc.TorchDynamoException as error:
            compare(*given)  # what is wrong with the batch itself, it says in its own words
            names = ", ".join(objective.described for objective in given[0])
            raise CompatibilityError(f"{names} cannot be compiled for this batch: {str(error).splitlines()[0]}. Leave "
                                     "`compile` out, or write the objective's losses without branches on data") from error
        return found

    return block


def many_graphs() -> AbstractContextManager[None]:
    """Around walks with `compiled`, all threads of them: a variant more is a graph more, a number another input."""
    patched: AbstractContextManager[None] = torch._dynamo.config.patch(recompile_limit=GRAPHS, specialize_float=False)
    return patched


def _rows_may_vary(
    product: Tensor, theirs: object, told: Tensor | None, form: Form | None, labels: Tensor | None
) -> None:
    parts = () if form is None else (getattr(form, field.name) for field in dataclasses.fields(form))
    for one in (product, told, labels, *parts):
        if isinstance(one, Tensor):
            torch._dynamo.maybe_mark_dynamic(one, 0)


def compiler_problem() -> str | None:
    """Why nothing can be compiled on this machine, and what to do; None where it can."""
    todo = "or leave `compile` out: it only saves time"
    if torch.cuda.is_available():
        return None if importlib.util.find_spec("triton") else f"compile: needs triton on a GPU; pip install triton, {todo}"
    named = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(named) is None:
        return (f"compile: needs a C++ compiler, and there is no {named}; install one (Debian and Ubuntu: apt install g++), "
                f"name it in the variable CXX, {todo}")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return f"compile: needs Python's headers (Debian and Ubuntu: apt install python3-dev), {todo}"
    return None
