"""What disks do to programs, injected into this process: works for root too, to whom no file is read-only."""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@contextmanager
def failing(place: Path, code: int, *, reading: bool = False, after: int = 0) -> Iterator[list[str]]:
    """Within `place` nothing can be written (`reading`: nor read): the system answers `code`. Gives what was refused.

    `after`: so many things can still be written, before there is no more room.
    """
    refused: list[str] = []
    left = [after]

    def refuse(path: Any) -> None:
        if isinstance(path, int) or not Path(os.fsdecode(path)).absolute().is_relative_to(place.absolute()):
            return
        if left[0] > 0:
            left[0] -= 1
            return
        refused.append(os.fsdecode(path))
        raise OSError(code, os.strerror(code), os.fsdecode(path))

    def opening(original: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if reading or set(mode) & set("wax+"):
                refuse(file)
            return original(file, mode, *rest, **more)
        return opened

    def low(file: Any, flags: int, *rest: Any, **more: Any) -> int:
        if (reading and not Path(file).is_dir()) or flags & WRITING:
            refuse(file)
        return os_open(file, flags, *rest, **more)

    def first(original: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *rest: Any, **more: Any) -> Any:
            refuse(path)
            return original(path, *rest, **more)
        return called

    def save(tensors: Any, filename: Any, *rest: Any, **more: Any) -> None:
        try:
            refuse(filename)
        except OSError as error:
            raise safetensors.SafetensorError(
                f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})") from None
        save_file(tensors, filename, *rest, **more)

    os_open, save_file = os.open, safetensors.torch.save_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opening(builtins.open))
        patch.setattr(io, "open", opening(io.open))
        patch.setattr(os, "open", low)
        for name in ("mkdir", "replace", "rename", "unlink", "rmdir"):
            if code not in (errno.ENOSPC, errno.EDQUOT) or name == "mkdir":
                patch.setattr(os, name, first(getattr(os, name)))
        patch.setattr(safetensors.torch, "save_file", save)
        patch.setattr("transformers.modeling_utils.safe_save_file", save)
        patch.setattr("stilla.export.huggingface.save_file", save)
        yield refused


def flip(file: Path, draw: random.Random) -> None:
    """One bit of a file, anywhere."""
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
