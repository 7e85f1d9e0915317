"""Everything trainable in one module: the student and the objectives' projections. A step is one forward of it.

Wrappers (DDP, FSDP, DeepSpeed) see every gradient only of what happens inside their own forward; a projection beside
the wrapped module drifts apart between processes without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stilla.errors import CompatibilityError, all_at_once
from stilla.models.counterparts import Counterparts
from stilla.models.features import Recorder
from stilla.models.heads import head_of
from stilla.models.spread import is_spread
from stilla.models.stacks import find_stacks
from stilla.objectives.base import (
    FeatureObjective,
    LayerMap,
    LogitObjective,
    RowObjective,
    StepFeatureObjective,
    StepObjective,
    StepTableObjective,
    TargetObjective,
    Term,
    WeightObjective,
)
from stilla.rows import compiler_problem, row_loss
from stilla.signals import Batch, Dense, Dims, Signals
from stilla.tasks.base import Side, Task
from stilla.tasks.forward import listen, listen_within
from stilla.training.batch_norm import BatchNorm, batch_norms, by_running_statistics
from stilla.training.explaining import classes_of, explains
from stilla.training.pulling import pairs
from stilla.training.reduction import Step

Result = TypeVar("Result")

_SPREAD = ("the student's weights are spread over processes already, and its projections would not be; give it whole, made "
           "before the arguments that say `deepspeed` (`from_pretrained` spreads what is loaded later), and let `fsdp` or "
           "`deepspeed` spread both")


class Distiller(nn.Module):
    """The student with the terms of its loss.

    compile: the row losses over a vocabulary go through torch.compile. batch_norm: what normalises in training. anchors: of
    the terms that compare weights, by name the teacher's that they answer to.

    Raises:
        CompatibilityError: objectives that cannot work on these models, all at once; to be compiled without a compiler or
            a vocabulary.
    """

    def __init__(
        self,
        student: nn.Module,
        terms: Sequence[Term],
        task: Task,
        *,
        student_dims: Dims,
        teacher_dims: Dims | None = None,
        layer_map: LayerMap | None = None,
        compile: bool = False,
        batch_norm: BatchNorm = "model",
        anchors: Mapping[str, Counterparts] | None = None,
    ) -> None:
        super().__init__()
        names = [term.name for term in terms]
        problems = [] if terms else ["there is no term, so nothing would be learnt; expected for example Term(Logits())"]
        problems += [f"two terms are called {name!r}; give one a `name`" for name in {*names} if names.count(name) > 1]
        problems += task.idle(terms)
        problems += [problem for term in terms
                     for problem in term.objective.problems(student_dims, teacher_dims, layer_map or {})
                     if not term.objective.unmade(student_dims)]
        problems += [f"`{term.name}` {problem}" for term in terms
                     for problem in (*term.objective.unmade(student_dims), *term.objective.uncounted(task.counted))]
        problems += [f"`{term.name}` {problem}" for term in terms
                     for problem in term.objective.unseen(vocabulary=task.vocabulary)]
        problems += [f"`{term.name}` {problem}" for term in terms
                     for problem in term.objective.unplaced(places=task.places)]
        problems += [f"`{term.name}` {problem}" for term in terms for problem in term.objective.unpaired(pairs=task.pairs)]
        problems += [f"`{term.name}` {problem}" for term in terms
                     for problem in term.objective.unpictured(pictures=task.pictures)]
        if compile:
            problems += compile_problems(task)
        if problems:
            raise all_at_once(problems, CompatibilityError)
        for term in terms:
            term.objective.setup(student_dims, teacher_dims, layer_map or {})
        if is_spread(student):
            raise CompatibilityError(_SPREAD)
        if task.vocabulary:
            head_of(student)  # what cannot be read is refused now, and never looked for inside a wrapper
        self.student = student
        self.objectives = nn.ModuleDict({name: term.objective for name, term in zip(names, terms, strict=True)})
        self.terms = tuple(terms)
        self._anchors = {name: one.found for name, one in (anchors or {}).items()}
        self.coupling = {term.name: term.objective for term in terms
                         if isinstance(term.objective, StepObjective | StepFeatureObjective | StepTableObjective)}
        self.tabled = any(isinstance(one, StepTableObjective) for one in self.coupling.values())
        self.task = task
        self.compiled = compile
        self._norms, self._frozen = batch_norms(student), batch_norm == "frozen"
        self.recorder = Recorder(student) if any(term.objective.needs_stacks for term in terms) else None
        self._aliases = self._of_tied_weights()
        # Trainer asks a wrapper for this when it loads a checkpoint without them
        self._keys_to_ignore_on_save = list(self._aliases)

    def forward(self, call: Callable[[], Result]) -> Result:
        """Call it here, within the forward for which a wrapper gathers weights and watches gradients.

        A function, since wrappers take apart whatever else they know (mappings, dataclasses), and cast what is inside.
        """
        return call()

    def train(self, mode: bool = True) -> Distiller:
        super().train(mode)
        if self._frozen:
            for one in self._norms:
                one.eval()
        return self

    @torch.no_grad()
    def survey(self, batch: Batch, teacher: Signals | None, step: Step) -> dict[str, Tensor]:
        """What the step terms sum over the batch, by name; within `forward` where there is a wrapper."""
        with self._normalising(batch):
            said = listen(self.student, self.task, batch, Side.STUDENT)
        return self._sums(*self._aligned(said, teacher, batch), batch, step)

    def loss(self, batch: Batch, teacher: Signals | None, step: Step) -> dict[str, Any]:
        """To be called within `forward` where there is a wrapper.

        `loss`: the local part of the step's loss, to be averaged over processes and added over micro-batches.
        `terms`: (terms,) the same parts by term, detached, before the weights."""
        scales = {term.name: step.share if isinstance(term.objective, WeightObjective)
                  else step.coefficient(1.0, term.objective.count, void="void" in batch) for term in self.terms}
        weights = {term.name: term.weight_at(step.progress) for term in self.terms}
        sums: dict[str, Tensor] = {}

        def rows(said: Signals) -> Tensor:
            made, found = self._rows(*self._aligned(said, teacher, batch), scales, step.progress)
            sums.update(found)
            return made

        with self._normalising(batch):
            classes = classes_of(teacher, self.task, batch) if explains(self.terms) else None
            said, loss = listen_within(self.student, self.task, batch, Side.STUDENT, self.recorder, rows, classes)
        said, theirs = self._aligned(said, teacher, batch)
        with torch.autocast(loss.device.type, enabled=False):
            for term in self.terms:
                if isinstance(term.objective, FeatureObjective):
                    if theirs is None and term.objective.needs_teacher:
                        raise CompatibilityError(
                            f"`{term.name}` needs a teacher, and this batch came without its signals")
                    total = term.objective.total(said, Signals() if theirs is None else theirs, step.progress)
                elif isinstance(term.objective, TargetObjective):
                    total = term.objective.total(said, step.progress)
                elif isinstance(term.objective, WeightObjective):
                    total = term.objective.total(pairs(self.student, self._anchors[term.name]))
                else:
                    continue
                loss = loss + weights[term.name] * scales[term.name] * total
                sums[term.name] = total.detach()
            parts = {name: scales[name] * total for name, total in sums.items()}
            for name, own in self._sums(said, theirs, batch, step).items():
                part = step.of_sums(name, own, partial(self.coupling[name].loss, progress=step.progress)).to(loss.dtype)
                loss, parts[name] = loss + weights[name] * part, part.detach()
            return {"loss": loss, "terms": torch.stack([parts[term.name] for term in self.terms])}

    def _normalising(self, batch: Batch) -> AbstractContextManager[None]:
        alone = bool(self._norms) and ("void" in batch or len(next(iter(batch.student.values()))) == 1)
        return by_running_statistics(self._norms) if alone else nullcontext()

    def _sums(self, said: Signals, teacher: Signals | None, batch: Batch, step: Step) -> dict[str, Tensor]:
        """What the step terms sum over the batch's rows, by name; nothing of a void batch."""
        share, found, progress = 0.0 if "void" in batch else 1.0, {}, step.progress
        for name, objective in self.coupling.items():
            with torch.autocast(next(self.parameters()).device.type, enabled=False):
                if isinstance(objective, StepFeatureObjective | StepTableObjective) and objective.needs_teacher \
                        and teacher is None:
                    raise CompatibilityError(f"`{name}` needs a teacher, and this batch came without its signals")
                if isinstance(objective, StepFeatureObjective):
                    assert teacher is not None  # it needs one
                    found[name] = share * objective.sums(said, teacher, progress)
                elif isinstance(objective, StepTableObjective):
                    found[name] = step.placed(objective.entries(said, teacher, progress), batch.get("start", 0),
                                              void="void" in batch)
                else:
                    answer = self._answer(said, objective.needs_teacher)
                    assert isinstance(answer, Dense)  # a vocabulary's were refused
                    logits = answer.logits.to(torch.promote_types(answer.logits.dtype, torch.float32))
                    told = None if teacher is None else teacher.logits
                    found[name] = share * objective.sums(logits, told, said.labels, progress)
        return found

    def _aligned(self, said: Signals, teacher: Signals | None, batch: Batch) -> tuple[Signals, Signals | None]:
        return (self.task.alone(said, batch), None) if teacher is None else self.task.align(said, teacher, batch)

    def _rows(
        self, said: Signals, teacher: Signals | None, scales: Mapping[str, float], progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The row terms' part of the loss, and their sums by name."""
        rows = {term.name: (term.objective, term.weight_at(progress) * scales[term.name]) for term in self.terms
                if isinstance(term.objective, RowObjective)}
        loss, sums = torch.zeros((), device=next(self.parameters()).device), dict[str, Tensor]()
        groups = [rows]
        if self._is_apart(said):
            groups = [{name: one for name, one in rows.items() if one[0].needs_teacher == answering}
                      for answering in (False, True)]
        for some in groups:
            if not some or said.logits is None:
                continue
            answer = self._answer(said, next(iter(some.values()))[0].needs_teacher)
            with torch.autocast(said.logits.device.type, enabled=False):
                part, found = row_loss(
                    tuple(some.values()), answer, teacher.logits if teacher else None, said.labels, progress,
                    weights=said.weights, compile=self.compiled)
            loss, sums = loss + part, sums | dict(zip(some, found, strict=True))
        return loss, sums

    def _is_apart(self, said: Signals) -> bool:
        """Whether labels and teacher are learnt by a head each: where the student has both, and its terms ask for both.

        By one kind of terms alone the other head would stay what it was, and half of the answer with it.
        """
        kinds = {term.objective.needs_teacher for term in self.terms if isinstance(term.objective, LogitObjective)}
        return said.heads is not None and len(kinds) == 2

    def _answer(self, said: Signals, answering: bool) -> Any:
        """What of the student's answer learns: `answering` what the teacher says, or the labels."""
        if said.heads is None or not self._is_apart(said):
            return said.logits
        return said.heads.teacher if answering else said.heads.labels

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Without the aliases of tied weights, which safetensors refuses to store twice."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        for name in self._aliases:
            state.pop(prefix + name, None)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """What `state_dict` gave: aliases get what their weights do."""
        lacking = {alias: state_dict[name] for alias, name in self._aliases.items() if name in state_dict}
        return super().load_state_dict({**lacking, **state_dict}, *args, **kwargs)

    def tie_weights(self) -> None:
        """After loading: the aliases point at what was loaded."""
        self.student.tie_weights()  # type: ignore[operator]

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """What Trainer calls for `activation_checkpointing: true`; the options are the student's own."""
        self.student.activation_checkpointing_enable(**options)  # type: ignore[operator]

    @property
    def config(self) -> Any:
        """The student's configuration, where it has one: what Trainer and trackers look for."""
        return self.student.config

    @cached_property
    def _no_split_modules(self) -> list[str]:
        """The classes of the student's layers: what accelerate spreads one by one, so that only one is whole at a time."""
        layers = [layer for stack in find_stacks(self.student) for layer in stack.layers(self.student)]
        return sorted({type(layer).__name__ for layer in layers})

    def get_input_embeddings(self) -> nn.Module | None:
        """Accelerate spreads it by itself, and the head: the largest weights of a small language model."""
        return self._large[0]

    def get_output_embeddings(self) -> nn.Module | None:
        return self._large[1]

    @cached_property
    def _large(self) -> tuple[nn.Module | None, nn.Module | None]:
        """Embedding and head over a vocabulary; None where others share their weights, and have to stay with them."""
        if not self.task.vocabulary:
            return None, None
        large = self.student.get_input_embeddings(), head_of(self.student).module  # type: ignore[operator]
        weights = {id(weight) for one in large for weight in one.parameters()}
        others = [one for one in self.modules() if not any(one is inner for part in large for inner in part.modules())]
        shared = any(id(weight) in weights for one in others for weight in one.parameters(recurse=False))
        return (None, None) if shared else large

    def _of_tied_weights(self) -> dict[str, str]:
        """Further names of a weight, and its first."""
        seen: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
        aliases = {}
        for name, tensor in super().state_dict(keep_vars=True).items():
            first = seen.setdefault((id(tensor), tensor.shape, tensor.stride()), name)
            if first != name:
                aliases[name] = first
        return aliases


def compile_problems(task: Task) -> list[str]:
    """Why a training of this task cannot have its losses compiled, in words that say what to do; empty if it can."""
    if not task.vocabulary:
        return ["compile: speeds up losses over a vocabulary, and this task has none; leave it out"]
    problem = compiler_problem()
    return [] if problem is None else [problem]
