"""Every test runs with the shapes in the signatures checked, without the network, and from a fixed seed."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

# only where tensors are computed with: the hook costs import time
install_import_hook(["stilla.objectives", "stilla.rows", "stilla.signals", "stilla.models.features", "stilla.evaluate"],
                    "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
