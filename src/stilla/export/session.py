"""An exported file as a function, run by onnxruntime: so that it is measured from itself, like any model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from stilla.errors import ExportError, all_of
from stilla.export._quiet import require_onnx


class OnnxModel:
    """Logits from named inputs, on the CPU, with as many threads as torch uses.

    `inputs`: the names that the file takes; others are ignored (a student may not read `token_type_ids`).
    `bytes`: of the file, with its external data.

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
        self.inputs = tuple(one.name for one in self._session.get_inputs())
        self.bytes = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(batch, ...) in float32.

        Raises:
            ExportError: an input is missing, or has a shape that the file does not take.
        """
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ExportError(f"{self.path}: got {all_of(sorted(inputs))}; expected also {all_of(missing)}")
        given = {name: _array(inputs[name]) for name in self.inputs}
        try:
            (logits,) = self._session.run(["logits"], given)
        except Exception as error:
            shapes = all_of([f"{name} {tuple(inputs[name].shape)}" for name in self.inputs])
            raise ExportError(f"{self.path}: fails on {shapes}: {error}") from error
        return torch.from_numpy(logits)


def _array(tensor: Tensor) -> object:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
