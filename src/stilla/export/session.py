"""An exported file as a function, run by onnxruntime: so that it is measured from itself, like any model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from stilla.errors import ExportError, all_of
from stilla.export._quiet import require_onnx


class Session:
    """A file that onnxruntime has read, on the CPU, with as many threads as torch uses: arrays by name in and out.

    `inputs`: the names that the file takes, with their `shapes` (a name where any size goes). `about`: what it says of
    itself. `bytes`: of the file, with its external data.

    Raises:
        ExportError: onnxruntime is missing or cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        require_onnx()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; they are raised as well
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no class
            raise ExportError(f"{path}: onnxruntime cannot read it: {error}") from error
        self.path = path
        self.shapes: dict[str, list[Any]] = {one.name: one.shape for one in self._session.get_inputs()}
        self.inputs = tuple(self.shapes)
        self.outputs = tuple(one.name for one in self._session.get_outputs())
        self.about: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.bytes = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output by name; inputs that the file does not take are ignored.

        Raises:
            ExportError: an input is missing, or has a shape that the file does not take.
        """
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ExportError(f"{self.path}: got {all_of(sorted(inputs))}; expected also {all_of(missing)}")
        given = {name: inputs[name] for name in self.inputs}
        try:
            return dict(zip(self.outputs, self._session.run(None, given)))
        except Exception as error:
            shapes = all_of([f"{name} {given[name].shape}" for name in self.inputs])
            raise ExportError(f"{self.path}: fails on {shapes}: {error}") from error


class OnnxModel:
    """Logits, or what else is answered, from named inputs. `inputs`: the names that the file takes (a student may not read
    `token_type_ids`), with their `shapes`. `output`: that of the answer.

    Raises:
        ExportError: onnxruntime is missing or cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        self._session = Session(path)
        self.path, self.inputs, self.bytes = path, self._session.inputs, self._session.bytes
        self.shapes = self._session.shapes
        (self.output,) = self._session.outputs

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(batch, ...) in float32.

        Raises:
            ExportError: as for `Session.run`.
        """
        said = self._session.run({name: _array(value) for name, value in inputs.items()})
        return torch.from_numpy(said[self.output])


def _array(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array
