"""Loading of classifiers: Hugging Face folders and names, import paths, precisions; and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from stilla.data.hub import hub_reachable
from stilla.data.sources import near_models
from stilla.errors import CompatibilityError, all_of, counted
from stilla.recipe import ModelSource
from stilla.runtime.imports import is_import_path
from stilla.tasks.shared.activations import activation_of, read_beside
from stilla.tasks.shared.imported import ImportedModel, imported
from stilla.tasks.shared.int8 import quantise
from stilla.tasks.shared.label_order import PROBLEM_TYPES, count_by_names, names_of, write_names
from stilla.tasks.shared.labels import Problem
from stilla.tasks.shared.standard import begun, last_layer

logger = logging.getLogger(__name__)

Classifier: TypeAlias = PreTrainedModel | ImportedModel


def classifier(
    source: ModelSource, problem: Problem, auto: Any, *, labelled: bool, axes: int = 2, heads: Sequence[str] = ()
) -> Classifier:
    """The model that a recipe names, with the problem's labels written into its config.

    Args:
        auto: the `AutoModelFor...` of the task.
        labelled: see `Task.load`.
        axes: of its logits: (batch, labels), or (batch, positions, labels).
        heads: parts of the names of heads that stand within the body.

    Raises:
        CompatibilityError: nothing there, no weights, a pickle, code that is not trusted, a head that does
        not fit.
    """
    if is_import_path(source.model):
        model: Classifier = imported(source, _config_for(problem), axes)
    elif source.weights is not None:
        raise CompatibilityError(f"weights: {source.model!r} is a Hugging Face model and brings its own "
                                 "weights; expected none, or `model: package.module:callable`.")
    elif labelled:
        model = _trained(source, problem, auto)
    else:
        model = _to_be_trained(source, problem, auto, heads)
    if labelled:
        lowered(model, source)
    return model


def lowered(model: nn.Module, source: ModelSource) -> None:
    """A model that only answers, in the precision that the recipe asks for; in place."""
    if source.precision == "bfloat16":
        model.to(torch.bfloat16)
    if source.precision == "int8":
        quantise(model)


def _config_for(problem: Problem) -> PreTrainedConfig:
    names = problem.names or ("LABEL_0",)
    return PreTrainedConfig(
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=PROBLEM_TYPES[problem.kind],
    )


def _trained(source: ModelSource, problem: Problem, auto: Any) -> PreTrainedModel:
    """A checkpoint with every weight in its place; nameless labels get the problem's, if as many."""
    config = read_config(source)
    model, info = from_pretrained(source, config, auto)
    fresh = sorted(info["missing_keys"])
    refuse_lost_body(model, fresh, source)
    if fresh:
        raise CompatibilityError(
            f"{source.model!r} has no trained head for this task: its checkpoint lacks {all_of(fresh[:5])}"
            f"{' ...' if len(fresh) > 5 else ''}. Train it first: teacher: "
            f"{{model: {source.model}, train: {{}}}}."
        )
    if names_of(config) is None and len(config.id2label) == max(1, len(problem.names)):
        write_names(model, dataclasses.replace(problem, activation=activation_of(config, source.model)))
    return model


def _to_be_trained(source: ModelSource, problem: Problem, auto: Any, heads: Sequence[str] = ()) -> PreTrainedModel:
    """A checkpoint's body, and its head if that was made for these labels in this order; else a new one."""
    config = read_config(source)
    theirs, heads = names_of(config), (*heads, *_heads_of_timm(config))
    config.num_labels = max(1, len(problem.names))
    model, info = from_pretrained(source, config, auto, ignore_mismatched_sizes=True)
    fresh = sorted([*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])])
    refuse_lost_body(model, [name for name in fresh if not any(head in name for head in heads)], source)
    begins = _is_of_head(model, fresh, problem)
    if not fresh and theirs not in (None, problem.names):
        logger.warning("%s: a new head; its own is for other labels, or in another order", source.model)
        model, begins = _with_new_head(model, heads), True
    elif fresh:
        logger.info("%s: new weights, with %d outputs: %s",
                    source.model, config.num_labels, all_of(fresh[:6]))
    if begins and problem.scale is not None and problem.activation == "none":
        begun(model, problem.scale)
    write_names(model, problem)
    return model


