"""The half of the trainer that answers and measures: the student's answers and its metrics, in the data's own order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from torch import nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput, denumpify_detensorize

from stilla.errors import CompatibilityError, one_of
from stilla.evaluate.asking import Precision
from stilla.models.spread import is_spread
from stilla.tasks.base import Prepared, Task
from stilla.training.answers import Collected, answers
from stilla.training.averaging import Averaging
from stilla.training.distiller import Distiller
from stilla.training.loaders import loader
from stilla.training.narrowed import Narrowed
from stilla.training.reading import Reading
from stilla.training.settling import Undefined
from stilla.training.validation import Validation, measures


class Measuring(Narrowed):
    """What `evaluate` and `predict` do, and the data they take; the attributes are set by who trains."""

    task: Task
    reading: Reading
    validation: Validation
    averaging: Averaging | None
    _distiller: Distiller
    _undefined: Undefined

    @property
    def student(self) -> nn.Module:
        """The student alone, without wrapper or projections."""
        inside: nn.Module = self.accelerator.unwrap_model(self.model).student
        return inside

    def _eval_data(self, dataset: Any) -> Any:
        if isinstance(dataset, Mapping):
            return {str(name): self.reading.prepared(one) for name, one in dataset.items()}
        return self.reading.prepared(dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Batches in the data's own order; of one of several datasets by its name."""
        return self.get_test_dataloader(self._one(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        return loader(self._prepared(test_dataset), self.args.eval_batch_size)

    def _one(self, dataset: Any) -> Any:
        if isinstance(dataset, str):
            several = self.eval_dataset if isinstance(self.eval_dataset, dict) else {}
            if dataset not in several:
                raise CompatibilityError(f"eval_dataset: got {dataset!r}; expected {one_of(list(several)) or 'a dataset'}")
            return several[dataset]
        found = self.eval_dataset if dataset is None else dataset
        if found is None:
            raise CompatibilityError("evaluation was asked for, and there is no eval_dataset; give one, or set "
                                     "`eval_strategy: no`")
        return found

    def _prepared(self, dataset: Any) -> Prepared:
        prepared = self.reading.prepared(dataset)
        if prepared is None:
            raise CompatibilityError("there is no dataset to answer; give one")
        return prepared

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The task's metrics on the validation data, in its own order, through the student alone; and those of
        `compute_metrics`. Several datasets are measured one after the other, their names in those of the metrics.

        A metric that is undefined (a correlation of equal numbers) is NaN here, and left out of the log. With `average`, the
        mean is measured once it has begun, and the weights that are trained beside it (`_unaveraged`).
        """
        several = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(several, Mapping):
            return {name: value for part, one in several.items() for name, value in
                    self.evaluate(one, ignore_keys, f"{metric_key_prefix}_{part}").items()}
        prepared = self._prepared(self._one(eval_dataset))
        with self.averaging.in_place() if self.averaging else nullcontext():
            metrics = self._measured(prepared, metric_key_prefix)
        if self.averaging and self.averaging.begun:
            metrics |= {f"{name}_unaveraged": value for name, value in self._measured(prepared, metric_key_prefix).items()}
        asked = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if self.args.load_best_model_at_end and asked in measures(self.task, taught=False):
            metrics.setdefault(f"{metric_key_prefix}_{asked}", math.nan)  # it says nothing of these data: none is the best
        self.log(self._undefined.left_out(metrics, self.args))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        return metrics

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """The student's logits, the labels as the collator made them, and the metrics, all in the data's own order.

        Over a vocabulary these are all logits of all examples at once, padded behind by -100: for few of them.
        """
        prepared = self._prepared(test_dataset)
        found = self._answers(prepared)
        metrics = {} if found.labels is None else self._measured(prepared, metric_key_prefix, found)
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, metrics)
        return PredictionOutput(predictions=found.logits, label_ids=found.labels, metrics=metrics)

    def _measured(self, prepared: Prepared, prefix: str, found: Collected | None = None) -> dict[str, float]:
        metrics = self.validation.measured(
            self.student, prepared, precision=self._precision, batch_size=self.args.eval_batch_size,
            device=self.args.device, together=self.args.world_size > 1, within=self._within)
        if self.compute_metrics is not None:
            answered = found or self._answers(prepared)
            own = self.compute_metrics(EvalPrediction(predictions=answered.logits, label_ids=answered.labels))
            metrics |= {name.removeprefix(f"{prefix}_"): value for name, value in denumpify_detensorize(own).items()}
        return {f"{prefix}_{name}": value for name, value in metrics.items()}

    def _answers(self, prepared: Prepared) -> Collected:
        return answers(self.student, self.task, prepared, batch_size=self.args.eval_batch_size, device=self.args.device,
                       precision=self._precision, together=self.args.world_size > 1,
                       reduce=self.preprocess_logits_for_metrics, within=self._within)

    def _within(self, call: Callable[[], Any]) -> Any:
        """What a forward of the student gives: within its wrapper's, where its weights are spread over processes."""
        if not is_spread(self._distiller):
            return call()
        given: list[Any] = []
        self.model_wrapped(lambda: given.append(call()))
        return given[0]

    @property
    def _precision(self) -> Precision:
        return "bfloat16" if self.args.bf16 else "float32"
