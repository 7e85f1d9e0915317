"""int8 with onnxruntime's quantiser: dynamic for models of matrix products, static for convolutional ones.

What decides is where the weights lie in the graph, not what the model is called. Choices, with what was measured
(all-MiniLM-L6 with a head for the 150 intents of clinc150: float32 91 MB, 94.7 % right; a small ResNet on digits):

- `per_channel`: a scale per output. Without it the relative error of the logits is 0.19, with it 0.08.
- `reduce_range`: 7 of 8 bits of a weight. Processors with AVX2 or AVX-512 but no VNNI add two products of 8 bits in
  16 and saturate: the ResNet's error is then 0.043 instead of 0.014, without a sign. With 7 bits it is 0.019 on both, and
  for the encoder 0.091 against 0.083: the file that was measured is the file that runs elsewhere.
- Embedding tables, half of a small encoder, are int8 with a scale per row (`Gather` of both, one product): error
  0.009 against 0.017 with onnxruntime's one scale per table; the file has 23 MB instead of 59.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.errors import ExportError
from stilla.export import graphs, main_file
from stilla.export import onnx as float32
from stilla.export._quiet import quiet, require_onnx
from stilla.export.parts import given_to
from stilla.export.running import open_exported
from stilla.tasks.base import Prepared, Task

Inputs = Mapping[str, Tensor]

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_PRODUCTS = ("MatMul", "Gemm")
_BATCH = 32
# Smaller tables (positions of a window, token types) cost more nodes than they save bytes.
_TABLE = 4096


@dataclass(frozen=True)
class Quantised:
    """What became of the weights: `method` is `dynamic` or `static`, or `both` of several files; `share` the fraction of
    their bytes in int8."""

    method: str
    share: float


def write(model: nn.Module, task: Task, prepared: Prepared, path: Path) -> str:
    """ONNX with int8 weights: a quarter of the size; convolutional models are calibrated on training examples.

    Returns what its README says about it.

    Raises:
        ExportError: as for `onnx` and `quantise`.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        float32.write(model, task, prepared, Path(folder) / path.name)
        calibration = given_to(model, task, lambda: _batches(prepared))
        done = _together([(source.stat().st_size, _quantised(source, path.parent / source.name, calibration))
                          for source in sorted(Path(folder).glob("*.onnx"))])
    made = main_file(path.parent)
    assert made is not None  # what was just written
    file = open_exported(made, task)
    for inputs in graphs.examples(prepared):
        if not torch.isfinite(file(inputs)).all():
            raise ExportError("int8: the quantised file gives NaN or infinite logits")
    how = {"dynamic": "activations are quantised as they come, with one scale per batch: an example's logits depend "
                      "slightly on the others of its batch",
           "static": f"activations too, with ranges from {len(prepared.keys):,} training examples"}
    how["both"] = f"{how['static']}, in convolutions; elsewhere {how['dynamic']}"
    return (f"{100 * done.share:.0f} % of the weights' bytes are int8 (products use 7 of the 8 bits, so that no processor "
            f"saturates); {how[done.method]}.")


def _quantised(source: Path, target: Path, calibration: Callable[[str], Iterable[Inputs] | None]) -> Quantised:
    """A part whose weights stay as they are is copied."""
    batches = calibration(source.name)
    if batches is not None:
        return quantise(source, target, batches)
    shutil.copyfile(source, target)
    return Quantised("dynamic", 0.0)


def _together(parts: Sequence[tuple[int, Quantised]]) -> Quantised:
    """What became of all files, each counted by its bytes."""
    share = sum(size * part.share for size, part in parts) / sum(size for size, _ in parts)
    methods = {part.method for _, part in parts if part.share}
    return Quantised(methods.pop() if len(methods) == 1 else "both", share)


