"""What the blocks of a walk free is there for the next block."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from stilla.rows import fused_divergence, row_measures
from stilla.rows.memory import borrowed, kept_bytes
from stilla.signals import Head, Headed

FAULTS = """
import resource, sys, torch
from stilla.rows.memory import hold_freed_memory
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


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide otherwise what they keep")
def test_freed_memory_is_not_faulted_in_again() -> None:
    pages = 20 * 6 * 2**21 // 4096
    assert faults("held") < pages / 100
    if faults("as it is") < pages / 10:
        pytest.skip("this C library keeps it by itself")


def test_a_buffer_is_used_again_and_never_twice_at_once() -> None:
    like = torch.zeros(0)
    with borrowed(100, 1000, like) as one:
        first = one.fill_(1).data_ptr()
        with borrowed(100, 1000, like.double()) as other:
            other.fill_(2)
            assert one.eq(1).all()
    before = kept_bytes()
    with borrowed(3, 500, like) as smaller, borrowed(100, 1000, like) as again:
        assert smaller.shape == (3, 500)
        assert first in (smaller.data_ptr(), again.data_ptr())
    assert kept_bytes() == before


def test_what_an_evaluation_left_can_be_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stilla.rows.memory._free", [])
    generator = torch.Generator().manual_seed(0)
    hidden, told = torch.randn(6, 4, generator=generator), torch.randn(6, 5, generator=generator)
    head, theirs = Head(torch.randn(700, 4, generator=generator)), Head(torch.randn(700, 5, generator=generator))
    with torch.inference_mode():
        measured = row_measures(Headed(hidden, head), None, Headed(told, theirs))
    again = row_measures(Headed(hidden, head), None, Headed(told, theirs))  # no longer in inference mode
    assert again.kl is not None
    with borrowed(6, 700, hidden) as buffer:
        buffer.zero_()
    hidden.requires_grad_()
    losses = [fused_divergence(hidden, head, told, theirs) for _ in range(2)]
    assert measured.kl is not None
    torch.testing.assert_close(again.kl, measured.kl)
    for loss in losses:
        torch.testing.assert_close(loss.detach(), measured.kl.mean())
    first, second = (torch.autograd.grad(loss, hidden)[0] for loss in losses)
    assert first.equal(second)
