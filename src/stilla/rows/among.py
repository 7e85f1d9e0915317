"""A teacher's distribution over some of its classes: those that a student has.

The distribution is the teacher's, given that it is one of these classes: p(i) / P, where P is the sum of p over them. Of
logits that is the softmax over theirs alone, at any temperature: exp(z_i / T) over the sum of these. The mass of the others,
1 - P, is spread over the kept ones in proportion, so that it favours none of them: of all distributions over the kept
classes, the one that is nearest to the teacher's own, in the sense of KL(q || p), and where the cross-entropy of the
teacher's with one over these classes alone is least. How much it was is what `evaluate` says of it.

All logits, and hidden states with a head, are exact so. Of the k likeliest classes those that are gone are left out, and the
others and the mass outside are divided by what is left; how much of the mass outside belongs to classes that are gone is not
known, and is taken for that of kept ones. Of samples, those of kept classes are samples of the distribution among them.
"""

from __future__ import annotations

import weakref
from typing import Any, assert_never

import torch
from jaxtyping import Int
from torch import Tensor

from stilla.signals import Dense, Form, Head, Headed, Samples, TopK


class Classes:
    """Some of a teacher's classes. `numbers`: of each of the student's, among the teacher's `of`; rising."""

    def __init__(self, numbers: Int[Tensor, " classes"], of: int) -> None:
        self.numbers = numbers
        self.of = of
        self._head: tuple[weakref.ref[Tensor], Head] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getstate__(self) -> dict[str, Any]:
        """Without what was copied of a head: other processes have heads of their own."""
        return {**vars(self), "_head": None}

    def among(self, said: Form) -> Form:
        """What a teacher said, over these classes, numbered as the student's."""
        if isinstance(said, Dense):
            return Dense(said.logits[:, self.numbers.to(said.device)])
        if isinstance(said, Headed):
            return Headed(said.hidden, self._of_head(said.head))
        if isinstance(said, TopK):
            return self._top(said)
        if isinstance(said, Samples):
            return self._samples(said)
        assert_never(said)

    def ours(self, numbers: Int[Tensor, "*places"]) -> Int[Tensor, "*places"]:
        """The student's numbers of a teacher's classes, -1 where it does not have them."""
        found = torch.full((self.of,), -1, dtype=torch.int64)
        found[self.numbers.cpu()] = torch.arange(len(self))
        return found.to(numbers.device)[numbers]

    def _of_head(self, head: Head) -> Head:
        """Its rows of these classes, copied once: the teacher's weights do not change, and walking over them whole in every
        step would cost more than what is compared."""
        if self._head is None or self._head[0]() is not head.weight:
            numbers = self.numbers.to(head.weight.device)
            bias = None if head.bias is None else head.bias.detach()[numbers]
            chosen = Head(head.weight.detach()[numbers], bias, head.scale, head.softcap)
            self._head = weakref.ref(head.weight), chosen
        return self._head[1]

    def _top(self, said: TopK) -> TopK:
        ids = self.ours(said.ids)
        there = ids >= 0
        inside = torch.where(there, said.log_probs, -torch.inf)
        # where all of the student's classes are among those inside, what lies outside is of classes that are gone
        tail = torch.where(there.sum(-1) < len(self), said.log_tail, -torch.inf)
        left = torch.logsumexp(torch.cat([inside, tail[:, None]], -1), -1)
        some = torch.isfinite(left)
        first = there.int().argmax(-1, keepdim=True)
        repeated = torch.where(there, ids, ids.gather(-1, first)).clamp_min(0)
        left = torch.where(some, left, 0)
        return TopK(repeated, inside - left[:, None], tail - left, said.temperature, there)

    def _samples(self, said: Samples) -> Samples:
        ids = self.ours(said.ids)
        return Samples(ids.clamp_min(0), torch.where(ids >= 0, said.counts, 0), said.entropy)
