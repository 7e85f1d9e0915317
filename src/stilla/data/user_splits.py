"""Splits of a recipe whose rows are events: gathered by user, and parted as the recipe says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from datasets import Dataset

from stilla.data import histories
from stilla.data.histories import Histories
from stilla.errors import DataError, all_at_once, all_of
from stilla.recipe import Data, Split
from stilla.recipe.events import Events, HoldOut

SHARE = 0.1
"""Of the events, that by time are held out for each of validation and test."""

MEASURED = ("validation", "test")

Draw = Callable[[dict[str, Dataset]], dict[str, Dataset]]
"""Takes what is missing of validation and test from whole rows of the training data."""


def parted(
    found: Mapping[str, Dataset], beside: Mapping[str, Dataset], section: Data, events: Events, draw: Draw,
    learnt_from: Sequence[str] = ("train",),
) -> dict[str, Dataset]:
    """The splits with a row for every user; those that are measured with what is to be foretold.

    found: of the data. beside: from elsewhere, each with users of its own. learnt_from: which of all are not measured.

    Raises:
        DataError: every problem, all at once.
    """
    read = _gathered({**found, **beside}, events)
    given = {name: read[name] for name in MEASURED if name in found}
    how = _how(read.get("train"), given, section, events)
    made = {name: one if name in learnt_from else histories.ending(one) for name, one in read.items() if name in beside}
    if "train" not in read:
        return {name: one.dataset() for name, one in ({name: histories.ending(one) for name, one in given.items()} | made
                                                      ).items()}
    train = read["train"]
    if how == "users":
        asked = {name: one.dataset() for name, one in _of_files(train, given, events).items()}
        drawn = draw({"train": train.dataset(), **asked})
        new = {name: histories.ending(histories.again(one)).dataset() for name, one in drawn.items()
               if name != "train" and name not in asked}
        return {**drawn, **new, **{name: one.dataset() for name, one in made.items()}}
    held = histories.last(train) if how == "last" else histories.by_time(train, *(_share(section, name) for name in MEASURED))
    return {name: one.dataset() for name, one in (held | made).items()}


def _gathered(splits: Mapping[str, Dataset], events: Events) -> dict[str, Histories]:
    problems: list[str] = []
    read = {}
    for name, split in splits.items():
        try:
            read[name] = histories.gathered(split, events)
        except DataError as error:
            problems += [one if one.startswith("data.") else f"data.{name}: {one}" for one in error.problems]
    if problems:
        raise all_at_once(list(dict.fromkeys(problems)), DataError)
    return read


def _how(train: Histories | None, given: Mapping[str, Histories], section: Data, events: Events) -> HoldOut:
    """Raises:
        DataError: what the recipe says of it does not go together.
    """
    wanted = events.hold_out
    named = [f"data.{name}" for name in given]
    shares = [f"data.{name}" for name in MEASURED
              if isinstance(one := getattr(section, name), Split) and one.split is not None]
    if named and wanted in ("last", "time"):
        raise DataError(f"data.hold_out: {wanted} parts the training data into all three splits, and {all_of(named)} "
                        f"{'is' if len(named) == 1 else 'are'} there already; leave one of them out")
    if wanted == "last" and shares:
        raise DataError(f"{all_of(shares)}: a share, and hold_out: last takes the last event of every user; leave it out, or "
                        "say hold_out: time or users")
    if wanted is not None:
        return wanted
    if named or train is None:
        return "users"
    return "last" if train.times is None else "time"


def _share(section: Data, name: str) -> float:
    wanted = getattr(section, name)
    return wanted.split if isinstance(wanted, Split) and wanted.split is not None else SHARE


def _of_files(train: Histories, given: Mapping[str, Histories], events: Events) -> dict[str, Histories]:
    """Raises:
        DataError: users of a file have the names of others, and nobody says whether they are the same.
    """
    earlier = {"train": train}
    found = {}
    for name in MEASURED:
        if name not in given:
            continue
        later = given[name]
        if events.users is None:
            both = len(set(train.users.to_pylist()) & set(later.users.to_pylist()))
            if both:
                raise DataError(f"data.{name}: {both:,} of its {len(later):,} users have the same id as one of data.train. "
                                "Say data.users: same, and what they do here is foretold of what they did there; or "
                                "data.users: apart, if they are others")
        found[name] = histories.following(earlier, later) if events.users == "same" else histories.ending(later)
        earlier[name] = later
    return found