def quantise(source: Path, target: Path, calibration: Iterable[Inputs] | None) -> Quantised:
    """Write an int8 version of a float32 ONNX file.

    Args:
        calibration: batches of model inputs like those to come, what the file does not take among them; only read for
            convolutional models.

    Raises:
        ExportError: a convolutional model without calibration, or nothing in the graph that int8 holds.
    """
    require_onnx()
    import onnx

    graph = onnx.load(source)
    weights = _weights(graph)
    convolutions = sum(weights[kind] for kind in _CONVOLUTIONS) / max(1, sum(weights.values()))
    if not any(weights[kind] for kind in (*_CONVOLUTIONS, *_PRODUCTS, "Gather")):
        raise ExportError("int8: the graph has neither matrix products nor convolutions nor tables with constant weights: "
                          "there is nothing to quantise. Export onnx instead")
    takes = {one.name for one in graph.graph.input}
    batches = [{name: value for name, value in batch.items() if name in takes}
               for batch in calibration or ()] if convolutions > 0.5 else []
    if convolutions > 0.5 and not batches:
        raise ExportError(f"int8: {100 * convolutions:.0f} % of the weights are convolutions, whose inputs need fixed "
                          "ranges: give training examples to calibrate with")
    _quantise_tables(graph)
    with quiet():
        if batches:
            _static(graph, target, batches)
        else:
            _dynamic(graph, target)
    left = sum(_weights(onnx.load(target)).values())
    return Quantised("static" if batches else "dynamic", 1 - left / sum(weights.values()))


def _dynamic(graph: Any, target: Path) -> None:
    """Convolutions (a picture's patches) stay in float32: onnxruntime has no fast integer kernel for them here."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(graph, target, op_types_to_quantize=list(_PRODUCTS), weight_type=QuantType.QInt8,
                     per_channel=True, reduce_range=True, use_external_data_format=_external(graph))


def _static(graph: Any, target: Path, batches: Sequence[Inputs]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: value.cpu().numpy() for name, value in batch.items()}

    quantize_static(graph, target, Reader(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8, per_channel=True, reduce_range=True,
                    use_external_data_format=_external(graph))


def _weights(graph: Any) -> Counter[str]:
    """Bytes of float32 constants by the kind of node that reads them (the first, where several do)."""
    from onnx import TensorProto

    sizes = {one.name: 4 * int(np.prod(one.dims)) for one in graph.graph.initializer if one.data_type == TensorProto.FLOAT}
    found: Counter[str] = Counter()
    for node in graph.graph.node:
        for name in node.input:
            found[node.op_type] += sizes.pop(name, 0)
    return found


def _quantise_tables(graph: Any) -> None:
    """Replace every large table that is only looked up in by int8 rows and a float32 scale per row, in place."""
    from onnx import helper, numpy_helper

    tables = _tables(graph)
    for name, table in tables.items():
        scales = np.abs(table).max(axis=1, keepdims=True) / 127
        scales[scales == 0] = 1  # padding's row is zero
        rows = np.rint(table / scales).astype(np.int8)
        graph.graph.initializer.extend([numpy_helper.from_array(rows, f"{name}_int8"),
                                        numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales")])
    nodes = []
    for node in graph.graph.node:
        if node.op_type != "Gather" or node.input[0] not in tables:
            nodes.append(node)
            continue
        (name, index), (out,) = node.input, node.output
        nodes += [
            helper.make_node("Gather", [f"{name}_int8", index], [f"{out}_int8"]),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=1),
            helper.make_node("Gather", [f"{name}_scales", index], [f"{out}_scales"]),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scales"], [out]),
        ]
    kept = [one for one in graph.graph.initializer if one.name not in tables]
    for field, values in ((graph.graph.node, nodes), (graph.graph.initializer, kept)):
        del field[:]
        field.extend(values)


def _tables(graph: Any) -> dict[str, NDArray[np.float32]]:
    """Float32 matrices that nothing but `Gather` along the first axis reads, by name."""
    from onnx import TensorProto, numpy_helper

    readers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {
        one.name: numpy_helper.to_array(one) for one in graph.graph.initializer
        if one.data_type == TensorProto.FLOAT and len(one.dims) == 2 and np.prod(one.dims) >= _TABLE
        and all(_is_lookup(node, one.name) for node in readers.get(one.name, ()))
    }


def _is_lookup(node: Any, name: str) -> bool:
    return node.op_type == "Gather" and node.input[0] == name and all(one.i == 0 for one in node.attribute)


def _external(graph: Any) -> bool:
    return sum(_weights(graph).values()) / 4 > graphs.INSIDE


def _batches(prepared: Prepared) -> Iterator[Inputs]:
    count = len(prepared.keys)
    for start in range(0, count, _BATCH):
        rows = range(start, min(start + _BATCH, count))
        yield dict(prepared.collate([prepared.examples[row] for row in rows]).student)
