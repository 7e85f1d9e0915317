"""Students that stay below a limit: every number of layers, whole or narrower, each with as many tokens as there is room for.
Where layers cannot be cut, fewer tokens or a narrower width of all.

What a student is short of, layers, neurons or tokens, is not known before it has learnt: the best candidates differ in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.configs import ConfigPath, edited_config, skeleton
from stilla.models.knobs import Kind
from stilla.recipe import Width
from stilla.students.layers import Layers, depths, outline, with_layers, without_a_stack
from stilla.students.sizes import KINDS, Shares, changes, targets
from stilla.students.vocabulary import size_of_a_token
from stilla.students.width import Plan

READABLE = 0.97
"""Share of the texts' tokens that a student should still have, where others do."""
SPOKEN = 0.995
"""The same where tokens are what is learnt: of a translator that lacked one in twenty the teacher was twice as unsure."""
FINALISTS = 3
"""That are tried of those with whole layers."""
NARROWER = (3 / 4, 1 / 2)
"""Shares of the feed-forward neurons that leave room for more layers or tokens."""
NARROWEST = 1 / 4
"""Another, where tokens are what is learnt."""
SLIMMER = (3 / 4, 1 / 2, 1 / 4)
"""Shares of neurons, heads and hidden state, where no number of layers with the whole hidden state is small enough."""

_TOO_LARGE = ("Of its tokens and its width not enough can go to stay below the limit. Allow more, or give a student of other "
              "sizes (`config`), or one that there is (`model`)")
_UNLIMITED = "Say a limit, `student: {size: 0.5}`: below it, its tokens and its width are cut"


@dataclass(frozen=True)
class Candidate:
    """A student that could be made.

    layers: as a recipe says them; None where they cannot be cut, and all stay. tokens: of its vocabulary, None for all.
    parameters: about how many. kept: the share of the texts' tokens that it has. ffn: the share of the teacher's feed-forward
    neurons. hidden: of its heads and hidden state.
    """

    layers: Layers
    parameters: int
    tokens: int | None = None
    kept: float = 1.0
    ffn: float = 1.0
    hidden: float = 1.0

    @property
    def width(self) -> dict[str, float]:
        """By kind, as a recipe says it; empty where all of it is kept."""
        shares = {"ffn": self.ffn, "heads": self.hidden, "hidden": self.hidden}
        return {kind: share for kind, share in shares.items() if share < 1}

    @property
    def spec(self) -> dict[str, Any]:
        """As a recipe's `student` says it."""
        return {**({} if self.layers is None else {"layers": self.layers}), **({"width": self.width} if self.width else {}),
                **({} if self.tokens is None else {"vocabulary": {"tokens": self.tokens}})}

    @property
    def depth(self) -> int:
        """All its layers; 1 where they cannot be cut, however many they are."""
        if self.layers is None:
            return 1
        if isinstance(self.layers, int):
            return self.layers
        return sum(sum(one) if isinstance(one, list) else one for one in self.layers.values())


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a model's tokens: of `tokens` in all, `always` have to stay; `kept(n)`: the share of the texts' that
    the best n are."""

    tokens: int
    always: int
    kept: Callable[[int], float]


def candidates(
    teacher: nn.Module, most: int | None, vocabulary: Vocabulary | None, *, narrower: bool = False,
    fast: Callable[[Candidate], bool] | None = None, in_tokens: bool = False,
) -> list[Candidate]:
    """Of each way to keep layers, the one with the most tokens that has at most so many parameters, where it is `fast`
    enough; the deepest first. `narrower`: where that is not the whole teacher's layers with nearly all tokens of the texts,
    also the one with the most neurons of those that have them, or with the most tokens where none has; and where none at all
    has nearly all tokens, those of a smaller hidden state. `in_tokens`: tokens are what is learnt (see `finalists`).

    Raises:
        CompatibilityError: the teacher has no layers that could be cut, and its tokens and width cannot be cut either, or not
            far enough.
    """
    assert isinstance(teacher, PreTrainedModel) or vocabulary is None
    each = size_of_a_token(teacher) if vocabulary is not None and isinstance(teacher, PreTrainedModel) else 0
    ways, found = _ways(teacher), list[Candidate]()
    unlimited, fast = most is None and fast is None, fast or (lambda one: True)
    enough, shares = (SPOKEN, (*NARROWER, NARROWEST)) if in_tokens else (READABLE, NARROWER)
    cuts = _cuts(teacher, ways[-1][0], shares, "ffn") if narrower and most is not None else {}
    for layers, model in ways:
        whole = _fitting(Candidate(layers, _size(model)), most, vocabulary, each)
        if whole is not None and not whole.spec:  # nothing is cut: the teacher itself
            whole = None
        found += [] if whole is None else [whole]
        if whole is None or whole.kept < enough:
            less = (Candidate(layers, _size(skeleton(model, edited_config(model.config, said))), ffn=share)
                    for share, said in cuts.items())
            found += _reading_most((_fitting(one, most, vocabulary, each) for one in less), whole, enough)
    found = [one for one in found if fast(one)]
    if narrower and not any(one.kept >= enough for one in found):
        found += _slimmer(teacher, ways, most, vocabulary, fast, enough)
    if not found and ways[0][0] is None:
        raise CompatibilityError(f"student: {without_a_stack(teacher)} {_UNLIMITED if unlimited else _TOO_LARGE}")
    return sorted(found, key=lambda one: (one.depth, one.hidden, one.ffn, one.parameters), reverse=True)


def _ways(teacher: nn.Module) -> list[tuple[Layers, PreTrainedModel]]:
    """Those that a student can be of, each with its outline; the most layers first.

    Raises:
        CompatibilityError: of none, by the reason of the last.
    """
    found, refused = list[tuple[Layers, PreTrainedModel]](), list[CompatibilityError]()
    for layers in depths(teacher):
        try:
            found.append((layers, outline(teacher, layers)))
        except CompatibilityError as error:  # a kind of layer that a head reads is not among so few (Nemotron-H)
            refused.append(error)
    if not found:
        raise refused[-1]
    return found


def _reading_most(fitting: Iterable[Candidate | None], whole: Candidate | None, enough: float) -> list[Candidate]:
    """The first that reads `enough` of the texts; where none does, the one that reads most of them, if that is more than the
    `whole` one reads."""
    best = whole
    for one in fitting:
        if one is not None and (best is None or one.kept > best.kept):
            best = one
        if best is not None and best.kept >= enough:
            break
    return [] if best is None or best is whole else [best]


def _slimmer(
    teacher: nn.Module, ways: Sequence[tuple[Layers, PreTrainedModel]], most: int | None, vocabulary: Vocabulary | None,
    fast: Callable[[Candidate], bool], enough: float,
) -> list[Candidate]:
    """Of each way to keep layers, the widest that fits with nearly all tokens of the texts; where none has them, the one that
    has most of them."""
    cuts, found = _cuts(teacher, ways[-1][0], SLIMMER, *KINDS), list[Candidate]()
    for layers, model in ways:
        fitting = list[Candidate]()
        for share, said in cuts.items():
            less = skeleton(model, edited_config(model.config, said))
            each = 0 if vocabulary is None else size_of_a_token(less)
            one = _fitting(Candidate(layers, _size(less), ffn=share, hidden=share), most, vocabulary, each)
            fitting += [] if one is None or not fast(one) else [one]
            if fitting and fitting[-1].kept >= enough:
                break  # no narrower one has to be timed
        found += sorted(fitting, key=lambda one: one.kept, reverse=True)[:1]
    return found


def _fitting(one: Candidate, most: int | None, vocabulary: Vocabulary | None, each: int) -> Candidate | None:
    """With all tokens, else with as many as there is room for; None where not even those fit that have to stay. `each`: the
    parameters of a token."""
    if most is None or one.parameters <= most:
        return one
    if vocabulary is None or not each:
        return None
    tokens = vocabulary.tokens - -(-(one.parameters - most) // each)
    if tokens < vocabulary.always:
        return None
    left = one.parameters - (vocabulary.tokens - tokens) * each
    return replace(one, parameters=left, tokens=tokens, kept=vocabulary.kept(tokens))


def _size(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def _cuts(
    teacher: nn.Module, fewest: Any, shares: Sequence[float], *kinds: Kind
) -> dict[float, Mapping[ConfigPath, object]]:
    """What a config says of fewer units of these kinds, by their share; nothing where it cannot be said. Of a model of the
    fewest layers, as that is soon seen of one, and a deep one's config says it alike."""
    cuts: dict[float, Mapping[ConfigPath, object]] = {}
    shallow = with_layers(teacher, fewest).model
    if not isinstance(shallow, PreTrainedModel):  # a person's own, which has no config
        return cuts
    with suppress(CompatibilityError):
        plan = Plan(shallow, Width.model_validate(dict.fromkeys(kinds, min(shares))))
        for share in shares:
            cuts[share] = changes(plan.widths, targets(plan.widths, Shares(**dict.fromkeys(kinds, share))))
    return cuts


