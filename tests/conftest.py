"""Every test runs with the shapes in the signatures checked, without the network, and from a fixed seed."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

import tests.shapes  # noqa: F401  # the hook names it

# only where tensors are computed with: the hook costs import time
install_import_hook(["stilla.objectives", "stilla.rows", "stilla.signals", "stilla.models.features", "stilla.evaluate"],
                    "tests.shapes.checked")
gc.disable()  # until all tests are collected: what is imported until then makes millions of objects, and no garbage

import pytest  # noqa: E402
import torch  # noqa: E402

SLOW = 60
"""How many fast tests take as long as a slow one, by their means."""


@pytest.hookimpl(trylast=True)  # after those are left out that nobody wants
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes that share the tests file by file get the longest files first, or one would still have one when all others
    are through."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    length: Counter[Path] = Counter()
    for item in items:
        length[item.path] += SLOW if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -length[item.path])


def pytest_collection_finish() -> None:
    """Leave what was imported out of all collections of garbage: accelerate asks for some in every training."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """A module `evil` that can be imported, with everything in it; tells whether any of its code has run."""
    mark = tmp_path / "evil-was-here"
    folder = tmp_path / "evil-modules"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n"
                                    "def __getattr__(name):\n    raise AttributeError(name)\n"
                                    "def f(*given):\n    return 1\n")
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("evil", None)
    yield mark.exists
    sys.modules.pop("evil", None)
