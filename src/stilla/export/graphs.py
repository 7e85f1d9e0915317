"""Graphs of torch modules for onnxruntime: traced by torch's exporter on `torch.export`, cleaned, and compared with what they
were made from.

One exporter, no fallback: with eager attention it holds every family that was tried (`tests/export/test_onnx.py`), while
with scaled_dot_product_attention it fails on Swin, BEiT and T5 (a view of a transposed tensor) and gives slower graphs
elsewhere (extra NaN checks: BERT 1.4 times the time in large batches, onnxruntime 1.31).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import ExportError, all_of
from stilla.export._quiet import quiet
from stilla.tasks.base import Prepared

Inputs = Mapping[str, Tensor]

INSIDE = 1_900_000_000
"""Bytes of weights up to which they stand in the file itself; a protobuf cannot hold 2 GB."""

# float32 in another order of summation; relative to the largest logit. Wrong graphs are wrong by 1e-1 and more.
TOLERANCE = 1e-3

UNTRACED = {
    **dict.fromkeys(("canine", "funnel", "nystromformer"), "can be traced for one length of texts only"),
    "longformer": "decides by values which tokens see the whole text",
}
"""By model type, why torch's exporter cannot hold its forward (`tests/export/test_untraced.py` tries them)."""


def unwritten(model: nn.Module, formats: Sequence[str]) -> list[str]:
    """Why it cannot be exported in these formats, in words, as far as its family says it."""
    kinds = dict.fromkeys(one.config.model_type for one in model.modules() if isinstance(one, PreTrainedModel))
    found = [kind for kind in kinds if kind in UNTRACED] if formats else []
    return [f"{all_of(list(formats))}: a {type(model).__name__} cannot be written, as the forward of a {kind} "
            f"{UNTRACED[kind]}. Leave export out, or take a student of another family (docs/export.md)" for kind in found]


def ready(model: nn.Module) -> nn.Module:
    """A copy in float32 on the CPU (onnxruntime computes bfloat16 nowhere else), with eager attention."""
    copied = copy.deepcopy(model).cpu().float().requires_grad_(False).eval()
    for module in copied.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")
    return copied


def trace(
    ready: nn.Module, inputs: Inputs, shapes: Sequence[Mapping[int, Any]], outputs: Sequence[str], path: Path, name: str
) -> None:
    """Write a module that takes these inputs as positional arguments, in this order.

    Args:
        shapes: for each input the axes that may have any size. name: of the model, for what is said.

    Raises:
        ExportError: the exporter cannot hold it.
    """
    size = sum(parameter.nbytes for parameter in ready.parameters())
    try:
        with quiet():
            torch.onnx.export(
                ready, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=list(outputs), dynamo=True,
                dynamic_shapes=(tuple(shapes),), external_data=size > INSIDE, verbose=False,
                custom_translation_table={torch.ops.aten._is_all_true.default: _all_true})
    except Exception as error:  # the exporter wraps whatever failed, several times
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = " ".join(str(cause).split())[:200] or repr(cause)
        raise ExportError(
            f"onnx: torch's exporter cannot hold {name} ({said}). A forward that decides on the values "
            "or sizes of its inputs (`if mask.all():`, `int(x.max())`) has to be written with torch.where or the like"
        ) from error


def _all_true(flags: Any) -> Any:
    """What transformers' checks of shapes leave in a graph (RT-DETR, D-FINE), where torch's exporter knows no name for it and
    nobody asks for the answer."""
    import onnx
    from onnxscript import opset18

    least = opset18.ReduceMin(opset18.Cast(flags, to=onnx.TensorProto.INT32), keepdims=0)
    return opset18.Cast(least, to=onnx.TensorProto.BOOL)


def clean(path: Path, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Name the axes of inputs that may vary, and drop what only the exporter needs.

    Dropped are the shapes of intermediate values (quantisation stumbles over them, onnxruntime finds its own) and the
    stack trace at every node (paths of this machine, and for a small model most of the bytes).
    """
    import onnx

    graph = onnx.load(path, load_external_data=False)
    del graph.graph.value_info[:]
    del graph.metadata_props[:]
    graph.graph.ClearField("metadata_props")
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in graph.graph.input:
        for number, name in axes[value.name].items():
            value.type.tensor_type.shape.dim[number].dim_param = name
    for value in graph.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(graph, path)


def note(path: Path, about: Mapping[str, str]) -> None:
    """What a file says of itself, so that it can be run without knowing whose it is."""
    import onnx

    graph = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(graph, dict(about))
    onnx.save(graph, path)


def check(
    file: Callable[[Inputs], Tensor], model: Callable[[Inputs], Tensor], batches: Sequence[Inputs], *, sets: bool = False
) -> None:
    """Raise an ExportError unless the file, which is open, answers every batch as the model does.

    sets: an example's answer is a set (batch, things, numbers), in whatever order.
    """
    for batch in batches:
        with torch.no_grad():
            expected = model(batch)
        got = file(batch)
        shapes = all_of([f"{name} {tuple(value.shape)}" for name, value in batch.items()])
        if got.shape != expected.shape:
            raise ExportError(f"onnx: the file gives {tuple(got.shape)} for {shapes}, the model {tuple(expected.shape)}")
        error = float(_of_sets(got, expected) if sets else (got - expected).abs().max())
        if not error <= TOLERANCE * max(1e-2, float(expected.abs().max())):
            raise ExportError(f"onnx: the file's logits differ from the model's by {error:.3g} for {shapes}")


def _of_sets(got: Float[Tensor, "batch things numbers"], expected: Float[Tensor, "batch things numbers"]) -> Tensor:
    """The largest difference of things that answer to each other, without the worst of a hundred: detectors go on with the
    surest of what an encoder proposes, and of two that are as sure, rounding decides which comes first, or comes at all."""
    from scipy.optimize import linear_sum_assignment  # a third of a second to import

    worst = []
    for one, other in zip(got.double(), expected.double(), strict=True):
        apart = (one[:, None] - other[None]).abs().amax(-1).nan_to_num(torch.finfo(torch.float64).max).numpy()
        paired = np.sort(apart[linear_sum_assignment(apart)])
        worst.append(paired[len(paired) - 1 - len(paired) // 100])
    return torch.tensor(max(worst))


def examples(prepared: Prepared) -> list[Inputs]:
    """Batches of three, one and two examples, of middle, small and large length: no two axes of one size by chance."""
    count = len(prepared.keys)
    order = np.argsort(prepared.lengths, kind="stable") if prepared.lengths is not None else np.arange(count)
    rows = ([order[(count // 2 + step) % count] for step in range(3)], [order[0]], [order[-1], order[0]])
    return [dict(prepared.collate([prepared.examples[int(row)] for row in one]).student) for one in rows]
