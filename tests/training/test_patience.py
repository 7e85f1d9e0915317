"""Training goes by the distance from the teacher, ends when nothing becomes better, and keeps the best; also after a stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_expit, log_softmax
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, TrainerCallback

from stilla import DistillationTrainer
from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Labels, Logits
from stilla.objectives.base import Term
from stilla.recipe import Average, Training
from stilla.signals import Headed
from stilla.tasks.base import Side
from stilla.tasks.forward import listen
from stilla.teachers import CapturingTeacher, Keep, LiveTeacher
from stilla.training.arguments import training_arguments
from stilla.training.patience import Patience
from stilla.training.validation import model_of
from tests.equivalence.language import trainer as language
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, trainer, weights
from tests.equivalence.test_resume import StopAt
from tests.training import setting

BY_KL = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True,
         "metric_for_best_model": "kl"}
SERIES = [0.5, 0.7, 0.6, 0.65, 0.7, 0.9]
"""Of a measure at the steps: the best that patience of 2 sees is the second, of 3 too; of 4 it is the last."""


def said(model: nn.Module, batch: Any) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(**batch).logits.double().numpy()


class Asked:
    """How many examples a model was asked about."""

    def __init__(self, model: nn.Module) -> None:
        self.examples = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: nn.Module, args: Any, kwargs: dict[str, Tensor]) -> None:
        self.examples += len(kwargs["input_ids"])


# --- the measure ---


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 5, 24])
def test_kl_is_the_mean_over_examples_whatever_the_batches(tmp_path: Path, size: int) -> None:
    made = trainer(tmp_path, **BY_KL, per_device_eval_batch_size=size)
    expected = []
    for index in range(24):
        batch = made.train_dataset.collate([made.train_dataset.examples[index]])
        p, q = (log_softmax(said(model, batch.student), -1) for model in (made.teacher.model, made.student))
        expected.append((np.exp(p) * (p - q)).sum())
    assert made.evaluate()["eval_kl"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_of_several_labels_it_is_the_sum_over_them(tmp_path: Path) -> None:
    several = {"problem_type": "multi_label_classification", "labels": 3}
    data = setting.tokenised(12).remove_columns("label").add_column("labels", [[1.0, 0.0, 1.0]] * 12)
    made = setting.trainer(tmp_path, data, student=setting.classifier(**several), evaluated=data, options={**BY_KL},
                           teacher=setting.classifier(layers=2, seed=1, **several))
    expected = []
    for index in range(12):
        batch = made.train_dataset.collate([made.train_dataset.examples[index]])
        z, s = (said(model, batch.student) for model in (made.teacher.model, made.student))
        on, off = (log_expit(sign * z) for sign in (1, -1))
        expected.append((np.exp(on) * (on - log_expit(s)) + np.exp(off) * (off - log_expit(-s))).sum())
    assert made.evaluate()["eval_kl"] == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unpacked", "masked", "seq2seq"])
def test_over_a_vocabulary_it_is_the_mean_over_tokens(tmp_path: Path, kind: str) -> None:
    made = language(kind, tmp_path, **BY_KL, evaluated=True)
    rows: list[np.ndarray] = []
    for index in range(len(made.eval_dataset)):
        batch = made.eval_dataset.collate([made.eval_dataset.examples[index]])
        with torch.no_grad():
            both = made.task.align(listen(made.student.eval(), made.task, batch, Side.STUDENT), made.teacher(batch), batch)
            q, p = (one.logits.dense().logits.double().log_softmax(-1) for one in both if isinstance(one.logits, Headed))
            rows += [*(p.exp() * (p - q)).sum(-1).numpy()]
    assert made.evaluate()["eval_kl"] == pytest.approx(np.mean(rows), rel=1e-4)


@pytest.mark.slow
def test_the_teacher_is_asked_once_about_the_same_data(tmp_path: Path) -> None:
    made = trainer(tmp_path, **BY_KL, max_steps=3)
    asked = Asked(made.teacher.model)
    made.evaluate()
    assert asked.examples == 24
    made.evaluate()
    assert asked.examples == 24
    made.train()
    assert asked.examples == 24 + 3 * 8  # the training's own
    assert next(entry["eval_kl"] for entry in made.state.log_history if "eval_kl" in entry) > 0


def test_over_a_vocabulary_it_is_asked_anew(tmp_path: Path) -> None:
    """Its logits are too many to keep."""
    made = language("unpacked", tmp_path, **BY_KL, evaluated=True)
    first = made.evaluate()["eval_kl"]
    assert made.evaluate()["eval_kl"] == first > 0


def test_it_is_not_measured_where_nobody_goes_by_it(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    asked = Asked(made.teacher.model)
    assert "eval_kl" not in made.evaluate()
    assert not asked.examples


@pytest.mark.parametrize("options", [{"terms": [Term(Labels())], "teacher": None}, {"regression": True}])
def test_without_distributions_of_a_teacher_it_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    words = r"got 'kl'; expected .* takes a model of distributions for a teacher"
    data = setting.tokenised(12)
    if "regression" in options:
        data = data.remove_columns("label").add_column("labels", [0.5 * index for index in range(12)])
        with pytest.raises(CompatibilityError, match=words):
            setting.trainer(tmp_path, data, evaluated=data, student=setting.classifier(labels=1), options=BY_KL,
                            teacher=setting.classifier(labels=1), terms=[Term(Labels()), Term(Logits(divergence="mse"))])
        return
    with pytest.raises(CompatibilityError, match=words):
        DistillationTrainer(setting.classifier(), terms=[Term(Labels())], args=setting.arguments(tmp_path, **BY_KL),
                            train_dataset=data, eval_dataset=data, processing_class=setting.tiny.tokenizer())


def test_less_of_it_is_better(tmp_path: Path) -> None:
    assert trainer(tmp_path, **BY_KL).args.greater_is_better is False
    parts = {"a": setting.tokenised(8), "b": setting.tokenised(6)}
    made = setting.trainer(tmp_path, evaluated=parts, options={**BY_KL, "metric_for_best_model": "b_kl"})
    assert made.args.greater_is_better is False
    assert {"eval_a_kl", "eval_b_kl"} <= made.evaluate().keys()


# --- the end ---


def by_series(
    folder: Path, series: Sequence[float] = SERIES, *, callbacks: Sequence[TrainerCallback] = (), **options: Any
) -> Any:
    """Measured by what is written down for each step."""
    found: list[Any] = []
    found.append(trainer(folder, callbacks=callbacks, **{
        **BY_KL, "metric_for_best_model": "chosen", "max_steps": len(series),
        "compute_metrics": lambda _: {"chosen": series[found[0].state.global_step - 1]}, **options}))
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(("patience", "ends", "best"), [(1, 3, 2), (2, 4, 2), (3, 5, 2), (4, 6, 6), (9, 6, 6)])
def test_it_ends_when_nothing_became_better_and_keeps_the_best(tmp_path: Path, patience: int, ends: int, best: int) -> None:
    seen: dict[int, dict[str, Tensor]] = {}

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            seen[state.global_step] = {name: one.clone() for name, one in model.state_dict().items()}

    made = by_series(tmp_path, callbacks=[Patience(patience), Watch()])
    made.train()
    assert made.state.global_step == ends
    assert made.state.best_global_step == best
    assert distance(weights(made), seen[best]) == 0


@pytest.mark.slow
def test_it_ends_when_transformers_own_would(tmp_path: Path) -> None:
    ours, theirs = (by_series(tmp_path / name, callbacks=[one]) for name, one in (
        ("ours", Patience(2)), ("theirs", EarlyStoppingCallback(2))))
    ours.train()
    theirs.train()
    assert ours.state.global_step == theirs.state.global_step == 4
    assert distance(weights(ours), weights(theirs)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("average", [None, Average(ema=0.6)], ids=["", "averaged"])
@pytest.mark.parametrize("patience", [2, 3])
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_stopped_and_continued_it_ends_at_the_same_step(
    tmp_path: Path, stop: int, patience: int, average: Average | None
) -> None:
    options = {"average": average, "dropout": 0.2, "lr_scheduler_type": "constant"}
    whole = by_series(tmp_path / "whole", callbacks=[Patience(patience)], **options)
    whole.train()
    by_series(tmp_path / "parts", callbacks=[Patience(patience), StopAt(stop)], **options).train()
    torch.manual_seed(99)
    again = by_series(tmp_path / "parts", callbacks=[Patience(patience)], **options)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert again.state.global_step == whole.state.global_step == {2: 4, 3: 5}[patience]
    assert distance(weights(whole), weights(again)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [False, True], ids=["steps", "epochs"])
def test_what_has_ended_is_not_gone_on_with(tmp_path: Path, epochs: bool) -> None:
    """Its process may have ended before the student was kept."""
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "max_steps": 18} if epochs else {}
    series = [one for one in SERIES for _ in range(3)] if epochs else SERIES
    whole = by_series(tmp_path, series, callbacks=[Patience(1)], lr_scheduler_type="constant", **options)
    whole.train()
    ended = whole.state.global_step
    assert ended == (9 if epochs else 3)
    again = by_series(tmp_path, series, callbacks=[Patience(1)], lr_scheduler_type="constant", **options)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{ended}"))
    assert again.state.global_step == ended
    assert distance(weights(whole), weights(again)) == 0
    assert len([entry for entry in again.state.log_history if "eval_chosen" in entry]) == 3
    more = by_series(tmp_path, series, callbacks=[Patience(5)], lr_scheduler_type="constant", **options)
    more.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{ended}"))  # somebody who has more patience
    assert more.state.global_step > ended


@pytest.mark.slow
def test_a_training_that_begins_anew_has_all_its_patience(tmp_path: Path) -> None:
    callback = Patience(2)
    by_series(tmp_path / "one", callbacks=[callback]).train()
    assert callback.early_stopping_patience_counter == 2
    made = by_series(tmp_path / "two", callbacks=[callback])
    made.train()
    assert made.state.global_step == 4


@pytest.mark.slow
def test_two_processes_measure_and_end_as_one(tmp_path: Path) -> None:
    ((alone, _),) = launch(tmp_path / "one", 1, "tests.equivalence.setting", 17, 8, 1, "patient")
    (first, _), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.setting", 17, 4, 1, "patient")
    assert distance(first, second) == 0
    assert distance(alone, first) < 2e-6


# --- what a recipe says ---

METRICS = {"accuracy": True, "macro_f1": True}


def arguments(folder: Path, *, taught: bool = True, **keys: Any) -> Any:
    return training_arguments(Training(patience=2, **keys), output_dir=folder, seed=7,
                              metrics={**METRICS, **({"kl": False} if taught else {})})


def test_a_student_goes_by_its_teacher_and_who_has_none_by_the_headline(tmp_path: Path) -> None:
    for taught, measure, higher in ((True, "kl", False), (False, "accuracy", True)):
        made = arguments(tmp_path, taught=taught)
        assert (made.metric_for_best_model, made.greater_is_better) == (measure, higher)
        assert made.load_best_model_at_end
        assert made.eval_strategy == made.save_strategy == "epoch"
    chosen = arguments(tmp_path, trainer={"metric_for_best_model": "macro_f1"})
    assert (chosen.metric_for_best_model, chosen.greater_is_better) == ("macro_f1", True)


def test_what_is_measured_by_steps_is_saved_by_steps(tmp_path: Path) -> None:
    made = arguments(tmp_path, trainer={"eval_strategy": "steps", "eval_steps": 7})
    assert (made.save_strategy, made.save_steps) == ("steps", 7)
    made = arguments(tmp_path, trainer={"eval_strategy": "steps", "eval_steps": 0.1})
    assert (made.save_strategy, made.save_steps) == ("steps", 0.1)
    made = arguments(tmp_path, trainer={"eval_strategy": "steps"})
    assert made.save_steps == made.eval_steps == 0.01
    made = arguments(tmp_path, trainer={"eval_strategy": "steps", "eval_steps": 7, "save_steps": 14})
    assert made.save_steps == 14


@pytest.mark.parametrize(("fields", "words"), [
    ({"eval_strategy": "no"}, r"distill\.trainer\.eval_strategy: got no, and distill\.patience counts evaluations"),
    ({"load_best_model_at_end": False}, r"load_best_model_at_end: got false, and distill\.patience keeps the best"),
    ({"metric_for_best_model": "acuracy"}, "expected accuracy, macro_f1 or kl. Did you mean accuracy"),
])
def test_what_leaves_it_nothing_to_go_by_is_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        arguments(tmp_path, trainer=fields)


def test_a_cached_teacher_can_be_asked_and_a_stored_one_cannot(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    assert isinstance(made.teacher, LiveTeacher)
    model = made.teacher.model
    assert model_of(CapturingTeacher(made.teacher, made.task, tmp_path / "cache", Keep(), {})) is model
    assert model_of(made.teacher) is model_of(model) is model
    assert model_of(lambda batch: None) is None
