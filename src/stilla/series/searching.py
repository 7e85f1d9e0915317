"""A search: one trial after the other, each judged on validation data, until a rule says that it is enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stilla.check import refuse_known_problems, refuse_wrong_names
from stilla.check.spaces import SAID_IN, of_a_trial
from stilla.errors import FolderError, RecipeError, StillaError, all_of, counted
from stilla.recipe import Cache, Recipe
from stilla.recipe.file import with_values
from stilla.recipe.written import brief
from stilla.recipe.yaml import flow
from stilla.report import numbers
from stilla.report.searched import write_search
from stilla.runtime.files import write_whole
from stilla.runtime.narrate import say
from stilla.runtime.processes import processes
from stilla.runtime.quiet import quiet_libraries
from stilla.scores import metric_title
from stilla.series.ending import remarks
from stilla.series.own import why_no_trial_has_them
from stilla.series.space import Space
from stilla.series.study import Open, Study
from stilla.series.trial import drop_weights, tried
from stilla.series.trials import Reached, Trial, best_of
from stilla.stages.given import Call, Source
from stilla.stages.together import TogetherFolder

BUDGET = ("trials", "minutes", "patience", "until")
"""Of a search: what may change when it goes on."""
FAILURES = 5
"""Trials in a row that could not be made, after which nothing better can be hoped for."""


@dataclass(frozen=True)
class Searched:
    """A search that has come to its end. `why`: it did. `recipe`: with the best trial's values, in `best.yaml`."""

    folder: Path
    trials: tuple[Trial, ...]
    best: Trial
    recipe: Recipe
    why: str
    remarks: tuple[str, ...]
    best_recipe: Path
    page: Path


def search(recipe: Source = None, *overrides: str, overwrite: bool = False, **options: Any) -> Searched:
    """Try values of a recipe's fields, as its `search` says, and write the best of them as a recipe.

    Takes a recipe's file, what stands in one, or its sections as keywords. The same again goes on where it was stopped, and
    several processes may do it at once.

    Raises:
        StillaError: whatever a person has to put right; before anything is trained, where it can be known.
        KeyboardInterrupt: stopped; the same again goes on.
    """
    call = Call.of(recipe, overrides, options)
    if call.given:
        raise RecipeError("search: data and models have to be named, as several processes may read them: files, folders or "
                          "Hugging Face names")
    return _search(call.recipe, overwrite=overwrite)


def _search(recipe: Recipe, *, overwrite: bool) -> Searched:
    quiet_libraries()
    _refuse(recipe)
    folder, space = TogetherFolder(Path(recipe.output), "search"), Space.of(recipe)
    folder.open(_inputs(recipe), overwrite=overwrite)
    study = Study(recipe, folder, space)
    for why in why_no_trial_has_them(recipe, space):
        say(f"search: {why}")
    while True:
        trial, why = study.next()
        if trial is None:
            break
        _make(recipe, folder, study, trial)
        _write(recipe, folder, study)
        if study.failed_in_a_row() >= FAILURES:
            why = f"{FAILURES} trials in a row could not be made: {study.trials()[-1].problem}"
            break
    return _ended(recipe, folder, study, why)


def _inputs(recipe: Recipe) -> dict[str, Any]:
    """All that the trials depend on; not when there are enough of them."""
    return recipe.model_dump(mode="json", exclude={"output": True, "search": set(BUDGET)})


def _refuse(recipe: Recipe) -> None:
    if recipe.search is None:
        raise RecipeError("search: the recipe has none. It says what to try, for example search: {over: "
                          "{distill.learning_rate: {low: 1e-5, high: 1e-3, log: true}, student.layers: [2, 3, 4]}}")
    if processes().num_processes > 1:
        raise RecipeError("search: a launcher lets several processes share one training, and a search has many. Start "
                          "`stilla search` several times instead: all that work in one folder share its trials")
    refuse_wrong_names(recipe)
    say("looking at every value once, before anything is trained")
    refuse_known_problems(recipe)


