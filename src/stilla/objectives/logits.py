"""The teacher's distribution over the classes of every row (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError, did_you_mean, one_of
from stilla.objectives import _divergences as divergences
from stilla.objectives._analytic import NO_LABEL, before_standardising, cross_entropy, standardised
from stilla.objectives._divergences import forward_kl, jsd, reverse_kl, tvd
from stilla.objectives._weights import softening
from stilla.objectives.base import Gradient, LayerMap, RowObjective, Softened
from stilla.recipe import Scheduled
from stilla.recipe.schedule import schedule
from stilla.signals import Dense, Dims, Form, Samples, TopK

__all__ = ["Divergence", "Logits", "forward_kl", "jsd", "reverse_kl", "tvd"]

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "tvd", "mse", "hard"]
_MOST = 100_000
_SKEWED = ("skew_kl", "skew_reverse_kl")


class Logits(RowObjective):
    """How far the student's distribution is from the teacher's, both softened by a temperature T.

    With p = softmax(teacher / T), q = softmax(student / T), per row:

    - `forward_kl`: T² Σ p (log p - log q). Covers all that the teacher thinks possible.
    - `reverse_kl`: T² Σ q (log q - log p). Seeks the teacher's favourites.
    - `jsd`: T² (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2. Symmetric, at most T² log 2.
    - `skew_kl`: T² KL(p || s p + (1 - s) q), at most -T² log s.
    - `skew_reverse_kl`: T² KL(q || s q + (1 - s) p), at most -T² log s.
    - `tvd`: T Σ |p - q| / 2. Bounded gradient.
    - `mse`: the mean over classes of (teacher - student)² of the logits themselves; takes no temperature.
    - `hard`: -log softmax(student) of the teacher's likeliest class; takes no temperature. Not zero at a perfect match.

    s is `skew` (0.1 unless given): the share that the *compared* distribution, p or q, has in the mixture. It keeps the
    loss bounded where the other side has no mass (DistiLLM, Ko et al. 2024, arXiv:2402.03898, where it is α).

    T² (T for `tvd`, which is of first order in the difference) keeps the gradient's scale independent of T, so
    that weights mean the same at every temperature. All but `hard` are zero at a perfect match. Several labels per example
    come as rows of two classes: per-label Bernoulli distributions.

    A teacher's likeliest k classes (`TopK`) are compared together with one more class for the mass of all others: a lower
    bound of the divergence over all classes, at the temperature that they were stored at. Classes drawn from the teacher
    (`Samples`) give an unbiased estimate of `forward_kl` at T = 1, and of no other.

    With `union`, only some classes of a row are compared: the k = `union` likeliest of the teacher, the k likeliest of the
    student, and the labelled one, each side's distribution given that it is one of these (U; V are the others). Of

        KL(p || q) = KL(P || Q) + P KL(p_U || q_U) + (1 - P) KL(p_V || q_V)        P = Σ_U p, Q = Σ_U q

    that is KL(p_U || q_U): what is outside of U is not taught, neither how much mass is there nor whose. This is its bias, 0
    where all classes are within. A subset that lacks the student's own favourites would leave them where they are (RCE-KD,
    arXiv:2509.20989). Needs all of a teacher's logits.

    With `standardise`, each side's logits are first centred and divided by their own spread over the classes, row by row:
    the temperature is T times that spread, and the loss does not change where the student's logits are multiplied by a
    number above 0 (Sun et al. 2024, arXiv:2403.01427). What size they have, other terms must teach. `mse` is then
    2 (1 - correlation). Needs all of a teacher's logits, and more than three classes.
    """

    def __init__(
        self,
        *,
        divergence: Divergence = "forward_kl",
        temperature: Scheduled | None = None,
        skew: float | None = None,
        standardise: bool = False,
        union: int | None = None,
    ) -> None:
        super().__init__()
        known = get_args(Divergence)
        if divergence not in known:  # from Python; a recipe's options are looked at before
            raise RecipeError(f"divergence: got {divergence!r}; expected {one_of(known)}.{did_you_mean(divergence, known)}")
        if divergence == "mse" and temperature is not None:
            raise RecipeError("temperature: `mse` compares the logits themselves and takes none; leave it out")
        if divergence == "hard" and (temperature is not None or standardise):
            raise RecipeError("divergence: `hard` asks for the teacher's likeliest class alone, which is the same at every "
                              "temperature; leave temperature and standardise out")
        if skew is not None and divergence not in _SKEWED:
            raise RecipeError(f"skew: `{divergence}` mixes nothing and takes none; leave it out, or use "
                              "`divergence: skew_kl` or `skew_reverse_kl`")
        if skew is not None and not 0 < skew < 1:
            raise RecipeError(f"skew: got {skew}; expected a number between 0 and 1")
        if union is not None and (divergence in ("mse", "hard") or standardise):
            raise RecipeError("union: compares distributions over the likeliest classes of both models; "
                              f"{'standardise' if standardise else f'`{divergence}`'} is about all of a row, or one of its "
                              "classes. Leave one of the two out")
        if union is not None and not 1 <= union <= _MOST:
            raise RecipeError(f"union: got {union}; expected a number from 1 to {_MOST:,}")
        self.divergence = divergence
        self.union = union
        self.skew = 0.1 if skew is None else skew
        self.standardise = standardise
        self.temperature = schedule(2.0 if temperature is None else temperature)
        softening(self.temperature)

    @property
    def accepts(self) -> tuple[type, ...]:
        if self.divergence == "mse" or self.standardise or self.union is not None:
            return (Dense,)  # of a part, the spread is not known, nor what it says of the student's favourites
        return (Dense, TopK, Samples) if self.divergence == "forward_kl" else (Dense, TopK)

    @property
    def described(self) -> str:
        return f"`logits` with {self.divergence}{' and standardise' if self.standardise else ''}" \
            f"{'' if self.union is None else ' and union'}"

    @property
    def instead(self) -> str:
        every = "`divergence: forward_kl`, which takes every form"
        if self.union is not None:
            return "leave `union` out, or use `cache: {form: hidden}`, which is all of it"
        if self.standardise:
            return "leave `standardise` out" + (f" and use {every}" if self.divergence == "mse" else "")
        return f"use {every}"

    @property
    def temperatures(self) -> tuple[float, ...]:
        return () if self.divergence in ("mse", "hard") or self.standardise else tuple(self.temperature.values())

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        number = (f"`logits` with {self.divergence} needs at least two classes, and these models have one output (a "
                  "number): softmax of one output is always 1, so it would teach nothing. Use `divergence: mse`, "
                  "which compares the numbers, or the objectives `labels` and `hidden`")
        few = (f"standardise: a row of {student.classes} classes divided by its spread tells little but which is the "
               "largest; it takes more than three. Leave `standardise` out")
        wrong = self.unlike(student, teacher, 1 if self.divergence == "mse" else 2, number)
        return wrong or (self.unlike(student, teacher, 4, few) if self.standardise else [])

    def unplaced(self, *, places: bool) -> list[str]:
        if not places or not self.standardise:
            return []
        return ["with standardise divides by the spread of a row's logits, and here those of most classes are no model's: no "
                "answer can be there. Leave `standardise` out"]

    def losses(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " rows"]:
        if self.standardise:
            logits, teacher = standardised(logits)[0], Dense(standardised(self.given(teacher, logits))[0])
        if self.divergence == "hard":
            return F.cross_entropy(logits, self._favourites(teacher, logits), reduction="none")
        if self.divergence == "mse":
            return (self.given(teacher, logits) - logits).square().mean(-1)
        temperature = self._temperature(teacher, progress)
        if self.union is not None:
            among = divergences.union(self.given(teacher, logits), logits, labels, self.union)
            logits, teacher = among.of(logits), Dense(among.of(self.given(teacher, logits)))
        softened, how = logits / temperature, divergences.measure(self.divergence, self.skew).at(temperature)
        if isinstance(teacher, TopK):
            return divergences.coarse(how, teacher, softened)
        if isinstance(teacher, Samples):
            return divergences.drawn(teacher, softened)
        target = self.given(teacher, logits) / temperature
        return how.value(torch.log_softmax(target, -1), torch.log_softmax(softened, -1))

    def losses_and_gradients(
        self, student: Softened, teacher: Form | None, labels: Tensor | None, progress: float
    ) -> tuple[Float[Tensor, " rows"], Gradient]:
        if not self.standardise:
            return self._compared(student, teacher, labels, progress)
        logits, spread = standardised(student.logits)
        told = Dense(standardised(self.given(teacher, logits))[0])
        losses, gradient = self._compared(Softened(logits), told, labels, progress)
        return losses, before_standardising(gradient, logits, spread)

    def _compared(
        self, student: Softened, teacher: Form | None, labels: Tensor | None, progress: float
    ) -> tuple[Float[Tensor, " rows"], Gradient]:
        logits = student.logits
        if self.divergence == "hard":
            return cross_entropy(student, self._favourites(teacher, logits))
        if self.divergence == "mse":
            gap = logits - self.given(teacher, logits)
            return gap.square().mean(-1), Gradient(((gap, 2 / gap.shape[-1]),))
        temperature = self._temperature(teacher, progress)
        how = divergences.measure(self.divergence, self.skew).at(temperature)
        if isinstance(teacher, TopK):
            return divergences.coarse_with_gradient(how, teacher, student, temperature)
        if isinstance(teacher, Samples):
            return divergences.drawn_with_gradient(teacher, student)
        if self.union is not None:
            given = self.given(teacher, logits)
            return divergences.among(how, divergences.union(given, logits, labels, self.union), given, logits, temperature)
        target = Softened(self.given(teacher, logits))
        if self.divergence != "forward_kl" or logits.device.type != "cpu":
            return divergences.dense(how, target, student, temperature)
        return divergences.dense_forward_kl(target, student, temperature)

    def _favourites(self, teacher: Form | None, like: Tensor) -> Int[Tensor, " rows"]:
        """The teacher's likeliest class of every row; NO_LABEL where nothing that was stored is left."""
        if not isinstance(teacher, TopK):
            return self.given(teacher, like).argmax(-1)
        largest, place = teacher.log_probs.max(-1)
        found = teacher.ids.gather(-1, place.unsqueeze(-1)).squeeze(-1)
        return torch.where(largest > -torch.inf, found, NO_LABEL)

    def _temperature(self, teacher: Form | None, progress: float) -> float:
        """This moment's, which must be that of a teacher that has only one."""
        temperature = self.temperature(progress)
        given = teacher.temperature if isinstance(teacher, TopK) else 1.0
        if isinstance(teacher, TopK | Samples) and abs(temperature - given) > 1e-6 * given:
            if isinstance(teacher, Samples):
                raise CompatibilityError(
                    f"`logits` has temperature {temperature:g}, and classes drawn from the teacher say nothing about "
                    "other temperatures than 1; use `temperature: 1`, or a teacher's top-k, hidden states or all logits")
            raise CompatibilityError(
                f"`logits` has temperature {temperature:g}, and the teacher's top-k were stored at {given:g}; the mass "
                "outside cannot be had at another one. Use that temperature, or store the top-k at this one")
        if isinstance(teacher, Samples) and self.divergence != "forward_kl":
            raise CompatibilityError(f"{self.described}: classes drawn from the teacher estimate forward_kl only; any other "
                                     "divergence would be biased. Use `divergence: forward_kl`, or another form of cache")
        return temperature

