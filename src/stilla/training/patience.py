"""When a training has gone on for long enough: nothing better on the validation data for so many evaluations in a row."""

from __future__ import annotations

from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

_COUNTER = "early_stopping_patience_counter"


class Patience(EarlyStoppingCallback):
    """transformers' own, whose count goes on where a training does."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **options: Any) -> None:
        super().on_train_begin(args, state, control, **options)
        self.early_stopping_patience_counter = self.waited(state) if state.global_step else 0

    def waited(self, state: TrainerState) -> int:
        """Evaluations in a row that brought nothing better, as a checkpoint has it."""
        stored = state.stateful_callbacks.get(type(self).__name__, {})
        return int(stored.get("attributes", {}).get(_COUNTER, 0))

    def is_over(self, state: TrainerState) -> bool:
        """Whether a training whose last checkpoint has this state was over."""
        return self.waited(state) >= int(self.early_stopping_patience)
