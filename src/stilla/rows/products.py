"""The products with a head, a chunk of rows at a time, in a buffer that is used again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from stilla.rows.crew import Piece, together
from stilla.rows.memory import borrowed
from stilla.signals import Head, Headed

CHUNK_BYTES = 96 * 2**20
"""What a chunk's logits of one model may take, on a CPU. Larger is faster: every chunk reads the head anew."""
CHUNK_ROWS = 352
"""But never fewer rows than this: below, products take a tenth longer and more, however large the vocabulary is."""
ACCELERATOR_BYTES = 2**30
BLOCK_BYTES = 2**21
"""What a block's logits of one model may take: so much that calls cost little beside what they do, so little that a few such
blocks stay in the cache."""
TILE = 1024
"""Classes per product on a CPU, twice as many where a number takes two bytes: a tile and its part of the head stay in the
cache, and a thread that is kept waiting keeps few of them."""
TILE_ROWS = 256
"""Rows per product over all classes on a CPU."""


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
    return max(2, BLOCK_BYTES // (4 * classes))


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
        together(self.pieces(start, end), self.hidden.device)
        return self.room(start, end)

    def room(self, start: int, end: int) -> Float[Tensor, "rows classes"]:
        """Where the bare products of the rows are, once their pieces are done."""
        return self._buffer[: end - start]

    def pieces(self, start: int, end: int) -> list[Piece]:
        """What makes them."""
        hidden, product = self.hidden[start:end], self.room(start, end)
        return [partial(torch.mm, hidden, self.weight[part].T, out=product[:, part]) for part in class_parts(self.weight)]

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


def class_parts(weight: Float[Tensor, "classes width"]) -> list[slice]:
    """The classes of one product each: all of them but on a CPU."""
    # processors that multiply bfloat16 do it several times as fast, and want more at once
    tile = TILE if weight.dtype.itemsize >= 4 else 2 * TILE
    return _parts(len(weight), len(weight) if weight.device.type != "cpu" else tile)


def row_parts(hidden: Float[Tensor, "rows width"]) -> list[slice]:
    """The rows of one product over all classes each, nearly as many in each: all of them but on a CPU."""
    rows = len(hidden)
    number = 1 if hidden.device.type != "cpu" else max(1, -(-rows // TILE_ROWS))
    return _parts(rows, -(-rows // number))


def _parts(number: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, number)) for first in range(0, number, max(1, size))]


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
