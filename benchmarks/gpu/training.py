"""Whole trainings by DistillationTrainer on the device, beside the same ones in float32 on the processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from tests.equivalence import language, setting
from torch import Tensor
from transformers import PrinterCallback

from benchmarks.gpu.found import Notebook
from benchmarks.gpu.setting import Setting
from stilla import DistillationTrainer, Term
from stilla.objectives import Logits
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher, Teacher

KINDS = ("classes", *language.KINDS)
PRECISIONS: dict[str, dict[str, Any]] = {"float32": {}, "bfloat16": {"bf16": True}, "float16": {"fp16": True}}
LOSS = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
"""Relative, of the first step's; what follows depends on every rounding before."""
WEIGHT = 2e-5
IN_FLOAT16 = "accelerate refuses float16 on a processor"
FORMS: dict[str, Keep] = {"top 50": Keep("top_k", k=8), "drawn": Keep("samples", samples=50), "hidden": Keep("hidden")}


class Trainings:
    """The tiny ones of tests/equivalence, here or on the processor."""

    def __init__(self, where: Setting) -> None:
        self.where = where
        self.reference = cache(lambda kind: trained(self.made(kind, "reference", use_cpu=True)))

    def made(self, kind: str, name: str, **options: Any) -> DistillationTrainer:
        given = {"use_cpu": not self.where.on_gpu, "lr_scheduler_type": "constant", "max_steps": 4, **options}
        folder = self.where.folder / kind / name
        made = setting.trainer(folder, **given) if kind == "classes" else language.trainer(kind, folder, **given)
        made.remove_callback(PrinterCallback)
        return made

    def near_the_processors(self, kind: str, precision: str) -> str:
        """The first loss is the processor's, and the last is lower than it."""
        options = PRECISIONS[precision]
        if precision == "float16":
            self.where.need_gpu(IN_FLOAT16)
            options = {**options, "max_steps": 12}  # the first ones find the scale of the gradients
        one = trained(self.made(kind, precision, **options))
        found, expected = (_losses(each) for each in (one, self.reference(kind)))
        far = abs(found[0] - expected[0]) / expected[0]
        assert far < LOSS[precision], f"first loss {found[0]:.5f}, on the processor {expected[0]:.5f}"
        assert found[-1] < found[0], f"the loss does not fall: {found}"
        assert all(torch.isfinite(one).all() for one in setting.weights(one).values())
        if precision == "float32":
            assert abs(found[-1] - expected[-1]) < 1e-3 * expected[-1], f"last loss {found[-1]:.5f}, {expected[-1]:.5f}"
        return f"first loss {found[0]:.5f} ({far:.1e} from the processor's), last {found[-1]:.5f} ({expected[-1]:.5f})"

    def cut(self, kind: str) -> str:
        whole = trained(self.made(kind, "whole"))
        cut = trained(self.made(kind, "cut", per_device_train_batch_size=2, gradient_accumulation_steps=4))
        return _equal(whole, cut, WEIGHT)

    def continued(self, kind: str, precision: str) -> str:
        if precision == "float16":
            self.where.need_gpu(IN_FLOAT16)
        options = {"save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch", "learning_rate": 1e-3,
                   "adam_epsilon": 1e-4, **PRECISIONS[precision]}
        name = f"continued {precision}"
        whole, again = self.made(kind, name, **options), self.made(kind, name, **options)
        whole.train()
        again.train(resume_from_checkpoint=str(self.where.folder / kind / name / "checkpoint-2"))
        return _equal(whole, again, WEIGHT if precision == "float32" else 1e-3)

    def compiled(self, precision: str) -> str:
        self.where.need_compiler()
        plain, fast = (trained(self.made("causal", f"compile {compile} {precision}", compile=compile, max_steps=2,
                                         **PRECISIONS[precision])) for compile in (False, True))
        return _equal(plain, fast, WEIGHT if precision == "float32" else 1e-2)

    def cached(self, kind: str, form: str) -> str:
        """A cached teacher's second pass is the first, which captured, and what it exactly keeps is the live teacher's."""
        place = self.where.folder / kind / "cache" / form

        def capturing(live: LiveTeacher) -> Teacher:
            return CapturingTeacher(live, live.task, place, FORMS[form], {"teacher": "a"})

        def reading(live: LiveTeacher) -> Teacher:
            return CachedTeacher(place, live.task, check_alignment=False)

        def asked(answering: Callable[[LiveTeacher], Teacher], name: str) -> DistillationTrainer:
            return trained(self.made(kind, f"{form} {name}", examples=8, max_steps=1, answering=answering,
                                     objectives=[Term(Logits(temperature=1.0))]))

        first = asked(capturing, "first")
        assert isinstance(first.teacher, CapturingTeacher)
        first.teacher.close()
        if form == "hidden":
            _equal(asked(lambda live: live, "live"), first, WEIGHT)
        return _equal(first, asked(reading, "second"), WEIGHT)


def trained(made: DistillationTrainer) -> DistillationTrainer:
    made.train()
    return made


def ask(where: Setting, notebook: Notebook) -> None:
    every = Trainings(where)
    kinds = KINDS[:2] if where.small else KINDS
    for kind in kinds:
        for precision in PRECISIONS:
            notebook.check(f"{kind} in {precision} begins as on the processor, and learns",
                           partial(every.near_the_processors, kind, precision))
        notebook.check(f"{kind}: four micro-batches equal one batch", partial(every.cut, kind))
    for kind in kinds[:2]:
        for precision in PRECISIONS:
            notebook.check(f"{kind} in {precision}, continued, equals one that was not stopped",
                           partial(every.continued, kind, precision))
    for precision in ("float32",) if where.small else ("float32", "bfloat16"):
        notebook.check(f"compiled losses in {precision} train the same", partial(every.compiled, precision))
    for form in FORMS:
        notebook.check(f"causal: a cache ({form}) says what was said", partial(every.cached, "causal", form))


def _losses(made: DistillationTrainer) -> list[float]:
    return [entry["loss"] for entry in setting.losses(made)]


def _equal(one: DistillationTrainer, other: DistillationTrainer, tolerance: float) -> str:
    weights: list[dict[str, Tensor]] = [setting.weights(made) for made in (one, other)]
    far = setting.distance(weights[0], weights[1])
    losses = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(_losses(one), _losses(other), strict=True))
    assert far < tolerance, f"weights differ by {far:.1e} (allowed {tolerance:.0e}), losses by {losses:.1e}"
    return f"weights differ by {far:.1e}, losses by {losses:.1e}"
