"""The products with a head, a chunk of rows at a time, in a buffer that is used again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.rows.memory import borrowed
from stilla.signals import Head, Headed

CHUNK_BYTES = 96 * 2**20
"""What a chunk's logits of one model may take, on a CPU. Larger is faster: every chunk reads the head anew."""
CHUNK_ROWS = 352
"""But never fewer rows than this: below, products take a tenth longer and more, however large the vocabulary is."""
ACCELERATOR_BYTES = 2**30
BLOCK_BYTES = 2**21
"""What a block's logits of one model may take per thread: so much that calls cost little beside what they do, so little that
a few such blocks stay in the cache. Measured for forward KL of 32,000 classes with two threads: half of it costs 11 % more, a
quarter 24 %, twice as much 5 %."""
TILE = 4096
"""Classes per product on a CPU, a quarter of it in float32: a tile and its part of the head stay in the cache, which
makes it 5 to 10 % faster."""


def chunks(rows: int, classes: int, precision: torch.dtype, device: torch.device) -> Iterator[tuple[int, int]]:
    """(start, end) of pieces of nearly equal size: one product each."""
    size = chunk_rows(rows, classes, precision, device)
    return ((start, min(start + size, rows)) for start in range(0, rows, size))


def chunk_rows(rows: int, classes: int, precision: torch.dtype, device: torch.device) -> int:
    row = classes * precision.itemsize
    most = ACCELERATOR_BYTES // row if device.type != "cpu" else max(CHUNK_BYTES // row, CHUNK_ROWS)
    number = -(-rows // max(1, most))
    return max(1, -(-rows // max(1, number)))


def block_rows(classes: int, device: torch.device) -> int | None:
    """How many rows at once are compared: so few on a CPU that they stay in its cache; None for the whole chunk."""
    if device.type != "cpu":
        return None
    # a compiled block gives whole rows to threads: two each, or it cuts the rows and waits for every piece
    return torch.get_num_threads() * max(2, BLOCK_BYTES // (4 * classes))


@contextmanager
def products(headed: Headed, rows: int) -> Iterator[Products]:
    """`rows`: the largest chunk."""
    with borrowed(rows, headed.head.classes, headed.hidden) as buffer:
        yield Products(headed, buffer)


class Products:
    """The logits of one side, chunk by chunk. Those of one chunk are lost with the next."""

    def __init__(self, headed: Headed, buffer: Float[Tensor, "rows classes"]) -> None:
        self.head: Head = headed.head
        self.hidden = headed.hidden.detach()
        self.weight = headed.head.weight.detach()[: headed.head.classes].to(self.hidden.dtype)
        self.exact = torch.promote_types(self.hidden.dtype, torch.float32)
        bias = headed.head.bias
        self.bias = None if bias is None else bias.detach()[: headed.head.classes].to(self.exact)
        self.bare = self.exact == self.hidden.dtype and self.head.scale == 1 and bias is None and self.head.softcap is None
        """Whether the products are the logits."""
        self._buffer = buffer

    def chunk(self, start: int, end: int) -> Float[Tensor, "rows classes"]:
        """The bare products of the rows, in the precision of the hidden states; the caller may write into them."""
        product = self._buffer[: end - start]
        hidden = self.hidden[start:end]
        if hidden.device.type != "cpu":
            return torch.mm(hidden, self.weight.T, out=product)
        # processors that multiply bfloat16 do it several times as fast, and want more at once
        tile = TILE // 4 if hidden.dtype.itemsize >= 4 else TILE
        for first in range(0, len(self.weight), tile):
            torch.mm(hidden, self.weight[first : first + tile].T, out=product[:, first : first + tile])
        return product

    def logits(self, product: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows classes"]:
        """What the model makes of bare products, in at least float32; the products themselves where that is the same."""
        logits = product.to(self.exact)
        if self.head.scale != 1:
            logits = logits * self.head.scale
        if self.bias is not None:
            logits = logits + self.bias
        return logits if self.head.softcap is None else torch.tanh(logits / self.head.softcap).mul_(self.head.softcap)

    def before_cap(
        self, gradient: Float[Tensor, "rows classes"], logits: Float[Tensor, "rows classes"]
    ) -> Float[Tensor, "rows classes"]:
        """The gradient with respect to scale · product + bias, of the one with respect to the logits."""
        if self.head.softcap is None:
            return gradient
        return gradient * (1 - (logits / self.head.softcap).square())


def add_product(
    total: Float[Tensor, "classes width"], gradient: Float[Tensor, "rows classes"], hidden: Float[Tensor, "rows width"],
    *, first: bool,
) -> None:
    """total += gradientᵀ hidden, accumulated in `total`'s precision; `first`: whatever `total` held is overwritten."""
    if total.dtype == hidden.dtype:
        torch.addmm(total, gradient.T, hidden, beta=0 if first else 1, out=total)
    elif first:
        total.copy_(gradient.T @ hidden)
    else:
        total.add_(gradient.T @ hidden)
