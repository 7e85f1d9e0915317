"""Busy processes beside what is measured: each keeps a processor core as busy as a data loader's worker would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOOP = """
import os, sys, threading
import torch

def end_with_the_parent():
    sys.stdin.read()  # closed when it ends, however it does
    os._exit(0)

threading.Thread(target=end_with_the_parent, daemon=True).start()
torch.set_num_threads(1)
print("busy", flush=True)
while True:
    texts = [[(7 * place + text) % 997 for place in range(100 + 7 * text)] for text in range(32)]
    torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    torch.nn.functional.interpolate(torch.rand(8, 3, 256, 256), size=(224, 224), mode="bilinear")
"""


@contextmanager
def busy(number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """So many run inside, and none afterwards."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(number):
            processes.append(subprocess.Popen([sys.executable, "-c", LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                              text=True))
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()