def _is_of_head(model: PreTrainedModel, fresh: Sequence[str], problem: Problem) -> bool:
    """Whether among these weights are those of the layer that gives the answer."""
    layer = last_layer(model, problem.outputs)
    place = next((name for name, module in model.named_modules() if module is layer), None)
    return any(name.rpartition(".")[0] == place for name in fresh)


def refuse_lost_body(model: PreTrainedModel, fresh: Sequence[str], source: ModelSource) -> None:
    """Only a head may be new; random layers among trained ones would show in nothing but the quality."""
    body = f"{model.base_model_prefix}."
    # a pooler belongs to the head: checkpoints from pre-training often have none
    lost = [name for name in fresh if name.startswith(body) and "pooler" not in name]
    if lost:
        raise CompatibilityError(
            f"{source.model!r}: {counted(len(lost), 'weight', 'is')} missing from the checkpoint or of another shape: "
            f"{all_of(lost[:5])}{' ...' if len(lost) > 5 else ''}. Its config.json does not describe its weights."
        )


def _heads_of_timm(config: Any) -> tuple[str, ...]:
    """What a model of timm calls its heads, which stand within what transformers takes for its body; of others none."""
    said = (config.to_dict().get("pretrained_cfg") or {}).get("classifier") or ()
    names = (said,) if isinstance(said, str) else tuple(said)
    return tuple(f"timm_model.{name}." for name in names)


def _with_new_head(model: PreTrainedModel, heads: Sequence[str]) -> PreTrainedModel:
    """`heads`: parts of the names of those within the body."""
    fresh = type(model)(copy.deepcopy(model.config))
    prefix = f"{model.base_model_prefix}."
    body = {name: value for name, value in model.base_model.state_dict().items()
            if not any(head in prefix + name for head in heads)}
    fresh.base_model.load_state_dict(body, strict=not heads)
    return fresh.eval()


def read_config(source: ModelSource) -> Any:
    """The config of a Hugging Face model.

    Raises:
        CompatibilityError: as for `classifier`.
    """
    if source.config is not None:
        raise CompatibilityError("config: a model of random weights, made of a config alone, is for task: recommendation; "
                                 "models of this task need a tokenizer or an image processor. Leave config out, and name a "
                                 "folder or a Hugging Face model")
    if source.is_stored:
        raise CompatibilityError(f"model: {source.model!r} is a file of what a model has said; only task: embedding "
                                 f"learns from "
                                 "one, as its teacher's vectors. Name a folder or a Hugging Face model")
    check_place(source.model, "model")
    with explained(source.model, "model"):
        config = AutoConfig.from_pretrained(source.model, **where(source))
    if not source.trust_remote_code and (kernel := _foreign_kernel(config)):
        raise CompatibilityError(f"model: {source.model!r} asks for {kernel!r} as its implementation, which is code that "
                                 "would be fetched and run. Take that out of its config.json, or say trust_remote_code: true")
    read_beside(config, source.model, **where(source))
    count_by_names(config)
    if vars(config).get("model_args"):  # timm writes there how it was made, and transformers would say the classes twice
        config.model_args = {name: value for name, value in config.model_args.items() if name != "num_classes"}
    return config


def _foreign_kernel(config: PreTrainedConfig) -> str | None:
    """The code of somebody's repository that a config asks for as its attention or experts, at any depth."""
    for name, value in vars(config).items():
        if name.endswith("_implementation_internal") and isinstance(value, str) and "/" in value:
            return value
    inner = (one for one in vars(config).values() if isinstance(one, PreTrainedConfig))
    return next((found for one in inner if (found := _foreign_kernel(one))), None)


