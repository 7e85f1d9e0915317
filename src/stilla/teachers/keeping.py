"""What of a teacher's answer is kept: all logits, what enters its head, the k likeliest classes, or some at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stilla.cache import DenseCoder, HiddenCoder, Ranked, SamplesCoder, TopKCoder, name_of
from stilla.errors import CacheError
from stilla.rows.crew import found
from stilla.rows.products import chunk_rows, chunks, products
from stilla.signals import Dense, Form, Headed, Pooling, Samples, TopK
from stilla.tasks.base import Segment

_BLOCK = 32
"""Classes that are looked at together first: their largest, or their sum, leaves few blocks to look into."""
_MANY = 2**16
"""Classes from which on blocks are faster than the running sum of all."""
_NUMBERS = 2**18
"""Numbers at once on a CPU: what is between the passes over them stays in its cache. 64 times as many elsewhere."""


@dataclass(frozen=True)
class Keep:
    """What is stored of every row.

    form: `dense`: all logits; `hidden`: what enters the head, for vocabularies; `top_k`: the k likeliest classes and the
    mass of the others at each of the temperatures; `samples`: so many draws and the entropy.
    dtype: of dense logits and hidden states; None: float32, and what the head multiplies. seed: of the draws.
    states: which of the teacher's hidden states by stack ([0] enters the first layer); in `states_dtype`. pooling: one
    vector per example of each (an embedding) instead of one per position.
    """

    form: Literal["dense", "hidden", "top_k", "samples"] = "dense"
    k: int = 50
    samples: int = 50
    temperatures: tuple[float, ...] = (1.0,)
    dtype: str | None = None
    seed: int = 0
    states: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    states_dtype: str = "bfloat16"
    pooling: Pooling | None = None

    def coder(self, said: Form, classes: int) -> DenseCoder | HiddenCoder | TopKCoder | SamplesCoder:
        """How the rows of answers like this one are stored.

        Raises:
            CacheError: the answer does not have what is to be kept.
        """
        known = isinstance(said, TopK) and (self.form, self.k, tuple(self.temperatures)) == (
            "top_k", said.ids.shape[1], (said.temperature,))
        if not isinstance(said, Dense | Headed) and not known:
            raise CacheError("the teacher's answer holds a part of a distribution, and only that part can be stored: form: "
                             "top_k with its own k and temperature")
        if self.form == "hidden":
            if not isinstance(said, Headed):
                raise CacheError("cache.form: hidden stores what enters the head of a language model, and this teacher "
                                 "classifies; use form: dense, which is exact too and smaller")
            return HiddenCoder(said.hidden.shape[1], self.dtype or name_of(said.hidden.dtype))
        if self.form == "top_k":
            return TopKCoder(classes, min(self.k, classes), tuple(self.temperatures))
        if self.form == "samples":
            return SamplesCoder(classes, self.samples)
        return DenseCoder(classes, self.dtype or "float32")

    def kept(self, said: Form, segments: Sequence[Segment], keys: Sequence[bytes]) -> Any:
        """What of the rows goes to the coder: a tensor, `Ranked` or `Samples`, on the CPU."""
        if self.form == "hidden" and isinstance(said, Headed):
            return said.hidden.cpu()
        if isinstance(said, TopK):
            inside = torch.logsumexp(said.log_probs, -1)
            below = said.log_probs.amax(-1, keepdim=True) - said.log_probs
            return Ranked(said.ids.cpu(), below.cpu(), (said.log_tail - inside)[:, None].cpu())
        assert isinstance(said, Dense | Headed)  # as `coder` has seen
        if self.form == "dense":
            return (said if isinstance(said, Dense) else said.dense()).logits.cpu()
        if self.form == "top_k":
            several = [ranked(logits, min(self.k, logits.shape[1]), self.temperatures) for _, logits in _chunks(said)]
            return Ranked(*(torch.cat([getattr(one, name) for one in several]) for name in ("ids", "below", "odds")))
        uniforms = torch.cat([uniforms_of(key, segment.rows.stop - segment.rows.start, self.samples, self.seed)
                              for key, segment in zip(keys, segments, strict=True)])
        return _together([drawn(logits, uniforms[start : start + len(logits)]) for start, logits in _chunks(said)])


def _chunks(said: Dense | Headed) -> Iterator[tuple[int, Tensor]]:
    """Logits of all rows, a chunk of rows at a time and lost with the next, with the number of the first row."""
    if isinstance(said, Dense) or not len(said):
        yield 0, (said if isinstance(said, Dense) else said.dense()).logits
        return
    kind = said.head.classes, said.hidden.dtype, said.device
    with products(said, chunk_rows(len(said), *kind)) as theirs:
        for start, end in chunks(len(said), *kind):
            yield start, theirs.logits(theirs.chunk(start, end))


def _together(several: Sequence[Samples]) -> Samples:
    width = max(one.ids.shape[1] for one in several)
    ids, counts = (torch.cat([torch.nn.functional.pad(getattr(one, name), (0, width - one.ids.shape[1]))
                              for one in several]) for name in ("ids", "counts"))
    return Samples(ids, counts, torch.cat([one.entropy for one in several]))


def ranked(logits: Float[Tensor, "rows classes"], k: int, temperatures: Sequence[float]) -> Ranked:
    """The k classes with the largest logits, by id, and the log-odds of all others at each temperature."""
    pieces = found([partial(_ranked, piece, k, temperatures) for piece in _pieces(logits)], logits.device)
    ids, below, odds = (torch.cat(column).cpu() for column in zip(*pieces, strict=True))
    return Ranked(ids, below, odds)


def _ranked(
    logits: Float[Tensor, "rows classes"], k: int, temperatures: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.float()
    values, ids = largest(logits, k)
    ids, order = ids.sort(-1)
    values = values.gather(-1, order)
    # below the least of those inside, so that nothing overflows; never by subtraction: 1 - P has no digits near P = 1
    least = torch.where(values > -torch.inf, values, torch.inf).amin(-1, keepdim=True)
    outside = (logits - least).scatter_(-1, ids, -torch.inf)
    odds = []
    for one in temperatures:
        mass = (outside / one if one != 1 else outside).exp().sum(-1)
        odds.append(mass.log() - torch.logsumexp((values - least) / one, -1))
    return ids, values.amax(-1, keepdim=True) - values, torch.stack(odds, -1)


def largest(logits: Float[Tensor, "rows classes"], k: int) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest logits of every row in no order, and their classes; faster than `topk`.

    The k largest lie in the k blocks with the largest maxima: each of these holds a number that is at least as
    large as anything in any other block.
    """
    rows, classes = logits.shape
    blocks = classes // _BLOCK
    if blocks <= 8 * k:
        return logits.topk(k, sorted=False)
    cut = blocks * _BLOCK
    whole = logits[:, :cut].unflatten(-1, (blocks, _BLOCK))
    chosen = whole.amax(-1).topk(k, sorted=False).indices
    inside = whole.gather(1, chosen[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    candidates = torch.cat([inside, logits[:, cut:]], -1)
    classes_of = (chosen[..., None] * _BLOCK + torch.arange(_BLOCK, device=logits.device)).flatten(1)
    rest = torch.arange(cut, classes, device=logits.device).expand(rows, -1)
    values, places = candidates.topk(k, sorted=False)
    return values, torch.cat([classes_of, rest], -1).gather(-1, places)


def drawn(logits: Float[Tensor, "rows classes"], uniforms: Float[Tensor, "rows m"]) -> Samples:
    """m classes of every row drawn from softmax(logits), and the row's entropy in nats.

    uniforms: in [0, 1), one per draw. Draw j uses the j-th m-th part of the distribution (stratified): the expected
    counts are those of independent draws, m · p, and their variance is never larger.
    """
    m = uniforms.shape[1]
    targets = ((uniforms.double() + torch.arange(m, device=uniforms.device)) / m).to(logits.device)
    some = _pieces(logits)
    pieces = found([partial(_drawn, piece, those) for piece, those in zip(some, targets.split(len(some[0])), strict=True)],
                   logits.device)
    ids, entropy = (torch.cat([piece[place] for piece in pieces]).cpu() for place in (0, 1))
    return _counted(ids, entropy)


def _drawn(logits: Float[Tensor, "rows classes"], targets: Float[Tensor, "rows m"]) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    below = (logits - logits.amax(-1, keepdim=True)).clamp_min_(-1e4)  # 0 · log 0 = 0
    masses = below.exp()
    total = masses.sum(-1)
    entropy = total.log() - (below.mul_(masses).sum(-1) / total)
    return _inverse(masses, targets), entropy


def uniforms_of(key: bytes, rows: int, m: int, seed: int) -> Float[Tensor, "rows m"]:
    """The random numbers of a segment: from its content and the seed alone, whatever machine or batch it is in."""
    generator = np.random.Generator(np.random.Philox(key=np.array([np.frombuffer(key, np.uint64)[0], seed], np.uint64)))
    return torch.from_numpy(generator.random((rows, m)))


def _pieces(rows: Tensor) -> tuple[Tensor, ...]:
    numbers = _NUMBERS if rows.device.type == "cpu" else 64 * _NUMBERS
    pieces: tuple[Tensor, ...] = rows.split(max(8, numbers // rows.shape[1]))
    return pieces


def _inverse(masses: Float[Tensor, "rows classes"], targets: Float[Tensor, "rows m"]) -> Int[Tensor, "rows m"]:
    """The class where the running sum of the masses first exceeds its part of their total; never one without mass."""
    if masses.shape[1] <= _MANY:
        running = masses.cumsum(-1, dtype=torch.float64)
        return _placed(running, targets * running[:, -1:])
    padded = torch.nn.functional.pad(masses, (0, -masses.shape[1] % _BLOCK)).unflatten(-1, (-1, _BLOCK))
    sums = padded.sum(-1, dtype=torch.float64)
    ends = sums.cumsum(-1)
    targets = targets * ends[:, -1:]
    block = torch.searchsorted(ends, targets, right=True).clamp_max(sums.shape[-1] - 1)
    start = (ends - sums).gather(-1, block)
    inside = padded.gather(1, block[..., None].expand(-1, -1, _BLOCK)).double().cumsum(-1)
    return block * _BLOCK + _placed(inside, (targets - start)[..., None]).squeeze(-1)


def _placed(running: Float[Tensor, "*rows classes"], targets: Float[Tensor, "*rows m"]) -> Int[Tensor, "*rows m"]:
    """Where the running sum first exceeds the targets; the last class with mass for one that rounding put at its end."""
    last = torch.searchsorted(running, running[..., -1:].contiguous())
    return torch.minimum(torch.searchsorted(running, targets, right=True), last)


def _counted(ids: Int[Tensor, "rows m"], entropy: Float[Tensor, "rows"]) -> Samples:
    """Draws in order of their class, as classes with counts; zeros fill the rows up."""
    rows, m = ids.shape
    new = torch.ones_like(ids, dtype=torch.bool)
    new[:, 1:] = ids[:, 1:] != ids[:, :-1]
    place = new.long().cumsum(-1) - 1
    width = int(place.max()) + 1 if rows else 0
    counts = torch.zeros(rows, m).scatter_add_(1, place, torch.ones(rows, m))
    unique = torch.zeros(rows, m, dtype=torch.int64).scatter_(1, place, ids)
    return Samples(unique[:, :width], counts[:, :width], entropy)
