"""The mean of a student's weights: what it is of, where it is used, and that stopping and cutting change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, TrainerCallback

from stilla.errors import CompatibilityError
from stilla.objectives import Labels
from stilla.objectives.base import Term
from stilla.recipe import Average
from stilla.training.averaging import FILE, decay
from tests.equivalence.launching import launch
from tests.equivalence.setting import bert, distance, examples, losses, trainer, weights
from tests.equivalence.test_resume import StopAt, tied

HOWS = [Average(ema=0.6), Average(ema=0.999), Average(last=0.5)]
each = pytest.mark.parametrize("how", HOWS, ids=lambda how: str(how.model_dump(exclude_none=True)))


class Watch(TrainerCallback):
    """The student's weights before training and after every step, exactly."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.on_step_end(args, state, control, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.seen.append({name: one.detach().double().clone() for name, one in model.student.named_parameters()})


def oracle(how: Average, seen: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """By hand, in float64: of the weights before training and after each of its steps."""
    start, *steps = seen
    if how.last is not None:
        some = steps[-round(how.last * len(steps)):]
        return {name: torch.stack([one[name] for one in some]).mean(0) for name in start}
    mean = start
    for number, now in enumerate(steps, 1):
        stays = min(how.ema or 0, (1 + number) / (10 + number))
        mean = {name: stays * mean[name] + (1 - stays) * now[name] for name in mean}
    return mean


def student(made: Any) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in made.student.named_parameters()}


