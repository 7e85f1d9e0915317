"""Which sizes a config can express: from the shares that are asked for to its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import gcd

from stilla.errors import CompatibilityError, all_at_once, all_of, one_of
from stilla.models.configs import ConfigPath, config_value
from stilla.models.knobs import Changes, Kind, Knob, Number, Widths, numbers_in, scaled

STEP = 8
"""What sizes that a share leads to are rounded to, where the whole one is a multiple of it: processors compute in eights."""

KINDS: tuple[Kind, ...] = ("ffn", "heads", "hidden")


@dataclass(frozen=True)
class Shares:
    """What is asked for of each kind: a share of it, or a number above 1."""

    ffn: float = 1.0
    heads: float = 1.0
    hidden: float = 1.0

    def of(self, kind: Kind) -> float:
        return {"ffn": self.ffn, "heads": self.heads, "hidden": self.hidden}[kind]


@dataclass(frozen=True)
class Target:
    """What the numbers of a knob become, and the share of its units that this leaves."""

    knob: Knob
    then: Mapping[ConfigPath, Number]
    share: float


def targets(widths: Widths, asked: Shares) -> tuple[Target, ...]:
    """The nearest to what is asked for that a config can say.

    Raises:
        CompatibilityError: there is nothing of a kind that could be cut, or not as asked; all problems at once.
    """
    found: list[Target] = []
    problems: list[str] = []
    for kind in KINDS:
        if asked.of(kind) == 1:
            continue
        try:
            found += _CUTS[kind](widths, asked, found)
        except CompatibilityError as error:
            problems += error.problems
    if not problems and all(target.share == 1 for target in found):
        problems.append("student.width: rounded to what can be said in a config, nothing is cut. Ask for less")
    if problems:
        raise all_at_once(problems, CompatibilityError)
    return tuple(target for target in found if target.share < 1)


def on_the_way(widths: Widths, goal: Iterable[Target], done: float) -> tuple[Target, ...]:
    """Targets that leave a part of the way to go: of what is left, the same share goes in every equal part of it."""
    found: list[Target] = []
    for target in goal:
        kind, share = target.knob.kind, target.share ** done
        alone = replace(widths, ffn=(target.knob,), heads=((target.knob,),), hidden=(target.knob,))
        asked = Shares(**{kind: share, **({"heads": share} if target.knob.bound else {})})
        with suppress(CompatibilityError):  # so little is to go that nothing can
            found += _CUTS[kind](alone, asked, found)
    return tuple(target for target in found if target.share < 1)


def changes(widths: Widths, wanted: Iterable[Target]) -> Changes:
    """What of the config has to change for these targets, and for nothing else of the model to change with them."""
    made: Changes = {}
    pins: Changes = {}
    narrower: dict[ConfigPath, float] = {}
    for target in wanted:
        made |= target.then
        pins |= target.knob.pins
        if target.knob.kind == "hidden":
            narrower |= {path[:-1]: target.share for path in target.knob.now}
    for knob in widths.ffn:
        for path, value in knob.now.items():
            share = narrower.get(path[:-1], 1.0)
            if share != 1 and knob.is_ratio:
                made[path] = scaled(made.get(path, value), 1 / share)
            elif share != 1 and config_value(widths.probe.model.config, path) is None:
                made.setdefault(path, value)
    if pins and (axes := widths.shapes.changed(made)) is not None and axes == widths.shapes.changed({**made, **pins}):
        pins = {}  # it follows anyway
    return {path: list(value) if isinstance(value, tuple) else value for path, value in {**made, **pins}.items()}


# --- by kind ---


def _ffn(widths: Widths, asked: Shares, others: Sequence[Target]) -> Iterator[Target]:
    if not widths.ffn:
        raise CompatibilityError(f"student.width.ffn: {widths.reasons['ffn']}. Leave ffn out")
    for knob in widths.ffn:
        share = _share(asked.ffn, knob.size, "ffn")
        (path, value), = knob.now.items()
        if knob.is_ratio:
            yield _nearest_ratio(widths, knob, path, value, share)
            continue
        size = round(share * knob.size) if asked.ffn > 1 else _rounded(share * knob.size, knob.size)
        yield Target(knob, {path: size}, size / knob.size)


def _nearest_ratio(widths: Widths, knob: Knob, path: ConfigPath, value: Number, share: float) -> Target:
    """A multiple of the hidden state's width: any number where the class takes it, else the nearest whole one."""
    size = _rounded(share * knob.size, knob.size)
    fractions = [] if isinstance(value, tuple) else [scaled(value, size / knob.size), float(value) * size / knob.size + 1e-9]
    whole = tuple(max(1, round(share * one)) for one in value) if isinstance(value, tuple) else max(1, round(share * value))
    for ratio in (*fractions, whole):
        axes = widths.shapes.changed({path: list(ratio) if isinstance(ratio, tuple) else ratio})
        if axes is not None and (ratio == whole or (size in {new for _, new in axes.values()} or not axes)):
            old, new = next(iter(axes.values()), (1, 1))
            return Target(knob, {path: ratio}, new / old)
    raise CompatibilityError(f"student.width.ffn: {path[-1]} cannot be {whole}. Ask for another share")


