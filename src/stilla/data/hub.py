"""Datasets of the Hugging Face hub, from its cache or over the network."""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import datasets
from datasets import Dataset

from stilla.errors import DataError, did_you_mean, one_of


def read(name: str, config: str | None, revision: str | None) -> Mapping[str, Dataset]:
    """The splits of a dataset under their own names.

    Raises:
        DataError: there is none of that name, it cannot be reached or read, or has several configurations.
    """
    reachable = hub_reachable()
    try:
        with _offline(not reachable):
            return dict(datasets.load_dataset(name, config, revision=revision))
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise DataError(_trouble(name, config, reachable, error)) from error


def _trouble(name: str, config: str | None, reachable: bool, error: Exception) -> str:
    here = did_you_mean(
        name, [entry.name for entry in Path().iterdir()] + [entry.stem for entry in Path().iterdir()]
    )
    if not reachable:
        return (
            f"{name!r}: no such file or folder, and as a Hugging Face dataset it is neither in the local "
            f"cache nor reachable (no network).{here}"
        )
    if isinstance(error, FileNotFoundError):
        return f"{name!r}: neither a file or folder here nor a Hugging Face dataset (or a private one).{here}"
    message = (str(error).strip() or repr(error)).splitlines()[0]
    if "onfig name is missing" in message or "BuilderConfig" in message:
        got = "none" if config is None else repr(config)
        names = re.findall(r"'([^']+)'", str(error).partition("[")[2].partition("]")[0])
        return (
            f"{name!r} has several configurations: data.config: got {got}; expected "
            f"{one_of(names) if names else message}.{did_you_mean(config, names) if config else ''}"
        )
    return f"{name!r}: the Hugging Face dataset cannot be read: {message}"


@functools.cache
def hub_reachable() -> bool:
    """Whether the hub answers at all, asked once: without this, its client retries for half a minute."""
    if datasets.config.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the proxy knows
    address = urlparse(datasets.config.HF_ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """`datasets` looks into its cache only."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
