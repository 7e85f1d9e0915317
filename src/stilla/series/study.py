"""The trials of a search in Optuna's journal, which several processes share: which is next, and what each reached.

Optuna's sampler proposes; here it is decided what becomes a trial. A trial whose process was killed is taken up by the next
process that asks. What is proposed depends on the trials before it and on the recipe's seed alone, so that a search that was
stopped goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from stilla.errors import FolderBusyError
from stilla.recipe import Recipe
from stilla.runtime.narrate import say
from stilla.series.ending import why_over
from stilla.series.own import own_values
from stilla.series.space import Params, Space
from stilla.series.trials import Reached, Trial, in_order
from stilla.stages.folder import RunFolder
from stilla.stages.together import TogetherFolder

RESULT, PROBLEM, REPEATS = "result", "problem", "repeats"
WRITING = 0.5
"""Seconds in which a line is written whole, if its writer lives."""
FIRST = 10
"""Trials that are drawn at random, before what they reached is gone by."""


@dataclass(frozen=True)
class Open:
    """A trial that this process is to make; its folder is held."""

    number: int
    values: dict[str, Any]
    folder: RunFolder


class Study:
    """One process's way to the trials."""

    def __init__(self, recipe: Recipe, folder: TogetherFolder, space: Space) -> None:
        assert recipe.search is not None
        self.recipe, self.search, self.folder, self.space = recipe, recipe.search, folder, space
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with folder.choosing(), _warnings_apart():
            _mend(folder.journal)
            self._storage = JournalStorage(JournalFileBackend(str(folder.journal)))
            # what is told is such that more is better
            self._study = optuna.create_study(study_name="search", storage=self._storage, direction="maximize",
                                              load_if_exists=True)

    def trials(self) -> list[Trial]:
        """All there are, but those that only repeated another."""
        kept = [one for one in self._all() if REPEATS not in one.user_attrs and self._whole(one)]
        ended = sorted((one for one in kept if one.state.is_finished()), key=lambda one: (one.datetime_complete, one.number))
        order = {one.number: place for place, one in enumerate(ended)}
        return [self._plain(one, order.get(one.number)) for one in kept]

    def next(self) -> tuple[Open | None, str]:
        """The trial to be made; or none, and why."""
        with self.folder.choosing(), _warnings_apart():
            left = self._left_by_another()
            if left is not None:
                return left, ""
            if why := why_over(self.search, self.space, self.trials()):
                return None, why
            one = self._proposed()
            folder = self.folder.trial(one.number)
            folder.open(overwrite=False)
            return Open(one.number, self.space.meant(one.params), folder), ""

    def tell(self, number: int, reached: Reached) -> None:
        self._note(number, RESULT, json.dumps(reached.plain()))
        self._study.tell(number, reached.score)

    def tell_problem(self, number: int, why: str) -> None:
        self._note(number, PROBLEM, why)
        self._study.tell(number, state=TrialState.FAIL)

    def failed_in_a_row(self) -> int:
        """How many of the last could not be made."""
        done = in_order(self.trials())
        return next((place for place, one in enumerate(reversed(done)) if one.problem is None), len(done))

    def _left_by_another(self) -> Open | None:
        """A trial that was begun by a process that is gone."""
        for one in self._all():
            if one.state != TrialState.RUNNING:
                continue
            folder = self.folder.trial(one.number)
            try:
                folder.open(overwrite=False)
            except FolderBusyError:  # its process is at work
                continue
            if self._whole(one):
                say(f"trial {one.number}: was stopped; goes on")
                return Open(one.number, self.space.meant(one.params), folder)
            folder.close()  # stopped before all its values were drawn
            self._note(one.number, REPEATS, -1)
            self._study.tell(one.number, state=TrialState.FAIL)
        return None

    def _proposed(self) -> FrozenTrial:
        """A trial with values that none before it had, where there are finitely many."""
        known = [self.space.exact(one.params) for one in self._all() if self._whole(one) and REPEATS not in one.user_attrs]
        left = [one for one in self.space.combinations() if one not in known]
        if not known and (own := self._own()) is not None:
            self._study.enqueue_trial(own)
        elif left and self.search.most is not None and self.space.size <= self.search.most:
            self._study.enqueue_trial(self._drawn(left))
        one = self._asked()
        if left and (exact := self.space.exact(one.params)) in known:
            self._note(one.number, REPEATS, known.index(exact))
            self._study.tell(one.number, state=TrialState.FAIL)
            self._study.enqueue_trial(self._drawn(left))
            one = self._asked()
        return one

    def _asked(self) -> FrozenTrial:
        number = len(self._all())
        self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=FIRST, seed=self._seed(number), multivariate=True)
        asked = self._study.ask(self.space.distributions())
        return self._all()[asked.number]

    def _drawn(self, left: list[Params]) -> Params:
        return left[int(np.random.default_rng(self._seed(len(self._all()))).integers(len(left)))]

    def _seed(self, number: int) -> int:
        return int(np.random.SeedSequence([self.recipe.seed, number]).generate_state(1)[0])

    def _own(self) -> Params | None:
        """The recipe's own values, which are tried first: what a search finds is then never worse."""
        return self.space.named(own_values(self.recipe, self.space))

    def _whole(self, one: FrozenTrial) -> bool:
        return set(one.params) == set(self.space.values)

    def _all(self) -> list[FrozenTrial]:
        with _warnings_apart():
            return self._study.get_trials(deepcopy=False)

    def _note(self, number: int, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._all()[number]._trial_id, name, value)

    def _plain(self, one: FrozenTrial, order: int | None) -> Trial:
        result, problem = one.user_attrs.get(RESULT), one.user_attrs.get(PROBLEM)
        if one.state == TrialState.FAIL and problem is None:
            problem = "it was stopped"
        reached = Reached.of(json.loads(result)) if result is not None and one.state == TrialState.COMPLETE else None
        return Trial(one.number, self.space.meant(one.params), reached, problem, order)


def _mend(journal: Path) -> None:
    """Cut off half a line, which a process left that was killed as it wrote: what is written behind it would be lost too."""
    content = journal.read_bytes() if journal.is_file() else b""
    if content and not content.endswith(b"\n"):
        time.sleep(WRITING)
        if journal.read_bytes() == content:  # else somebody was writing just now
            os.truncate(journal, content.rfind(b"\n") + 1)


@contextlib.contextmanager
def _warnings_apart() -> Iterator[None]:
    """Without Optuna's words about what is new in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
