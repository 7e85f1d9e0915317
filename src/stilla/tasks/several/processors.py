"""A tokenizer for every one of several tasks: one for all of a student's heads, each teacher's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stilla.models.fingerprint import of_processor


class Processors(Mapping[str, Any]):
    """By task what makes its inputs."""

    def __init__(self, each: Mapping[str, Any]) -> None:
        self.each = dict(each)

    def __getitem__(self, name: str) -> Any:
        return self.each[name]

    def __iter__(self) -> Any:
        return iter(self.each)

    def __len__(self) -> int:
        return len(self.each)

    def to_dict(self) -> dict[str, str]:
        """What they are known by."""
        return {name: of_processor(one) for name, one in self.each.items()}

    def save_pretrained(self, folder: Path) -> None:
        """Into the folder of every head."""
        for name, one in self.each.items():
            one.save_pretrained(Path(folder) / name)
