"""Which units of a wider teacher a narrower student takes over that was not cut from it: neurons, heads, numbers of the
hidden state, where both configs say how many there are.

What a unit is, `models/widths.py` finds in the teacher, as for a student that is cut (`width.py`). How many of them the
student has, the shapes of its weights say. What cannot be taken over is said by name, and stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.configs import ConfigPath
from stilla.models.counterparts import Names
from stilla.models.knobs import Kind, Knob, Number, numbers_in
from stilla.models.members import NOBODYS, Units
from stilla.models.slices import slices_of
from stilla.models.widths import find_widths
from stilla.students.sizes import KINDS
from stilla.students.student import Student
from stilla.students.width import Cut, Score, best

_CALLED: Mapping[Kind, str] = {"ffn": "neurons", "heads": "heads", "hidden": "numbers of the hidden state"}


class Towards:
    """What of a teacher a student's weights answer to.

    counts: by the name of units, how many of them it takes over, where those are fewer than all. reasons: why it takes over
    none of some, in words.
    """

    rounds = 1
    """In which it is measured what matters: between both sizes there is no model that could be measured."""

    def __init__(self, student: Student, teacher: nn.Module) -> None:
        """Raises:
            CompatibilityError: the teacher is no model of transformers, or could not be run to see what goes together.
        """
        self.model = teacher
        self.units: list[Units] = []
        self.counts: dict[str, int] = {}
        self.reasons: list[str] = []
        ours = {name: one.shape for name, one in student.model.named_parameters()}
        theirs = {name: one.shape for name, one in teacher.named_parameters(remove_duplicate=False)}
        names = Names(student.model, teacher, student.origins)
        answering = {other: shape for name, shape in ours.items()
                     if len(theirs.get(other := names.teachers(name), ())) == len(shape)}
        self._sizes = {(name, axis): sizes for name, shape in answering.items()
                       for axis, sizes in enumerate(zip(theirs[name], shape, strict=True))}
        if all(old == new for old, new in self._sizes.values()):
            return
        if not isinstance(teacher, PreTrainedModel):
            raise CompatibilityError(f"student.interpolate.units: {type(teacher).__name__} is no model of transformers, "
                                     "whose config would say how wide it is. Leave units out: what has the same shape is "
                                     "moved")
        config = getattr(student.model, "config", None)
        widths = find_widths(teacher, KINDS)
        there: Mapping[Kind, Sequence[Sequence[Knob]]] = {
            "ffn": [(one,) for one in widths.ffn], "heads": widths.heads, "hidden": [(one,) for one in widths.hidden]}
        for kind, several in there.items():
            for knobs in several:
                self._take(kind, [(knob, widths.units([knob])) for knob in knobs], config)
        bound = any(knob.bound for knob in widths.hidden)  # heads are then taken with the hidden state
        self.reasons += [widths.reasons[kind] for kind in KINDS if not there[kind] and not (kind == "heads" and bound)]

    def cut(self, score: Score) -> Cut:
        """score: what each unit of the teacher matters."""
        scores = score(self.model, self.units) if self.units else {}
        kept = {one.name: best(scores[one.name], self.counts[one.name], one.pools) for one in self.units}
        return Cut({}, slices_of(self.units, kept))

    def _take(self, kind: Kind, ways: Sequence[tuple[Knob, Sequence[Units]]], config: object) -> None:
        """The first of several ways to have fewer of them that leads to the student's numbers."""
        problems = []
        for knob, units in ways:
            counts = {one.name: count for one in units if (count := self._count(one)) is not None}
            wrong = next(self._wrong(kind, knob, [one for one in units if one.name in counts], counts, config), None)
            if wrong is None:
                fewer = [one for one in units if counts.get(one.name, one.count) < one.count]
                self.units += fewer
                self.counts |= {one.name: int(counts[one.name]) for one in fewer}
                return
            problems.append(wrong)
        self.reasons.append(problems[0])

    def _wrong(
        self, kind: Kind, knob: Knob, units: Sequence[Units], counts: Mapping[str, float], config: object
    ) -> Iterator[str]:
        said = ", ".join(path[-1] for path in (*knob.now, *knob.bound))
        for one in units:
            count = counts[one.name]
            if count > one.count:
                yield f"{_CALLED[kind]}: the student has more than its teacher ({said})"
            if count != int(count) or int(count) % one.pools:
                yield f"{_CALLED[kind]}: a part of one would have to be taken over ({said})"
        shares = {counts[one.name] / one.count for one in units}
        for path, now in (knob.bound or (knob.now if kind == "heads" else {})).items():
            then = _said(config, path)
            if then is None:
                yield f"{_CALLED[kind]}: the teacher's config has {'.'.join(path)}, and the student's has not"
            elif any([one * share for one in numbers_in([now])] != [*numbers_in([then])] for share in shares):
                yield (f"{_CALLED[kind]}: the student's heads are of another size than its teacher's ({'.'.join(path)}: "
                       f"{then} and {now}), and no part of a head is taken over")

    def _count(self, units: Units) -> float | None:
        """How many the student has; None where none of its weights says so, or they say different things."""
        found = set()
        for member in units.members:
            if (sizes := self._sizes.get((member.tensor, member.axis))) is not None:
                always = int((member.unit == NOBODYS).sum())
                each = (len(member.unit) - always) / units.count
                found.add((sizes[1] - always) / each)
        return found.pop() if len(found) == 1 else None


def _said(config: object, path: ConfigPath) -> Number | None:
    """What a config says at a path, if it has one."""
    for key in path:
        config = vars(config).get(key) if isinstance(config, PreTrainedConfig) else None
    return tuple(config) if isinstance(config, list) else config if isinstance(config, int | float | tuple) else None