def _make(recipe: Recipe, folder: TogetherFolder, study: Study, trial: Open) -> None:
    """Train and measure one, and write down what came of it."""
    say(f"trial {trial.number}: {values_in_words(trial.values)}")
    try:
        best = best_of(study.trials())
        reached = tried(trial_of(recipe, trial.values, trial.folder.path), trial.folder, folder.shared,
                        None if best is None else best.reached)
        study.tell(trial.number, reached)
        say(f"trial {trial.number}: {_reached_in_words(reached)}")
    except FolderError:
        raise
    except (StillaError, torch.OutOfMemoryError) as error:
        study.tell_problem(trial.number, str(error).partition("\n")[0])
        say(f"trial {trial.number}: could not be made: {error}")
    finally:
        trial.folder.close()


def trial_of(recipe: Recipe, values: dict[str, Any], output: Path) -> Recipe:
    """The recipe of a trial: only the student, and only what is needed to judge it.

    Raises:
        RecipeError: values that do not go together.
    """
    assert recipe.search is not None
    changed = of_a_trial(with_values(recipe, values, SAID_IN).complete(), recipe.search.seeds)
    return changed.model_copy(update={"output": str(output)})


def _best_recipe(recipe: Recipe, folder: TogetherFolder, best: Trial) -> Recipe:
    """What a run makes the best trial's student of: it lies in the trial's folder already, and is not trained again."""
    assert best.reached is not None
    changed = with_values(recipe, best.values, SAID_IN).complete()
    return changed.model_copy(update={"output": str(folder.trial(best.number).path),
                                      "cache": Cache.model_validate(best.reached.cache)})


def _write(recipe: Recipe, folder: TogetherFolder, study: Study, why: str = "") -> None:
    """The best recipe and the page, and away with what only other trials would need."""
    with folder.choosing():
        trials = study.trials()
        best = best_of(trials)
        if best is not None:
            for one in trials:
                if one.order is not None and one.number != best.number:
                    drop_weights(folder.trial(one.number))
            head = f"# The best of {len(trials)} trials of `stilla search`: {in_words(best)}\n"
            write_whole(folder.best, head + brief(_best_recipe(recipe, folder, best)))
        said = tuple(remarks(recipe, study.space, trials))
        write_search(folder.path.name, trials, best, why, said, folder.page)


def _ended(recipe: Recipe, folder: TogetherFolder, study: Study, why: str) -> Searched:
    trials = study.trials()
    best = best_of(trials)
    if best is None:
        problems = [f"trial {one.number}: {one.problem}" for one in trials if one.problem]
        raise RecipeError("search: no trial could be made" + "".join(f"\n  {one}" for one in problems[:FAILURES]))
    _write(recipe, folder, study, why)
    say(f"search: over, as {why}")
    return Searched(folder.path, tuple(trials), best, _best_recipe(recipe, folder, best), why,
                    tuple(remarks(recipe, study.space, trials)), folder.best, folder.page)


def values_in_words(values: dict[str, Any]) -> str:
    return all_of([f"{path} {f'{value:.4g}' if isinstance(value, float) else flow(value)}" for path, value in values.items()])


def in_words(trial: Trial) -> str:
    return f"trial {trial.number}" if trial.reached is None else f"trial {trial.number}, {_reached_in_words(trial.reached)}"


def _reached_in_words(reached: Reached) -> str:
    interval = numbers.interval(reached.metric, reached.quality)
    kept = "" if reached.retention is None else f", {numbers.percent(reached.retention)} of its teacher's"
    left = f"; behind the best beyond noise, {counted(reached.left, 'further seed')} left out" if reached.left else ""
    return (f"{metric_title(reached.metric)} {numbers.quality(reached.metric, reached.quality.value)}"
            f"{f' {interval}' if interval else ''} on validation data{kept}{left}")
