"""ONNX in float32: batch and sequence of any size, logits as `logits`, compared with the model's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stilla.errors import ExportError, all_of
from stilla.export import tower_file
from stilla.export._quiet import require_onnx
from stilla.export.decoders import write_decoder
from stilla.export.graphs import Inputs, check, clean, examples, ready, trace
from stilla.export.parts import write_parts
from stilla.export.session import OnnxModel
from stilla.tasks.base import Prepared, Task
from stilla.tasks.language.writing import Writes


def write(model: nn.Module, task: Task, prepared: Prepared, path: Path) -> str:
    """ONNX in float32 for onnxruntime and others; any batch size and length, answers checked against the model's.

    Returns what its README says about it.

    Raises:
        ExportError: packages are missing, the exporter cannot hold the model, or the file answers differently.
    """
    if isinstance(task, Writes):
        batches = examples(prepared)
        write_decoder(model, batches, path, task.axes_of(batches[0]))
    elif task.by_graphs:
        write_parts(model, task, examples(prepared), path)
    elif task.towers:
        _write_towers(model, task, examples(prepared), path)
    else:
        batches = examples(prepared)
        export_onnx(model, task.axes_of(batches[0]), task.outputs, batches, path, task.answer, sets=task.unordered)
    return "Weights and arithmetic in float32."


def export_onnx(
    model: nn.Module,
    axes: Mapping[str, tuple[str, ...]],
    outputs: Callable[[Any], Tensor],
    batches: Sequence[Inputs],
    path: Path,
    name: str = "logits",
    *,
    sets: bool = False,
) -> None:
    """Trace the first batch, clean the graph, write it, and compare its answers with the model's on all batches.

    Args:
        axes: for each input the names of its first axes, which may have any size; the others are fixed.
        outputs: what of the model's outputs is given. name: what it is called.
        batches: of different sizes, with padding where there is any; the first of at least two rows.
        sets: an example's answer has no order (see `check`).

    Raises:
        ExportError: as for `write`.
    """
    require_onnx()
    unknown = [name for name in batches[0] if name not in axes]
    if unknown:
        raise ExportError(f"onnx: the model takes {all_of(unknown)}, for which the task names no axes; known are "
                          f"{all_of(list(axes))}")
    whole = _Logits(ready(model), tuple(batches[0]), outputs).eval()
    shapes = tuple(dict.fromkeys(range(len(axes[name])), torch.export.Dim.DYNAMIC) for name in batches[0])
    trace(whole, batches[0], shapes, [name], path, type(model).__name__)
    clean(path, {name: dict(enumerate(named)) for name, named in axes.items()})
    check(OnnxModel(path), lambda inputs: whole(*inputs.values()), batches, sets=sets)


def _write_towers(model: nn.Module, task: Task, batches: Sequence[Inputs], path: Path) -> None:
    """A file for each of them, beside where one file would stand."""
    for tower, names in task.towers.items():
        given = [{name: batch[name] for name in names if name in batch} for batch in batches]
        given = [one for one in given if one]
        if not given:
            raise ExportError(f"onnx: these examples hold nothing that the {tower} tower could be traced with")
        first = {name: torch.cat([value, value]) if len(value) < 2 else value for name, value in given[0].items()}
        given = [first, *given[1:]]
        export_onnx(model, task.axes, task.outputs, given, path.with_name(tower_file(tower)), task.answer)


class _Logits(nn.Module):
    """The model as a function of tensors in a fixed order, which is what a graph is."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], outputs: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model, self.names, self.outputs = model, names, outputs

    def forward(self, *values: Tensor) -> Tensor:
        return self.outputs(self.model(**dict(zip(self.names, values, strict=True))))