def from_pretrained(
    source: ModelSource, config: Any, auto: Any, *, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[PreTrainedModel, Any]:
    """The model and what transformers says about its loading.

    Raises:
        CompatibilityError: as for `classifier`.
    """
    _check_weights(source.model, auto)
    if type(config) not in auto._model_mapping and not source.trust_remote_code:
        raise CompatibilityError(f"{source.model!r} is a {config.model_type} model, for which transformers "
                                 f"has no {auto.__name__.removeprefix('AutoModelFor')} head. Take another "
                                 "model.")
    with explained(source.model, "model"), _quiet():
        model, info = auto.from_pretrained(
            source.model, config=config, use_safetensors=True, dtype=dtype, output_loading_info=True,
            **where(source), **options)  # fmt: skip
    return model, info


def where(source: ModelSource) -> dict[str, Any]:
    local = Path(source.model).expanduser().is_dir()
    return {
        "revision": source.revision,
        "trust_remote_code": source.trust_remote_code,
        "local_files_only": local or not hub_reachable(),
    }


def where_processor(source: ModelSource) -> tuple[str, dict[str, Any]]:
    """The place of the tokenizer or image processor, and how to read it.

    Raises:
        CompatibilityError: a model by import path without one, or no such folder.
    """
    if source.processor is None and is_import_path(source.model):
        raise CompatibilityError(f"processor: {source.model!r} is a model by import path and brings none; "
                                 "name the folder of its tokenizer or image processor.")
    key = "processor" if source.processor is not None else "model"
    place = source.processor or source.model
    check_place(place, key)
    own = where(source.model_copy(update={"model": place}))
    return place, own if source.processor is None else {**own, "revision": None}


# --- what is refused ---


def check_place(name: str, key: str) -> None:
    """Refuse what can only be a path and is not there; the rest is for the hub to answer."""
    path = Path(name).expanduser()
    if path.is_file():
        raise CompatibilityError(f"{key}: {name!r} is a file; expected the folder that `save_pretrained` "
                                 "wrote, a Hugging Face name, or package.module:callable (with weights: the "
                                 "file).")
    if not path.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise CompatibilityError(f"{key}: {name!r}: no such folder.{near_models(path)}")


def _check_weights(name: str, auto: Any) -> None:
    folder = Path(name).expanduser()
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        convert = (
            f"from transformers import {auto.__name__} as A; "
            f"A.from_pretrained({name!r}, use_safetensors=False).save_pretrained({name!r})"
        )
        raise CompatibilityError(
            f"model: {name!r} holds its weights as a pickle ({all_of(pickles[:3])}), which can run code when "
            f'it is read. Convert it once to safetensors, if you trust it: python -c "{convert}"'
        )
    raise CompatibilityError(f"model: {name!r} holds no weights; expected model.safetensors beside its "
                             "config.json.")


@contextmanager
def explained(name: str, key: str) -> Iterator[None]:
    """What transformers raises while reading, in words that say what to do."""
    try:
        yield
    except (CompatibilityError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        message = (str(error).strip() or repr(error)).splitlines()[0]
        if "trust_remote_code" in str(error):
            why = "comes with code of its own, which is not run unless you say so: trust_remote_code: true"
        elif "requires the timm library" in str(error):
            why = ('is a model of timm, which is not installed beside its torchvision: pip install "stilla[timm]", with the '
                   "torchvision that belongs to your torch")
        elif "Unrecognized model" in message or "model_type" in message:
            why = "has no config.json that says what model it is"
        elif re.search(r"model type .* does not recognize", str(error)):
            why = f"is of a type that this version of transformers does not know: {message}"
        elif "ignore_mismatched_sizes" in str(error):
            why = ("holds weights of other shapes than its config.json says: a head, for example, with another number of "
                   "outputs than id2label has names")
        elif isinstance(error, OSError) and not Path(name).expanduser().is_dir():
            here = near_models(Path(name).expanduser())
            why = (f"is neither a folder here nor a model that the Hugging Face Hub has, or lets you see: "
                   f"{message}.{here}"
                   if hub_reachable()
                   else f"is no folder here, not in the local cache, and the hub cannot be reached (no "
                        f"network).{here}")
        else:
            why = f"cannot be loaded: {message}"
        raise CompatibilityError(f"{key}: {name!r} {why}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No table of fresh weights: what matters in it is said, or refused, here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