def _heads(widths: Widths, asked: Shares, others: Sequence[Target]) -> Iterator[Target]:
    if not widths.heads:
        if any(knob.bound for knob in widths.hidden):
            if asked.hidden == 1:
                raise CompatibilityError(
                    f"student.width.heads: {widths.reasons['heads']}, and a part of a head is not cut off. Cut the hidden "
                    f"state alike, {{heads: {asked.heads:g}, hidden: {asked.heads:g}}}, or leave heads out")
            return
        raise CompatibilityError(f"student.width.heads: {widths.reasons['heads']}. Leave heads out")
    for ways in widths.heads:
        share = _share(asked.heads, max(numbers_in(ways[0].now.values())), "heads")
        yield _nearest_heads(widths, [fewer for knob in ways for fewer in _fewer_heads(knob)], share, exact=asked.heads > 1)


def _fewer_heads(knob: Knob) -> Iterator[Target]:
    """Of every pool as many: of one pool with all groups, whole groups."""
    each = knob.size // knob.units[0].pools
    for left in range(1, each + 1):
        yield Target(knob, {path: _times(value, left, each) for path, value in knob.now.items()}, left / each)


def _nearest_heads(widths: Widths, ways: Sequence[Target], share: float, *, exact: bool) -> Target:
    """The nearest number of heads that the class takes: to some it has to divide the hidden state."""
    def takes(target: Target) -> bool:
        return widths.shapes.changed({**target.then, **target.knob.pins}) is not None

    nearest = sorted(ways, key=lambda target: abs(target.share - share))
    found = next(filter(takes, nearest), None)
    if found is None or (exact and found.share != share):
        (field, most), *_ = ways[0].knob.now.items()
        numbers = sorted({round(target.share * max(numbers_in([most]))) for target in filter(takes, ways)})
        raise CompatibilityError(f"student.width.heads: {field[-1]} cannot be {share * max(numbers_in([most])):g}; expected "
                                 f"{one_of(list(map(str, numbers)))}")
    return found


def _hidden(widths: Widths, asked: Shares, others: Sequence[Target]) -> Iterator[Target]:
    if not widths.hidden:
        raise CompatibilityError(f"student.width.hidden: {widths.reasons['hidden']}. Leave hidden out, or give the student "
                                 "as `student: {config: ...}`")
    for knob in widths.hidden:
        share = _share(asked.hidden, knob.size, "hidden")
        yield _with_heads(knob, share, asked) if knob.bound else _by_itself(widths, knob, share, asked, others)


def _with_heads(knob: Knob, share: float, asked: Shares) -> Target:
    """As much of the hidden state as of the heads: a head's size follows from both, and stays."""
    counts = [*numbers_in(knob.bound.values())]
    parts = gcd(*counts)  # all numbers of heads have to stay whole ones
    left = max(1, round(share * parts))
    fields = all_of([path[-1] for path in (*knob.now, *knob.bound)])
    if max(1, round(_share(asked.heads, max(counts), "heads") * parts)) != left:
        raise CompatibilityError(
            f"student.width.hidden: got {asked.hidden:g} and heads: {asked.heads:g}; expected the same share of both: a head "
            f"is as large as the hidden state divided by their number ({fields}), and no part of a head is cut off. Write "
            f"{{hidden: {asked.hidden:g}, heads: {left / parts:g}}}")
    if asked.hidden > 1 and left * knob.size != asked.hidden * parts:
        raise CompatibilityError(f"student.width.hidden: got {asked.hidden:g}; expected a multiple of {knob.size // parts}, "
                                 f"so that heads stay whole ({fields})")
    then = {path: _times(value, left, parts) for path, value in {**knob.now, **knob.bound}.items()}
    return Target(knob, then, left / parts)


def _by_itself(widths: Widths, knob: Knob, share: float, asked: Shares, others: Sequence[Target]) -> Target:
    """The nearest width that the class takes: some want it to be a multiple of the number of heads."""
    wanted = share * knob.size
    step = STEP if knob.size % STEP == 0 and knob.size >= 8 * STEP else 1
    sizes = [round(wanted)] if asked.hidden > 1 else sorted(range(step, knob.size + 1, step), key=lambda n: abs(n - wanted))
    for size in sizes[:100]:
        target = Target(knob, dict.fromkeys(knob.now, size), size / knob.size)
        if widths.shapes.changed(changes(widths, [*others, target])) is not None:
            return target
    raise CompatibilityError(
        f"student.width.hidden: no config of this class can say {all_of([path[-1] for path in knob.now])} = {round(wanted)}. "
        "Ask for another width: most want a multiple of the number of heads")


_CUTS: Mapping[Kind, Callable[[Widths, Shares, Sequence[Target]], Iterator[Target]]] = {
    "ffn": _ffn, "heads": _heads, "hidden": _hidden}


def _share(asked: float, size: int, kind: Kind) -> float:
    """Raises:
        CompatibilityError: more than there are.
    """
    if asked <= 1:
        return asked
    if asked > size:
        raise CompatibilityError(f"student.width.{kind}: got {asked:g}; the teacher has {size:,}. Expected fewer, or a share "
                                 "up to 1")
    return asked / size


def _rounded(size: float, whole: int) -> int:
    step = STEP if whole % STEP == 0 and whole >= 8 * STEP else 1
    return min(whole, max(step, step * round(size / step)))


def _times(value: Number, left: int, parts: int) -> Number:
    """A number that is divided by `parts` without a rest, times left / parts."""
    return tuple(one * left // parts for one in value) if isinstance(value, tuple) else int(value) * left // parts

