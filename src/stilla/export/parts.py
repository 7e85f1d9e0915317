"""Models whose answers a program makes of several files' (frame after frame): a file for each part that the task names, held
against the part itself, and the words and the program of their README."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from stilla.errors import ExportError, all_of
from stilla.export import graphs
from stilla.export._quiet import require_onnx
from stilla.export.keys import Inputs, export
from stilla.export.session import Session
from stilla.tasks.base import Graph, Task


def write_parts(model: nn.Module, task: Task, batches: Sequence[Inputs], path: Path) -> None:
    """Trace every part of the first batch, write it, and compare its answers with the part's on all batches.

    Args:
        path: `model.onnx` in the folder to write to.

    Raises:
        ExportError: packages are missing, the exporter cannot hold a part, or a file answers differently.
    """
    require_onnx()
    ready = graphs.ready(model)
    for name, part in task.graphs_of(ready, batches[0]).items():
        export(part.module, part.inputs, part.axes, part.outputs, path.with_name(name), model)
        if part.about:
            graphs.note(path.with_name(name), part.about)
    files: dict[str, Session] = {}
    for batch in batches:
        for name, part in task.graphs_of(ready, batch).items():
            file = files.setdefault(name, Session(path.with_name(name)))
            _compare(name, part, file)


def _compare(name: str, part: Graph, file: Session) -> None:
    with torch.no_grad():
        said = part.module(*part.inputs.values())
    expected = dict(zip(part.outputs, [said] if isinstance(said, Tensor) else said, strict=True))
    got = file.run({key: value.numpy() for key, value in part.inputs.items()})
    shapes = all_of([f"{key} {tuple(value.shape)}" for key, value in part.inputs.items()])
    for key, right in expected.items():
        one = torch.from_numpy(got[key])
        if one.shape != right.shape:
            raise ExportError(f"onnx: {name} gives {key} of {tuple(one.shape)} for {shapes}, the model {tuple(right.shape)}")
        error = float((one - right).abs().max()) if right.numel() else 0.0
        if not error <= graphs.TOLERANCE * max(1e-2, float(right.abs().max()) if right.numel() else 0.0):
            raise ExportError(f"onnx: {name} differs from the model by {error:.3g} in {key} for {shapes}")


def given_to(
    model: nn.Module, task: Task, batches: Callable[[], Iterable[Inputs]]
) -> Callable[[str], Iterable[Inputs] | None]:
    """By the name of a file what it is given of these batches, to be calibrated with; None where its weights stay as they
    are."""
    if not task.by_graphs:
        return lambda name: batches()
    ready = graphs.ready(model)

    def given(name: str) -> Iterable[Inputs] | None:
        if task.graphs_of(ready, next(iter(batches())))[name].exact:
            return None
        return (task.graphs_of(ready, batch)[name].inputs for batch in batches())

    return given


def parts_readme(main: Path, said: str, program: str) -> str:
    """What is in the folder and how to run it, as a program that works there."""
    names = ", ".join(one.name for one in sorted(main.parent.glob("*.onnx"), key=lambda one: (one != main, one.name)))
    return f"# {names}\n\n{said} Any batch size and length.\n\n{program}"
