"""What the blocks of a walk free is there for the next block."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from stilla.rows.products import hold_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "held":
    hold_freed_memory()

def block():
    several = [torch.zeros(2**19) for _ in range(6)]  # 2 MB each, as those of 16 rows of 32,000 classes
    return sum(float(one[0]) for one in several)

for _ in range(5):
    block()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide otherwise what they keep")
def test_freed_memory_is_not_faulted_in_again() -> None:
    pages = 20 * 6 * 2**21 // 4096
    assert faults("held") < pages / 100
    if faults("as it is") < pages / 10:
        pytest.skip("this C library keeps it by itself")
