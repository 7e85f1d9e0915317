"""Of a recipe: how large or slow a student may be at most, where layers and tokens are left to be chosen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stilla.recipe.section import BATCH, Section


class Latency(Section):
    """How `max_latency_ms` is measured, on this machine."""

    threads: int | None = Field(None, ge=1, le=1024)
    """Of the processor; by default as many as PyTorch takes."""
    batch: int = Field(1, ge=1, le=BATCH)
    """Examples of median length at a time."""
    runtime: Literal["torch", "onnx", "int8"] = "torch"
    """What runs the student: PyTorch, or the exported file."""


class Limits(Section):
    """What a student has to stay below. Several hold together."""

    size: float | None = Field(None, gt=0, lt=1)
    """At most so much of the teacher's parameters, 0.33: layers, neurons and vocabulary are chosen, by a short training of
    each of the best candidates."""
    max_parameters: int | None = Field(None, ge=1, le=10**13)
    """As `size`, in numbers."""
    max_megabytes: float | None = Field(None, gt=0, le=1e9)
    """As `size`, of the weights' file in float32."""
    max_latency_ms: float | None = Field(None, gt=0, le=1e7)
    """As `size`, by the median of what is measured as `latency` says."""
    latency: Latency | None = None
    """How latency is measured, where not with PyTorch, all threads and one example at a time."""

    @property
    def limited(self) -> bool:
        """Whether layers, neurons and vocabulary are to be chosen."""
        return any(one is not None for one in (self.size, self.max_parameters, self.max_megabytes, self.max_latency_ms))

    def parameters(self, teacher: int) -> int | None:
        """The most that there may be of them, of a teacher with so many; None: no limit."""
        said = [limit for limit in (
            None if self.size is None else int(self.size * teacher), self.max_parameters,
            None if self.max_megabytes is None else int(self.max_megabytes * 1e6 / 4)) if limit is not None]
        return min(said, default=None)
