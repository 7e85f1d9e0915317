"""From a call in Python to a recipe: loaded models and data may stand where a recipe has names.

A recipe stays plain: what was given is written into the run's folder (`stages/stored.py`), and the recipe names it there. So
the run's own `recipe.yaml` means the same from the command line, and the same call finds what it wrote.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from torch import nn
from transformers import (
    FeatureExtractionMixin,
    ImageProcessingMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from stilla.data.given import are_columns, examples, in_short
from stilla.errors import DataError, RecipeError, all_at_once
from stilla.recipe import Recipe, Section
from stilla.recipe.file import draft_of_options, plain_values
from stilla.recipe.schedule import Schedule
from stilla.runtime.paths import meant
from stilla.runtime.processes import on_main, processes
from stilla.runtime.quiet import quiet_libraries
from stilla.stages.folder import RunFolder
from stilla.stages.origin import elsewhere
from stilla.stages.stored import Given, GivenModel, GivenProcessor, Place, Store

SPLITS = ("train", "validation", "test")
UNLABELLED, SHIFTED = "unlabelled", "shifted"
PROCESSOR_FILES = ("tokenizer*", "vocab*", "*.model", "*.spm", "*.tiktoken", "merges.txt", "*processor*_config.json")
PLAIN = "plain values, as a file would hold them: text, numbers, true or false, lists, keys and values"
ELSEWHERE = {
    **dict.fromkeys(("processor", "tokenizer", "image_processor", "feature_extractor"),
                    "processing_class=, or a model with its own, teacher=(model, tokenizer)"),
    **dict.fromkeys(("dataset", "train_dataset", "eval_dataset"), 'data=, as in data={"train": ..., "validation": ...}'),
    **dict.fromkeys(("model", "teacher_model", "student_model"), "teacher= and student="),
}
"""What other tools call what is given here, and where that belongs."""
INSIDE = ("torch.DataParallel", "torch.DistributedDataParallel", "torch.OptimizedModule", "torch.FullyShardedDataParallel")
Source = str | os.PathLike[str] | Mapping[str, Any] | Recipe | None
"""A recipe: its file, what stands in one, or the recipe itself; None where keywords say all of it."""


@dataclass(frozen=True)
class Call:
    """The recipe that a call means. `given`: what stands behind its names that no file holds yet."""

    recipe: Recipe
    given: Mapping[Place, Given]

    @classmethod
    def of(cls, source: Source, overrides: Sequence[str], options: Mapping[str, Any], processing_class: Any = None) -> Call:
        """`options` take the place of the source's sections; `processing_class` belongs to every given model without one.

        Raises:
            RecipeError: every problem of the recipe's shape and of what was given, all at once.
        """
        if isinstance(source, Recipe) and not overrides and not options and processing_class is None:
            return cls(source, {})
        quiet_libraries()
        file = Path(meant(os.fspath(source))) if isinstance(source, str | os.PathLike) else None
        said = {**_said(source), **options}
        found = _Sorted(str(said.get("task")), processing_class)
        plain = found.sort(said)
        if file is None and ("data", "train" if _trains(plain) else UNLABELLED) in {place[:2] for place in found.given}:
            plain.setdefault("output", f"runs/{found.task.rpartition(':')[2]}")
        draft = draft_of_options(plain, overrides, file)
        away = [] if file is None or draft.recipe is None else elsewhere(file, draft.recipe)
        if found.problems or draft.problems or draft.recipe is None or away:
            where = "recipe" if file is None else file.name
            raise all_at_once([*(f"{where}: {one}" for one in found.problems), *draft.problems, *away], RecipeError)
        # an override may have taken the place of what was given
        given = {place: one for place, one in found.given.items()
                 if _said_at(draft.recipe, place) == _name_of(place)}
        return cls(draft.recipe, given)

    @contextmanager
    def written_down(self) -> Iterator[Recipe]:
        """The recipe with the paths of what was given in it, as long as the run takes. Only the main process writes.

        Raises:
            StillaError: what was given cannot be written down.
        """
        if not self.given:
            yield self.recipe
            return
        store = Store(RunFolder(Path(self.recipe.output)))
        try:
            yield _naming(self.recipe, on_main(lambda: store.keep(self.given)))
        except BaseException:
            if processes().is_main_process:
                store.undo()
            raise
        if processes().is_main_process:
            store.tidy()


def _trains(plain: Mapping[str, Any]) -> bool:
    """Whether there are labelled training data."""
    data = plain.get("data")
    return not isinstance(data, Mapping) or data.get("train") is not None


def _said(source: object) -> dict[str, Any]:
    if source is None:
        return {}
    if isinstance(source, str | os.PathLike):
        return dict(plain_values(Path(source)))
    if isinstance(source, Recipe):
        return source.model_dump(mode="json")
    if isinstance(source, Mapping) and not isinstance(source, DatasetDict):
        return dict(source)
    raise RecipeError(f"got {in_short(source)} as the recipe; expected a recipe's file, a dict of what stands in one, or a "
                      "Recipe. Models and data are keywords: task=, data=, teacher=, student=")


def _name_of(place: Place) -> str:
    return f"<given: {'.'.join(map(str, place))}>"


def _said_at(recipe: Recipe, place: Place) -> Any:
    """What stands there; nothing where an override has put something else around it."""
    node: Any = recipe
    for step in place:
        if isinstance(step, int):
            node = node[step] if isinstance(node, tuple) and step < len(node) else None
        elif isinstance(node, Mapping):
            node = node.get(step)
        else:
            node = getattr(node, step) if isinstance(node, Section) else None
    return node


def _naming(recipe: Recipe, paths: Mapping[Place, str]) -> Recipe:
    for place, path in paths.items():
        recipe = _put(recipe, place, path)
    return recipe


def _put(node: Any, place: Place, path: str) -> Any:
    """The same with a path at its place."""
    if not place:
        return path
    step, *rest = place
    if isinstance(step, int):
        return tuple(_put(one, tuple(rest), path) if number == step else one for number, one in enumerate(node))
    if isinstance(node, Mapping):
        return {**node, step: _put(node.get(step), tuple(rest), path)}
    return node.model_copy(update={step: _put(getattr(node, step), tuple(rest), path)})


@dataclass
class _Sorted:
    """A call's options, sorted into plain values and what was given; `problems` of all of them."""

    task: str
    processing_class: Any
    given: dict[Place, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def sort(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with names in the place of what was given."""
        if self.processing_class is not None and not _is_processor(self.processing_class):
            self._refuse("processing_class", self.processing_class, "a tokenizer or an image processor")
            self.processing_class = None
        ways: Mapping[str, Callable[[Any], Any]] = {
            "data": self._data, "teacher": lambda value: self._model("teacher", value),
            "student": lambda value: self._model("student", value)}
        plain: dict[str, Any] = {}
        for name, value in options.items():
            if name in ELSEWHERE:
                self.problems.append(f"{name}: unknown key; expected {ELSEWHERE[name]}")
            elif name in Recipe.model_fields:
                plain[name] = self._plain(ways[name](value) if name in ways else value, name)
            else:
                plain[name] = ""  # the recipe says which keys there are
        return {name: value for name, value in plain.items() if value is not None}

    def _refuse(self, place: str, value: object, expected: str) -> None:
        self.problems.append(f"{place}: got {in_short(value)}; expected {expected}")

    def _data(self, value: Any) -> Any:
        if value is None or isinstance(value, str | os.PathLike | Section):
            return value
        section = isinstance(value, Mapping) and not isinstance(value, DatasetDict)
        if section and ({"train", UNLABELLED} & set(value) or not are_columns(value)):
            ways: Mapping[str, Callable[[Any, Place], Any]] = {
                **dict.fromkeys(SPLITS, self._split), UNLABELLED: self._unlabelled, SHIFTED: self._beside}
            return {key: ways[key](one, ("data", key)) if key in ways else one for key, one in value.items()}
        return {"train": self._split(value, ("data", "train"))}

    def _beside(self, value: Any, place: Place) -> Any:
        """Data from elsewhere: by name, or one of them."""
        if isinstance(value, Mapping) and not isinstance(value, DatasetDict) and not are_columns(value):
            return {name: self._split(one, (*place, str(name))) for name, one in value.items()}
        found = self._split(value, (*place, SHIFTED))
        return found if found is value else {SHIFTED: found}

    def _split(self, value: Any, place: Place) -> Any:
        if value is None or isinstance(value, str | os.PathLike | Section):
            return value
        if isinstance(value, dict) and value and all(isinstance(one, str | float | int) for one in value.values()):
            return value  # {split: 0.1}
        try:
            self.given[place] = examples(value)
        except DataError as error:
            self.problems.append(f"{'.'.join(map(str, place))}: {error}")
        return _name_of(place)

    def _unlabelled(self, value: Any, place: Place) -> Any:
        if value is None or isinstance(value, str | os.PathLike | Section):
            return value
        said = dict(value) if _is_section(value) else {"examples": value}
        if "examples" not in said:
            return said
        several = said["examples"] if _are_several(said["examples"]) else [said["examples"]]
        return {**said, "examples": [self._split(one, (*place, "examples", number)) for number, one in enumerate(several)]}

    def _model(self, name: str, value: Any) -> Any:
        if isinstance(value, Section):
            value = value.model_dump(mode="json", exclude_unset=True)
        section = dict(value) if isinstance(value, Mapping) else {"model": value}
        model = section.get("model")
        if isinstance(model, tuple) and len(model) == 2:
            if section.get("processor") is not None:
                self.problems.append(f"{name}: a processor in model=(model, processor), and another one; expected one")
            section |= {"model": model[0], "processor": model[1]}
            model = model[0]
        loaded = not (model is None or isinstance(model, str | int | os.PathLike))
        processor = section.get("processor")
        if processor is None and (loaded or name == "teacher"):
            processor = self.processing_class
        if loaded:
            section |= self._loaded(name, model, processor)
        elif processor is not None and not isinstance(processor, str | os.PathLike):
            section["processor"] = self._processor(name, processor)
        return section if loaded or "processor" in section or isinstance(value, Mapping) else value

    def _loaded(self, name: str, model: Any, processor: Any) -> dict[str, Any]:
        """What a section says of a loaded model: its names, and its processor's where that is none of what is given."""
        place = (name, "model")
        if wrong := _unfit(model, self.task):
            self.problems.append(f"{name}.model: {wrong}")
            return {"model": _name_of(place), "processor": None}
        named: Any = None
        if processor is None:
            named = self._processor_of_origin(name, model)
        elif isinstance(processor, str | os.PathLike):
            named, processor = processor, None
        elif not _is_processor(processor):
            self._refuse(f"{name}.processor", processor, "a tokenizer or an image processor")
            processor = None
        self.given[place] = GivenModel(model, processor)
        return {"model": _name_of(place), "processor": named}

    def _processor_of_origin(self, name: str, model: PreTrainedModel) -> str | None:
        """Where a model was loaded from there is one too; a person's own task may need none."""
        origin = Path(model.name_or_path)
        if origin.is_dir() and model.name_or_path and any(any(origin.glob(files)) for files in PROCESSOR_FILES):
            return str(origin.resolve())
        if model.name_or_path and not origin.exists() and model.name_or_path.count("/") < 2:
            return str(model.name_or_path)
        if ":" not in self.task:
            self.problems.append(f"{name}.model: the {in_short(model)} comes without a tokenizer or image processor; give "
                                 f"both, {name}=(model, tokenizer), or processing_class=tokenizer for all models")
        return None

    def _processor(self, name: str, processor: Any) -> str | None:
        place = (name, "processor")
        if not _is_processor(processor):
            self._refuse(f"{name}.processor", processor, "a tokenizer, an image processor, a folder or a name")
            return None
        self.given[place] = GivenProcessor(processor)
        return _name_of(place)

    def _plain(self, value: Any, place: str) -> Any:
        """As a file would hold it; what no file could hold is a problem."""
        if value is None or isinstance(value, str | bool | int | float | Section | Schedule):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, Mapping):
            return {key: self._plain(one, f"{place}.{key!s:.60}") for key, one in value.items()}
        if isinstance(value, list | tuple):
            return self._plain_list(value, place)
        self._refuse(place, value, PLAIN)
        return None

    def _plain_list(self, values: Sequence[Any], place: str) -> list[Any]:
        """Up to the first that is wrong: the others will be of its kind."""
        found: list[Any] = []
        known = len(self.problems)
        for number, value in enumerate(values):
            found.append(self._plain(value, f"{place}[{number}]"))
            if len(self.problems) > known:
                break
        return found


def _is_section(value: Any) -> bool:
    """Whether it is `data.unlabelled` as recipes have it, and no columns by their names."""
    return isinstance(value, Mapping) and not isinstance(value, DatasetDict) and (
        "examples" in value or value.get("rest") is True or isinstance(value.get("generate"), Mapping | Section))


def _are_several(value: object) -> bool:
    """Whether it is a list of names and data, and not of rows."""
    return isinstance(value, list | tuple) and bool(value) and not all(
        isinstance(one, dict) and not are_columns(one) for one in value)


def _is_processor(value: object) -> bool:
    return isinstance(value, PreTrainedTokenizerBase | ImageProcessingMixin | FeatureExtractionMixin | ProcessorMixin)


def _unfit(model: Any, task: str) -> str | None:
    """Why it cannot be written down as a model; None if it can."""
    if not isinstance(model, nn.Module):
        return (f"got {in_short(model)}; expected a folder, a name, package.module:callable, a Hugging Face model, or "
                "(model, tokenizer)")
    if in_short(model).startswith("peft."):
        return f"got {in_short(model)}, whose adapters are beside its weights; give model.merge_and_unload()"
    if in_short(model) in INSIDE:
        return f"got {in_short(model)}; expected the model inside of it"
    if not isinstance(model, PreTrainedModel):
        return (f"got {in_short(model)}, which is no Hugging Face model: no file says how to make it again. Name what makes "
                "it, {'model': 'package.module:callable', 'weights': 'weights.safetensors'} (docs/students.md)")
    if model.config.to_dict().get("quantization_config"):
        return "its weights are quantised; name where it was loaded from, with precision: 4bit or int8"
    if any(value.is_meta for value in model.state_dict().values()):
        return "some of its weights are not in memory (device_map, or the meta device); load it whole, or name its folder"
    return None
