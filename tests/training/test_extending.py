"""A training that has not converged goes on, part by part, within its limit; also after a stop, and in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Labels, Logits
from stilla.objectives.base import Term
from stilla.recipe import Average, Training
from stilla.training.arguments import training_arguments
from stilla.training.converging import Ending, Verdict
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, examples, losses, trainer, weights
from tests.equivalence.test_resume import StopAt

PART = 6
BY = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
RISING = [0.1, 0.3, 0.4, 0.5, 0.55, 0.6]
"""The end of a part that made much of its progress late."""
ENOUGH = [0.1, 0.5, 0.6, 0.6, 0.605, 0.61]


def verdict(values: Sequence[float], part: int, *, higher: bool = True) -> Verdict:
    return Verdict.of([(step, value) for step, value in enumerate(values, 1)], part, higher_is_better=higher)


# --- the rule ---


def test_a_first_part_is_judged_by_its_last_fifth() -> None:
    found = verdict([0.0, 0.5, 0.7, 0.8, 0.82, 0.84, 0.86, 0.9, 0.92, 1.0], 10)
    assert (found.why, found.parts) == ("growing", 1)
    assert found.gained == pytest.approx(0.1)  # from 0.9 at step 8 to 1.0, of 1.0
    assert verdict([0.0, 0.5, 0.7, 0.8, 0.82, 0.84, 0.86, 0.96, 0.92, 1.0], 10).why == "converged"


def test_further_parts_are_judged_by_their_ends() -> None:
    """By the best, which is what is kept: what came and went between, while the rate was high, says nothing."""
    first, high = [0.0, 0.5, 0.7, 0.75, 0.8], [0.2, 0.3, 0.4, 0.5]
    grown = verdict([*first, *high, 0.9], 5)
    assert (grown.why, grown.parts) == ("growing", 2)
    assert grown.gained == pytest.approx(0.1 / 0.9)
    still = verdict([*first, *high, 0.9, *high, 0.92], 5)
    assert (still.why, still.parts) == ("converged", 3)
    assert still.gained == pytest.approx(0.02 / 0.92)
    worse = verdict([*first, *high, 0.7], 5)
    assert (worse.why, worse.gained) == ("converged", 0.0)


def test_less_may_be_better() -> None:
    values = [1.0, 0.5, 0.3, 0.2, 0.1]
    assert verdict(values, 5, higher=False).why == "growing"
    assert verdict(values, 5).why == "converged"  # it only became worse


def test_what_is_no_better_than_the_best_before_has_converged() -> None:
    """A measure jumps about: an end above the last end may be below what there was already."""
    assert verdict([0.5, 0.4, 0.3, 0.2, 0.4], 5) == Verdict("converged", 0.0, 1)
    assert verdict([0.1, 0.6, 0.4, 0.3, 0.4, 0.3, 0.3, 0.3, 0.3, 0.59], 5) == Verdict("converged", 0.0, 2)


def test_too_few_evaluations_and_an_end_that_was_not_measured_say_nothing() -> None:
    assert verdict([0.1, 0.2, 0.3, 0.4], 4).why == "unknown"
    assert verdict([0.1, 0.2, 0.3, 0.4, 0.5], 6).why == "unknown"
    assert Verdict.of([], 6, higher_is_better=True).why == "unknown"
    assert Verdict.of([(6, 0.1), (8, 0.3), (10, 0.4)], 5, higher_is_better=True).why == "unknown"  # nothing of the first


def test_an_ending_is_read_as_it_was_written() -> None:
    ending = Ending(Verdict("growing", 0.25, 3), "kl", 3, 40)
    assert Ending.read(ending.plain()) == ending
    assert not ending.goes_on
    assert ending.said("KL") == ("stopped at its limit of 3 times its steps, not yet converged: its last part made 25% of "
                                 "all progress in KL")
    assert Ending.read({"why": "growing"}) is Ending.read(None) is None


# --- the training ---


def by_series(folder: Path, series: Sequence[float], *, extend: int | None = 3, callbacks: Sequence[TrainerCallback] = (),
              **options: Any) -> Any:
    """Measured by what is written down for each step."""
    found: list[Any] = []
    found.append(trainer(folder, callbacks=callbacks, extend=extend, **{
        **BY, "metric_for_best_model": "chosen", "greater_is_better": True, "max_steps": PART, "dropout": 0.2,
        "compute_metrics": lambda _: {"chosen": series[found[0].state.global_step - 1]}, **options}))
    return found[0]


def rates(trained: Any) -> list[float]:
    return [entry["learning_rate"] for entry in trained.state.log_history if "learning_rate" in entry]


@pytest.mark.slow
@pytest.mark.parametrize(("series", "ends", "why"), [
    (ENOUGH, 6, "converged"), (RISING + ENOUGH, 12, "converged"),
    ([*RISING, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8], 18, "growing"),
    ([*RISING, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.2, 0.3, 0.4, 0.5, 0.6, 0.71], 18, "converged")])
def test_it_goes_on_until_it_has_converged_or_is_at_its_limit(
    tmp_path: Path, series: list[float], ends: int, why: str
) -> None:
    told: list[int] = []
    made = by_series(tmp_path, series)
    made.extending.goes_on = lambda ending, until: told.append(until)
    made.train()
    assert made.state.global_step == made.state.max_steps == ends
    assert made.extending.ending.verdict.why == why
    assert told == [12, 18][: ends // PART - 1]
    evaluated = [entry["step"] for entry in made.state.log_history if "eval_chosen" in entry]
    assert evaluated == list(range(1, ends + 1)), "each once"
    best = max(range(ends), key=lambda step: series[step]) + 1
    assert made.state.best_global_step == best


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_every_part_has_the_learning_rate_of_the_first(tmp_path: Path, kind: str) -> None:
    options = {"lr_scheduler_type": kind, "warmup_steps": 2}
    made = by_series(tmp_path / "on", RISING + ENOUGH, **options)
    made.train()
    alone = by_series(tmp_path / "alone", ENOUGH, extend=None, **options)
    alone.train()
    assert rates(made) == rates(alone) * 2
    assert rates(alone)[0] == 0
    assert rates(alone)[2] == 5e-2


@pytest.mark.slow
def test_a_level_rate_stays_level_and_what_it_goes_on_is_the_longer_training(tmp_path: Path) -> None:
    """Bit for bit: the same examples, moments and randomness; also where a part ends within an epoch (of three steps)."""
    options = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2, "optim": "adamw_torch", "max_steps": 5,
               "objectives": [Term(Labels(), weight=0.3), Term(Logits(), weight=0.7)]}
    series = [0.1, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.61]
    made = by_series(tmp_path / "on", series, **options)
    made.train()
    longer = by_series(tmp_path / "long", series, extend=None, **{**options, "max_steps": 10})
    longer.train()
    assert made.state.global_step == 10
    assert rates(made) == rates(longer)
    assert losses(made) == losses(longer)
    assert distance(weights(made), weights(longer)) == 0


@pytest.mark.slow
def test_schedules_make_their_way_in_the_first_part_and_stay(tmp_path: Path) -> None:
    made = by_series(tmp_path, RISING + ENOUGH)
    seen: list[float] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(made._progress)

    made.add_callback(Watch())
    made.train()
    assert seen == pytest.approx([step / PART for step in range(PART)] + [1.0] * PART)


@pytest.mark.slow
def test_a_part_that_was_saved_is_measured_at_its_end_however_seldom_else(tmp_path: Path) -> None:
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "max_steps": 15}  # of three steps each
    series = [step / 100 for step in range(1, 61)]
    made = by_series(tmp_path, series, extend=2, **options)
    made.train()
    assert [entry["step"] for entry in made.state.log_history if "eval_chosen" in entry] == list(range(3, 31, 3))
    assert made.state.global_step == 30


@pytest.mark.slow
@pytest.mark.parametrize("average", [None, Average(ema=0.6)], ids=["", "averaged"])
@pytest.mark.parametrize("stop", [2, 5, 6, 7, 11, 12, 13])
def test_stopped_anywhere_and_continued_it_is_the_whole_one(tmp_path: Path, stop: int, average: Average | None) -> None:
    options = {"optim": "adamw_torch", "average": average}
    series = [*RISING, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.2, 0.3, 0.4, 0.5, 0.6, 0.71]
    whole = by_series(tmp_path / "whole", series, **options)
    whole.train()
    assert whole.state.global_step == 18
    first = by_series(tmp_path / "parts", series, callbacks=[StopAt(stop)], **options)
    first.train()
    assert first.state.global_step == stop
    torch.manual_seed(99)
    again = by_series(tmp_path / "parts", series, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert again.state.global_step == 18
    assert distance(weights(whole), weights(again)) == 0
    assert rates(whole) == rates(again)
    assert losses(whole)[stop:] == losses(again)[stop:]


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [False, True], ids=["steps", "epochs"])
def test_what_has_ended_is_not_gone_on_with_unless_its_limit_is_higher(tmp_path: Path, epochs: bool) -> None:
    options = {"max_steps": -1, "num_train_epochs": 2} if epochs else {}
    series = [*RISING, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, *ENOUGH]
    whole = by_series(tmp_path, series, extend=2, **options)
    whole.train()
    assert whole.state.global_step == 12
    again = by_series(tmp_path, series, extend=2, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    assert again.state.global_step == again.state.max_steps == 12
    assert again.extending.ending == whole.extending.ending
    assert distance(weights(whole), weights(again)) == 0
    more = by_series(tmp_path, series, extend=3, **options)
    more.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    at_once = by_series(tmp_path / "at once", series, extend=3, **options)
    at_once.train()
    assert more.state.global_step == at_once.state.global_step == 18
    assert distance(weights(more), weights(at_once)) == 0


@pytest.mark.slow
def test_four_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    series = RISING + ENOUGH
    options = {"data": examples(17), "max_steps": -1, "num_train_epochs": 2, "dropout": 0.0}
    made = [by_series(tmp_path / str(pieces), series, per_device_train_batch_size=8 // pieces,
                      gradient_accumulation_steps=pieces, **options) for pieces in (1, 4)]
    for one in made:
        one.train()
    assert [one.state.global_step for one in made] == [12, 12]
    assert distance(weights(made[0]), weights(made[1])) < 2e-6


@pytest.mark.slow
def test_two_processes_go_on_as_one(tmp_path: Path) -> None:
    ((alone, steps),) = launch(tmp_path / "one", 1, "tests.equivalence.setting", 17, 8, 1, "extended")
    (first, theirs), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.setting", 17, 4, 1, "extended")
    assert len(steps) == len(theirs) > 6, "or this test tells nothing"
    assert distance(first, second) == 0
    assert distance(alone, first) < 2e-6


@pytest.mark.slow
def test_a_wish_to_stop_at_the_end_of_a_part_is_heard(tmp_path: Path) -> None:
    """It is saved there, measured, and goes on from there."""
    made = by_series(tmp_path, RISING + ENOUGH)

    class Ask(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            made.guard.asked = state.global_step == PART - 1

    made.add_callback(Ask())
    made.train()
    assert made.guard.stopping
    assert made.state.global_step == PART
    assert (tmp_path / f"checkpoint-{PART}").is_dir()
    again = by_series(tmp_path, RISING + ENOUGH)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{PART}"))
    assert again.state.global_step == 2 * PART


@pytest.mark.parametrize(("options", "words"), [
    ({"extend": 1}, "extend: got 1; expected .* 2 or more"),
    ({"load_best_model_at_end": False}, "extend: goes by what is measured along the way"),
    ({"average": Average(last=0.5)}, "extend: nobody knows beforehand which part is the last"),
    ({"data": examples().to_iterable_dataset()}, "extend: what a stream gives"),
])
def test_what_cannot_go_on_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(CompatibilityError, match=words):
        by_series(tmp_path, RISING, **options)


# --- what a recipe says ---


def arguments(folder: Path, **keys: Any) -> Any:
    return training_arguments(Training(extend=4, **keys), output_dir=folder, seed=7, metrics={"accuracy": True, "kl": False})


def test_every_part_is_measured_ten_times_where_a_recipe_does_not_say(tmp_path: Path) -> None:
    made = arguments(tmp_path)
    assert (made.eval_strategy, made.eval_steps, made.save_strategy, made.save_steps) == ("steps", 0.1, "steps", 0.1)
    assert made.load_best_model_at_end
    assert (made.metric_for_best_model, made.greater_is_better) == ("kl", False)
    assert arguments(tmp_path, trainer={"eval_strategy": "epoch"}).save_strategy == "epoch"
    assert arguments(tmp_path, trainer={"metric_for_best_model": "accuracy"}).greater_is_better


@pytest.mark.slow
def test_evaluations_are_spread_over_a_part_and_not_over_the_longest(tmp_path: Path) -> None:
    made = by_series(tmp_path, [step / 100 for step in range(1, 41)], extend=2, eval_steps=0.25, save_steps=0.25,
                     max_steps=20, logging_steps=0.5)
    made.train()
    assert [entry["step"] for entry in made.state.log_history if "eval_chosen" in entry] == [5, 10, 15, 20]
    assert made.extending.ending.verdict.why == "unknown"
    assert [entry["step"] for entry in made.state.log_history if "loss" in entry] == [10, 20]


@pytest.mark.parametrize(("fields", "words"), [
    ({"eval_strategy": "no"}, r"distill\.trainer\.eval_strategy: got no, and distill\.extend goes by evaluations"),
    ({"load_best_model_at_end": False}, r"load_best_model_at_end: got false, and distill\.extend keeps the best"),
])
def test_what_leaves_it_nothing_to_go_by_is_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        arguments(tmp_path, trainer=fields)


@pytest.mark.parametrize("beside", [{"patience": 2}, {"average": {"last": 0.5}}])
def test_what_does_not_go_with_it_is_refused_by_the_recipe(beside: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="extend: "):
        Training(extend=2, **beside)
    assert Training(extend=2, average=Average(ema=0.9)).at_most == 2