def near(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.mark.slow
@each
def test_the_student_is_the_mean_by_hand(tmp_path: Path, how: Average) -> None:
    watch = Watch()
    made = trainer(tmp_path, average=how, callbacks=[watch])
    made.train()
    assert len(watch.seen) == 7
    assert near(student(made), oracle(how, watch.seen)) < 1e-6
    assert near(student(made), watch.seen[-1]) > 1e-3


def test_an_exponential_mean_forgets_more_at_first() -> None:
    assert decay(0.999, 1) == pytest.approx(2 / 11)
    assert decay(0.999, 8990) == pytest.approx(8991 / 9000)
    assert decay(0.999, 9000) == 0.999
    assert decay(0.1, 1) == 0.1
    kept = 1.0
    for step in range(1, 1001):
        kept *= decay(0.999, step)
    assert kept < 1e-15 < 0.36 < 0.999**1000  # of the weights that a training begins with, after a thousand steps


@pytest.mark.slow
@each
def test_the_training_itself_is_what_it_was(tmp_path: Path, how: Average) -> None:
    watch, plainly = Watch(), Watch()
    made = trainer(tmp_path, average=how, callbacks=[watch], eval_strategy="steps", eval_steps=2)
    made.train()
    plain = trainer(tmp_path, callbacks=[plainly], eval_strategy="steps", eval_steps=2)
    plain.train()
    assert losses(made) == losses(plain)
    assert near(watch.seen[-1], plainly.seen[-1]) == 0


@pytest.mark.slow
@each
def test_the_mean_is_measured_and_the_weights_beside_it(
    tmp_path: Path, how: Average, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, measured = Watch(), []
    made = trainer(tmp_path, average=how, callbacks=[watch], eval_strategy="steps", eval_steps=2)
    really: Callable[..., dict[str, float]] = made._measured

    def watched(*args: Any, **options: Any) -> dict[str, float]:
        measured.append((made.state.global_step, student(made)))
        return really(*args, **options)

    monkeypatch.setattr(made, "_measured", watched)
    made.train()
    begun = [step for step in (2, 4, 6) if how.last is None or step > 6 - round(6 * how.last)]
    expected = [(step, averaged) for step in (2, 4, 6) for averaged in ((True, False) if step in begun else (False,))]
    assert [step for step, _ in measured] == [step for step, _ in expected]
    for (step, found), (_, averaged) in zip(measured, expected, strict=True):
        first = 0 if how.ema is not None else max(0, 6 - round(6 * (how.last or 0)))
        past = [watch.seen[0], *watch.seen[1 + first : step + 1]]
        whole = how if how.ema is not None else Average(last=1.0)
        assert near(found, oracle(whole, past) if averaged else watch.seen[step]) < 1e-6
    logged = [set(entry) for entry in made.state.log_history if "eval_accuracy" in entry]
    assert ["eval_accuracy_unaveraged" in names for names in logged] == [step in begun for step in (2, 4, 6)]
    measured.clear()
    made.evaluate()  # what is there is the mean now
    assert len(measured) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", [HOWS[0], HOWS[2]], ids=["ema", "last"])
@pytest.mark.parametrize("stop", [2, 4, 5])  # within the first epoch, within the second, before and after a half
def test_stop_and_resume_equals_uninterrupted(tmp_path: Path, how: Average, stop: int) -> None:
    options = {"dropout": 0.2, "optim": "adamw_torch", "average": how}
    whole = trainer(tmp_path / "whole", **options)
    whole.train()
    trainer(tmp_path / "parts", callbacks=[StopAt(stop)], **options).train()
    torch.manual_seed(99)
    again = trainer(tmp_path / "parts", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert distance(weights(whole), weights(again)) == 0


@pytest.mark.slow
def test_a_training_goes_on_from_a_checkpoint_elsewhere(tmp_path: Path) -> None:
    how = Average(ema=0.6)
    whole = trainer(tmp_path / "whole", average=how)
    whole.train()
    trainer(tmp_path / "parts", callbacks=[StopAt(4)], average=how).train()
    (tmp_path / "parts").rename(tmp_path / "moved")
    again = trainer(tmp_path / "parts", average=how)
    again.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-4"))
    assert distance(weights(whole), weights(again)) == 0
    (tmp_path / "moved").rename(tmp_path / "last")
    newest = trainer(tmp_path / "last", average=how)
    newest.train(resume_from_checkpoint=True)
    assert distance(weights(whole), weights(newest)) == 0


@pytest.mark.slow
def test_a_checkpoint_without_the_mean_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[StopAt(4)]).train()
    place = str(tmp_path / "checkpoint-4")
    with pytest.raises(CompatibilityError, match=r"checkpoint-4 holds no mean of the weights .*Begin anew"):
        trainer(tmp_path, average=Average(ema=0.9)).train(resume_from_checkpoint=place)
    trainer(tmp_path, average=Average(last=0.25)).train(resume_from_checkpoint=place)  # whose mean begins later


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["distilbert", "llama"])
def test_tied_weights_stay_tied_and_are_stored_once(tmp_path: Path, kind: str) -> None:
    made = trainer(tmp_path, student=tied(kind), average=Average(ema=0.6), save_strategy="steps", save_steps=3,
                   ddp_find_unused_parameters=True)
    made.train()
    named = dict(made.student.named_parameters(remove_duplicate=False))
    alias, owner = (("again.weight", "model.embed_tokens.weight") if kind == "llama" else
                    ("projector.weight", "distilbert.embeddings.word_embeddings.weight"))
    assert named[alias] is named[owner]
    assert len({alias, owner} & load_file(tmp_path / "checkpoint-3" / FILE).keys()) == 1


def normed() -> nn.Module:
    """A student with running statistics, and a layer that is not trained."""
    made = bert(16, 2)
    made.classifier = nn.Sequential(made.classifier, nn.BatchNorm1d(3))
    made.bert.embeddings.requires_grad_(False)
    return made


@pytest.mark.slow
def test_running_statistics_are_averaged_and_what_is_not_trained_stays(tmp_path: Path) -> None:
    class Statistics(TrainerCallback):
        seen: list[Tensor] = []

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            self.seen.append(model.student.classifier[1].running_mean.double().clone())

    start = normed()
    frozen = start.bert.embeddings.word_embeddings.weight.clone()
    made = trainer(tmp_path, student=start, average=Average(last=0.5), callbacks=[Statistics()],
                   objectives=[Term(Labels())], ddp_find_unused_parameters=True, save_strategy="steps", save_steps=6)
    made.train()
    norm: Any = made.student.classifier[1]
    torch.testing.assert_close(norm.running_mean.double(), torch.stack(Statistics.seen[-3:]).mean(0), rtol=1e-5, atol=1e-7)
    assert not torch.equal(norm.running_mean.double(), Statistics.seen[-1])
    assert norm.num_batches_tracked == 6
    assert torch.equal(made.student.bert.embeddings.word_embeddings.weight, frozen)
    assert "bert.embeddings.word_embeddings.weight" not in load_file(tmp_path / "checkpoint-6" / FILE)


@pytest.mark.slow
def test_the_terms_projections_are_the_last(tmp_path: Path) -> None:
    made, plain = trainer(tmp_path, average=Average(ema=0.6)), trainer(tmp_path)
    made.train()
    plain.train()
    ours, theirs = weights(made), weights(plain)
    projections = [name for name in ours if "projections" in name]
    assert projections
    assert all(torch.equal(ours[name], theirs[name]) for name in projections)


@pytest.mark.slow
def test_what_is_saved_is_the_mean(tmp_path: Path) -> None:
    watch = Watch()
    made = trainer(tmp_path, average=Average(last=0.5), callbacks=[watch])
    made.train()
    made.save_model(str(tmp_path / "student"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert near(dict(loaded.named_parameters()), oracle(Average(last=0.5), watch.seen)) < 1e-6


@pytest.mark.slow
@each
def test_the_best_is_the_best_ones_mean(tmp_path: Path, how: Average) -> None:
    """The step that was best is chosen here: the second of three evaluations."""
    watch = Watch()
    made = trainer(
        tmp_path, average=how, callbacks=[watch], eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="chosen",
        compute_metrics=lambda _: {"chosen": {2: 0.1, 4: 0.9, 6: 0.5}[made.state.global_step]})
    made.train()
    assert made.state.best_global_step == 4
    first = 0 if how.last is None else 6 - round(6 * how.last)
    whole = how if how.ema is not None else Average(last=1.0)
    assert near(student(made), oracle(whole, [watch.seen[0], *watch.seen[1 + first : 5]])) < 1e-6


@pytest.mark.slow
def test_the_best_may_be_older_than_the_mean(tmp_path: Path) -> None:
    watch = Watch()
    made = trainer(
        tmp_path, average=Average(last=0.25), callbacks=[watch], eval_strategy="steps", eval_steps=2, save_strategy="steps",
        save_steps=2, load_best_model_at_end=True, metric_for_best_model="chosen",
        compute_metrics=lambda _: {"chosen": {2: 0.9, 4: 0.1, 6: 0.5}[made.state.global_step]})
    made.train()
    assert near(student(made), watch.seen[2]) == 0
    assert made.averaging.described == "the weights as they were trained: their mean had not begun"


@pytest.mark.slow
def test_a_student_in_half_precision_has_a_mean_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    watch = Watch()
    made = trainer(tmp_path, student=bert(16, 2).to(torch.bfloat16), average=Average(last=0.5), callbacks=[watch],
                   objectives=[Term(Labels())], save_strategy="steps", save_steps=6)
    made.train()
    stored = load_file(tmp_path / "checkpoint-6" / FILE)
    expected = oracle(Average(last=0.5), watch.seen)
    assert all(stored[name].dtype == torch.float32 for name in expected)
    assert near({name: stored[name] for name in expected}, expected) < 1e-6
    assert all(one.dtype == torch.bfloat16 for one in student(made).values())


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    ((alone, _),) = launch(tmp_path / "one", 1, "tests.equivalence.setting", 17, 8, 1, "averaged")
    (first, _), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.setting", 17, 4, 1, "averaged")
    assert distance(first, second) == 0
    assert distance(alone, first) < 2e-6
    plain = trainer(tmp_path / "plain", data=examples(17), max_steps=-1, num_train_epochs=2)
    plain.train()
    assert distance(alone, weights(plain)) > 1e-3
