"""Labels of the data against labels of a model: the same names in another order, no names, or a refusal."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from torch import nn

from stilla.errors import CompatibilityError, all_of, counted
from stilla.tasks.shared.activations import PLACES, activation_of, write_activation
from stilla.tasks.shared.label_checks import plainly, spelling
from stilla.tasks.shared.problem import Kind, Problem, Scale

logger = logging.getLogger(__name__)

PROBLEM_TYPES: dict[Kind, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""What transformers calls the three kinds in `config.problem_type`."""


def names_of(config: Any) -> tuple[str, ...] | None:
    """The labels that a model's config names, in its order; None where they are LABEL_0, LABEL_1, ...

    Where it says numbers (some write classes as they are), they are spelled as the data's are.
    """
    names = tuple(spelling(config.id2label[index]) for index in sorted(config.id2label))
    return None if names == _nameless(len(names)) else names


def _nameless(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{index}" for index in range(count))


def count_by_names(config: Any) -> None:
    """As many outputs as labels have names. Configs have the number of the names; PVT's keeps one beside them, which is 1,000
    where nothing says it (folders of transformers 4, whoever gives names alone), and has no names where nobody gave any."""
    if config.id2label is None:
        config.id2label = dict(enumerate(_nameless(config.num_labels)))
        config.label2id = {name: index for index, name in config.id2label.items()}
    elif config.num_labels != len(config.id2label):
        config.num_labels = len(config.id2label)


def write_names(model: nn.Module, problem: Problem) -> None:
    """Tell a Hugging Face model what its outputs mean."""
    config: Any = model.config
    names = problem.names or ("LABEL_0",)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    count_by_names(config)
    if "label_names" in vars(config):  # timm's, which its configs are read by
        config.label_names = list(names)
    # of a single class (things that are found) transformers takes no name of a problem, when the config is read again
    config.problem_type = None if problem.kind == "single_label" and len(names) < 2 else PROBLEM_TYPES[problem.kind]
    if problem.activation == "sigmoid":
        write_activation(config, "sigmoid")
        config.problem_type = None  # transformers' pipelines, too, then take the sigmoid of a single logit
    elif problem.kind == "regression" and not vars(config).keys().isdisjoint(PLACES):
        write_activation(config, "none")


def adapted(problem: Problem, config: Any, source: str) -> Problem:
    """The problem with its labels in the model's order.

    A model that knows more labels than the data keeps them all. One whose labels have no names is believed to
    have the data's order, if it has as many.

    Raises:
        CompatibilityError: the model was trained for another kind of label, or cannot answer for these.
    """
    theirs, count = names_of(config), len(config.id2label)
    _refuse_other_kind(problem, config.problem_type, count, source)
    activation = activation_of(config, source)
    if problem.kind == "regression":
        return replace(_numbers_in_order(problem, theirs, source), activation=activation)
    if theirs is None:
        return _unnamed(problem, count, source)
    if sorted(theirs) == sorted(_nameless(count)) and not problem.named and set(problem.raw) <= set(map(str, range(count))):
        theirs = tuple(name.removeprefix("LABEL_") for name in theirs)  # nameless, in another order: their own numbers
    # a label without its column is unknown, not absent
    whole = problem.form != "columns" or len(theirs) == len(problem.names)
    if set(problem.names) <= set(theirs) and whole:
        raw = dict(zip(problem.names, problem.raw))
        counted = dict(zip(problem.names, problem.weights))
        return replace(problem, names=theirs, raw=tuple(raw.get(name, name) for name in theirs), named=True,
                       weights=tuple(counted.get(name, 1.0) for name in theirs) if counted else ())
    if not problem.named and problem.raw == tuple(str(index) for index in range(len(theirs))):
        listed = all_of([f"{index} is {name!r}" for index, name in enumerate(theirs[:5])])
        logger.warning("data.label: numbers are read as positions of %s's labels: %s", source, listed)
        return replace(problem, names=theirs, named=True)
    raise CompatibilityError(_other_labels(problem, theirs, source))


def _numbers_in_order(problem: Problem, theirs: tuple[str, ...] | None, source: str) -> Problem:
    """Several numbers in the order of the model's outputs; without names these are believed to have the data's order."""
    if problem.form != "numbers" or theirs == problem.names:
        return problem
    if theirs is None:
        return _unnamed(problem, len(problem.names), source)
    if set(theirs) != set(problem.names):
        raise CompatibilityError(_other_labels(problem, theirs, source))
    order = [problem.names.index(name) for name in theirs]
    scale = problem.scale and Scale(tuple(problem.scale.means[one] for one in order),
                                    tuple(problem.scale.deviations[one] for one in order))
    return replace(problem, names=theirs, raw=tuple(problem.raw[one] for one in order), scale=scale)


def _unnamed(problem: Problem, count: int, source: str) -> Problem:
    if count != len(problem.names):
        raise CompatibilityError(
            f"{source} has {counted(count, 'label')} without names, the data have {len(problem.names)} "
            f"({all_of([repr(name) for name in problem.names[:8]])}). Give data with the teacher's labels, "
            "name all of them in its order in data.labels, or train it first (teacher: {train: {}})."
        )
    logger.warning(
        "%s's labels have no names; believed to be the data's, in this order: %s",
        source,
        ", ".join(problem.names[:8]) + (" ..." if count > 8 else ""),
    )
    return problem


def _refuse_other_kind(problem: Problem, problem_type: str | None, count: int, source: str) -> None:
    theirs = next((kind for kind, name in PROBLEM_TYPES.items() if name == problem_type), None)
    if problem.kind == "regression" and count != problem.outputs and (
            theirs == "regression" or problem.form == "numbers"):
        raise CompatibilityError(f"{source} answers with {counted(count, 'number')}, the data have {problem.outputs}. Name "
                                 "the columns of all of them in data.label, take another teacher, or train this one first "
                                 "(teacher: {train: {}}).")
    if theirs is None and problem.form == "numbers" and count == problem.outputs:
        return  # configs of several numbers often do not say what they are
    if theirs is None and (count == 1) != (problem.kind == "regression"):
        theirs = "regression" if count == 1 else "single_label"
    if theirs is not None and theirs != problem.kind:
        raise CompatibilityError(
            f"{source} answers with {theirs} ({count} {'output' if count == 1 else 'outputs'}), the data ask "
            f"for {problem.kind}. Set data.kind or data.label, take another teacher, or train this one first "
            "(teacher: {train: {}})."
        )


def _other_labels(problem: Problem, theirs: tuple[str, ...], source: str) -> str:
    outside = [name for name in problem.names if name not in theirs]
    message = (
        f"{source} does not know {len(outside)} of the data's {len(problem.names)} labels: "
        f"{all_of([repr(name) for name in outside[:8]])}{' ...' if len(outside) > 8 else ''}; its own "
        f"{len(theirs)} are {all_of([repr(name) for name in theirs[:8]])}{' ...' if len(theirs) > 8 else ''}."
    )
    if not problem.named:
        return f"{message} Say in data.labels which name each number stands for, in the order of the numbers."
    plain = {plainly(name): name for name in theirs}
    near = [(name, plain[plainly(name)]) for name in outside if plainly(name) in plain]
    if near:
        pairs = all_of([f"{ours!r} like {other!r}" for ours, other in near[:8]])
        return f"{message} They differ in case, spaces or hyphens only: write {pairs} in the data."
    if not outside:
        return f"{message} Every label of the teacher needs its column in data.label."
    return f"{message} Leave these examples out, or train the teacher first (teacher: {{train: {{}}}})."