def finalists(found: Sequence[Candidate], most: int = FINALISTS, *, in_tokens: bool = False) -> list[Candidate]:
    """The deepest that can read nearly all of the texts, the next deeper one, and the next shallower ones; and the deepest of
    the narrower ones that can read as much. Of those of a smaller hidden state, the deepest; where there is nothing else, the
    deepest of each width.

    in_tokens: what is learnt are the tokens themselves. The teacher is then asked about those that the student makes of a
    text, of which it knows little where it makes others itself, and a divergence is of other rows: only those are tried that
    read nearly all of the texts, or most.

    Raises:
        CompatibilityError: there is no candidate.
    """
    if not found:
        raise CompatibilityError("student: no number of layers and tokens stays below the limit; a single layer with the "
                                 "tokens that every text needs is larger or slower, also with a quarter of its width where "
                                 "a config can say that. Allow more, or give a student of other sizes (`config`)")
    enough = READABLE
    if in_tokens:
        enough = min(SPOKEN, max(one.kept for one in found))
        found = [one for one in found if one.kept >= enough]
    slim, found = [one for one in found if one.hidden < 1], [one for one in found if one.hidden == 1]
    if not found:
        return list({one.hidden: one for one in reversed(slim)}.values())[::-1]
    whole, less = ([one for one in found if (one.ffn == 1) is said] for said in (True, False))
    least = next((one.depth for one in whole if one.kept >= enough), 0)
    readable = [one for one in less if one.kept >= enough and one.depth > least]
    deepest = readable[:1] if readable or least else sorted(less, key=lambda one: -one.kept)[:1]
    tried = [*_of_whole_layers(whole, most, enough), *deepest, *sorted(slim, key=lambda one: one.kept < enough)[:1]]
    return sorted(tried, key=lambda one: (one.depth, one.hidden, one.ffn), reverse=True)


def _readable(found: Sequence[Candidate], enough: float) -> int:
    """The place of the first that can read `enough` of the texts; of the first, where none can."""
    return next((place for place, one in enumerate(found) if one.kept >= enough), 0)


def _of_whole_layers(found: Sequence[Candidate], most: int, enough: float) -> list[Candidate]:
    if all(one.tokens is None for one in found):  # nothing speaks for fewer layers
        return list(found[:1]) if all(isinstance(one.layers, int) for one in found) else list(found[:most])
    first = max(0, _readable(found, enough) - 1)
    return list(found[first : first + most])
