"""`transformers.Trainer` without the methods that would do something else than they say below a distillation."""

from __future__ import annotations

from abc import ABC
from typing import Any, NoReturn

from transformers import Trainer

from stilla.errors import CompatibilityError
from stilla.training.options import REFUSED_METHODS


class Narrowed(Trainer, ABC):
    """Each of these methods raises a CompatibilityError that says what to do instead."""

    def hyperparameter_search(self, *args: Any, **options: Any) -> NoReturn:
        raise _not_here("hyperparameter_search")

    def call_model_init(self, *args: Any, **options: Any) -> NoReturn:
        raise _not_here("call_model_init")

    def push_to_hub(self, *args: Any, **options: Any) -> NoReturn:
        raise _not_here("push_to_hub")

    def init_hf_repo(self, *args: Any, **options: Any) -> NoReturn:
        raise _not_here("init_hf_repo")

    def evaluation_loop(self, *args: Any, **options: Any) -> NoReturn:
        raise _not_here("evaluation_loop")

    def prediction_step(self, *args: Any, **options: Any) -> NoReturn:
        raise _not_here("prediction_step")


def _not_here(method: str) -> CompatibilityError:
    return CompatibilityError(f"{method}: {REFUSED_METHODS[method]}")
