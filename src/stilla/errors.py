"""The errors that Stilla raises for a person to read: each says what, where, got, allowed, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from stilla.secrets import without_secrets

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but line break and tab, those that turn the direction of writing, halves of surrogate pairs."""


def visible(text: str) -> str:
    """The text as it may be shown: with what a terminal would obey written out (`\\x1b`), and without passwords and tokens.

    What a person is told quotes data, templates, models and addresses, which come from anywhere.
    """
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], without_secrets(text))


PROBLEM, SHOWN, MESSAGE = 600, 50, 40_000
"""Characters of one problem among several, how many of them are shown, characters of a whole message: what is quoted may be
of any size."""


def short(text: str, longest: int = PROBLEM) -> str:
    """The text, without its middle where it is too long: what is wrong stands at its beginning, what to do at its end."""
    if len(text) <= longest:
        return text
    left_out = f" [... {len(text) - longest:,} characters ...] "
    tail = longest // 4
    return f"{text[: max(0, longest - tail - len(left_out))]}{left_out}{text[-tail:]}"


class StillaError(Exception):
    """A mistake that its user can put right; the command line shows it without a traceback.

    `problems`: what is wrong, one by one, where it is several things.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(short(visible(message), MESSAGE))
        self.problems = tuple(short(visible(problem), MESSAGE) for problem in problems or (message,))


class RecipeError(StillaError):
    """The recipe says something that cannot be meant: an unknown key, a wrong type, a value out of range."""


class TrustError(RecipeError):
    """A run folder's recipe names code that nobody here has said to trust; none of it was run."""


class DataError(StillaError):
    """The data cannot be used as they are: a missing column, an unknown label, a broken file.

    It quotes data, so that it is cut to what a person can read, and to characters that a terminal can show.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(brief(message), problems)


class CompatibilityError(StillaError):
    """Two parts do not fit: teacher and student, an objective and a task, a model and a way of cutting it."""


class CacheError(StillaError):
    """Stored knowledge does not fit what it would be used for, or is damaged."""


class BusyError(CacheError):
    """Somebody else is writing to the cache."""


class FolderError(StillaError):
    """A run's folder cannot be used as it is: somebody is at work in it, or a file in it is not what was written."""


class FolderBusyError(FolderError):
    """Somebody else is at work in a run's folder."""


class ExportError(StillaError):
    """A format cannot hold this model, or what was written is not what was meant."""


class TrainingError(StillaError):
    """Training cannot go on: the loss is not finite, or a checkpoint cannot be written."""


def brief(text: str, longest: int = 2000) -> str:
    """At most `longest` characters: the beginning, and the end, where messages say what to do; as they can be shown."""
    text = short(text, longest)
    return text if text.isprintable() else "".join(
        one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


def quoted(value: object, longest: int = 60) -> str:
    """A value of the data as a message shows it: its `repr`, cut."""
    said = repr(value[:longest] if isinstance(value, str) else value)
    return f"{said[:longest]}..." if len(said) > longest or (isinstance(value, str) and len(value) > longest) else said


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """' Did you mean X?' if one of the known words is close to `word` or has it as a part, else nothing."""
    names = [str(name) for name in known]
    parts = [name for name in names if str(word) in name.replace("-", "_").split("_")]
    close = get_close_matches(str(word), names, n=1, cutoff=0.6) or parts
    return f" Did you mean {close[0]}?" if close else ""


def one_of(names: Sequence[str]) -> str:
    """'a, b or c': how errors list what is allowed."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} or {names[-1]}"


def all_of(names: Sequence[str]) -> str:
    """'a, b and c': how errors list what there is."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


_DO = {"is": "are", "has": "have", "was": "were"}


def counted(number: int, what: str, does: str = "") -> str:
    """`1 trial`, `2 queries`; with what they do: `1 query wins`, `2 queries win`."""
    return f"{number:,} {what if number == 1 else plural(what)} {agreeing(number, does)}".rstrip()


def agreeing(number: int, does: str) -> str:
    """What so many do: `1 wins`, `2 win`."""
    return does if number == 1 else _DO.get(does, does.removesuffix("s"))


def plural(what: str) -> str:
    """`trials`, `queries`, `masses`: of its last word."""
    if re.search(r"[^aeiou]y$", what):
        return f"{what[:-1]}ies"
    return f"{what}es" if re.search(r"(s|x|ch|sh)$", what) else f"{what}s"


def singular(what: str) -> str:
    """What `plural` is said of."""
    if what.endswith("ies"):
        return f"{what[:-3]}y"
    return what[:-2] if re.search(r"(s|x|ch|sh)es$", what) else what.removesuffix("s")


def all_at_once(problems: Sequence[str], kind: type[StillaError]) -> StillaError:
    """One error that lists every problem, so that a person corrects them in one go; of very many, the first."""
    if len(problems) == 1:
        return kind(problems[0])
    lines = "\n".join(f"  {number}. {short(problem)}" for number, problem in enumerate(problems[:SHOWN], 1))
    rest = f"\n  ... and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    return kind(f"{len(problems):,} problems:\n{lines}{rest}", problems)
