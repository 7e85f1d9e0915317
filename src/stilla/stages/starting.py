"""From what a recipe says about models to models that are ready to train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource, Recipe, StudentSpec
from stilla.stages.folder import RunFolder
from stilla.stages.vocabulary import Smaller
from stilla.students import (
    Cut,
    Student,
    Towards,
    by_width,
    first_units,
    freeze,
    fresh,
    given,
    interpolate,
    with_adapters,
    with_layers,
)
from stilla.tasks.base import Loaded, Task
from stilla.tasks.text.tokens import unknown_tokens


def start_student(
    spec: StudentSpec, task: Task, teacher: Loaded, origin: ModelSource | None = None, smaller: Smaller | None = None, *,
    cut: Cut | None = None,
) -> tuple[Student, Loaded]:
    """The student before training, and the same model with its processor.

    `origin`: where the teacher was loaded from, if that was in lower precision: a student is cut from the weights as
    they are stored. `smaller`: the vocabulary that it gets, if not its teacher's. `cut`: what of its width, or of a wider
    teacher's, was measured to matter; else it gets the same size, of any units.

    Raises:
        CompatibilityError: the teacher cannot be cut so, or the given model does not fit the task.
    """
    student, loaded = _started(spec, task, teacher, origin, cut)
    model = task.started(student.model, spec)
    if spec.static and type(model) is type(student.model):
        raise CompatibilityError(f"student.static: is for task: embedding; `{task.kind}` asks more than the mean of "
                                 f"what its tokens "
                                 "are. Take layers, or `student: {model: ...}`")
    student, loaded = replace(student, model=model), replace(loaded, model=model)
    loaded = task.seeing(loaded, spec)
    if spec.interpolate is not None:
        moved = interpolate(student, teacher.model, spec.interpolate, tokens=_same_tokens(loaded, teacher), cut=cut)
        student = replace(student, moved=moved)
    if smaller is not None:
        loaded = smaller.of(loaded)
        student = replace(student, model=loaded.model)
    if spec.freeze is not None:
        freeze(student.model, spec.freeze)
    whole = task.trained_whole(student.model)
    return (student if spec.lora is None else with_adapters(student, spec.lora, whole)), loaded


def towards(spec: StudentSpec, task: Task, teacher: Loaded, origin: ModelSource | None) -> Towards:
    """What of its teacher a student may take over that is given or made by a config.

    Raises:
        CompatibilityError: see `Towards`.
    """
    student, _ = _started(spec, task, teacher, origin, None)
    return Towards(replace(student, model=task.started(student.model, spec)), teacher.model)


def _started(
    spec: StudentSpec, task: Task, teacher: Loaded, origin: ModelSource | None, cut: Cut | None
) -> tuple[Student, Loaded]:
    """With the whole vocabulary."""
    if spec.model is not None:
        loaded = own_model(spec, task)
        return given(loaded.model, teacher.model), loaded
    teacher = task.pattern(teacher)
    student = whole_width(spec, task, teacher, origin)
    if spec.width is not None:
        model = transformer(student)
        cut = cut or by_width(model, spec.width.model_copy(update={"rounds": 1}), first_units)
        student = replace(student, model=cut.of(model), slices=cut.slices)
    _refuse_few_embeddings(student.model, teacher.processor)
    return student, Loaded(student.model, teacher.processor, teacher.source)


def own_model(spec: StudentSpec, task: Task) -> Loaded:
    """The model that a student is given as, before training."""
    assert spec.model is not None
    return task.load(ModelSource(model=spec.model, weights=spec.weights, processor=spec.processor, revision=spec.revision,
                                 trust_remote_code=spec.trust_remote_code), labelled=False)


def whole_width(spec: StudentSpec, task: Task, teacher: Loaded, origin: ModelSource | None) -> Student:
    """A student that is made from its teacher, before its layers are made narrower.

    Raises:
        CompatibilityError: see `start_student`.
    """
    whole = task.pattern(teacher).model
    if origin is not None and origin.precision != "float32":
        whole = task.pattern(task.load(origin.model_copy(update={"precision": "float32"}), labelled=True)).model
    if spec.config is not None:
        return fresh(whole, spec.config)
    return with_layers(whole, spec.layers)


def _same_tokens(student: Loaded, teacher: Loaded) -> bool:
    """Whether both number their tokens alike, where they read tokens; by other processors inputs are only seen otherwise."""
    one, other = (getattr(loaded.processor, "tokenizer", loaded.processor) for loaded in (student, teacher))
    if not (isinstance(one, PreTrainedTokenizerBase) and isinstance(other, PreTrainedTokenizerBase)):
        return True
    return bool(one.get_vocab() == other.get_vocab())


def transformer(student: Student) -> PreTrainedModel:
    """The model of a student that was cut from its teacher: no other can be."""
    assert isinstance(student.model, PreTrainedModel)
    return student.model


def _refuse_few_embeddings(model: nn.Module, processor: Any) -> None:
    """A student without a tokenizer of its own reads the teacher's tokens."""
    tokenizer = getattr(processor, "tokenizer", processor)
    if isinstance(tokenizer, PreTrainedTokenizerBase) and (unknown := unknown_tokens(tokenizer, model)):
        last, known = unknown
        raise CompatibilityError(f"student.config: an embedding for {known} tokens, and the teacher's tokenizer goes up to "
                                 f"{last}. Leave vocab_size out, or give a student with a tokenizer of its own "
                                 "(`student: {model: ...}`)")


def trained(source: ModelSource, path: Path) -> ModelSource:
    """Where a model that was trained here is loaded from."""
    if ":" in source.model and not Path(source.model).exists():
        return ModelSource(model=source.model, weights=str(path / "model.safetensors"), processor=source.processor,
                           precision=source.precision, trust_remote_code=source.trust_remote_code)
    return ModelSource(model=str(path), precision=source.precision, trust_remote_code=source.trust_remote_code)


def saved_student(recipe: Recipe, folder: RunFolder, task: Task, role: str, seed: int) -> Loaded:
    """Student or baseline of the n-th seed as a user would load it: from its files."""
    spec, path = recipe.student, folder.model(role, seed)
    made = spec.model or recipe.teacher.model
    source = trained(ModelSource(model=made, processor=spec.processor or recipe.teacher.processor,
                                 trust_remote_code=spec.trust_remote_code or recipe.teacher.trust_remote_code), path)
    return task.load(source, labelled=True)


def trained_again(recipe: Recipe, folder: RunFolder, task: Task) -> Loaded | None:
    """The teacher trained with another seed; None where it was not."""
    path = folder.model("teacher", 1)
    if not (recipe.asks_for_a_ceiling and path.is_dir()):
        return None
    return task.of_teacher().load(trained(recipe.teacher, path), labelled=True)
