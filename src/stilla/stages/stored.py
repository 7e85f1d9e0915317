"""Data and models that Python gave, in the run's folder under the name of their content: its recipe names them there.

The same content is written once, another one beside it, so that nothing that a recipe names ever changes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import torch
from datasets import Dataset, DatasetDict
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from stilla.data import fingerprint as data_fingerprint
from stilla.data.given import Examples
from stilla.errors import DataError, FolderError
from stilla.export import save_student
from stilla.export._folders import replaced
from stilla.models.fingerprint import of_model, of_processor
from stilla.runtime.differences import fingerprint
from stilla.runtime.narrate import say
from stilla.stages.folder import RunFolder
from stilla.students import merged

DIGITS = 12
_NAMED = re.compile(rf"[a-z]+-[0-9a-f]{{{DIGITS}}}")
_SAVING = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache"})
"""Fields of a config that change no answer, and that saving and loading set."""


@dataclass(frozen=True)
class GivenModel:
    """A model as it is now. `processor`: its tokenizer or image processor, if given with it."""

    model: PreTrainedModel
    processor: Any | None


@dataclass(frozen=True)
class GivenProcessor:
    """A tokenizer or image processor for a model that is named."""

    processor: Any


Given: TypeAlias = Examples | GivenModel | GivenProcessor
Place = tuple[str | int, ...]
"""Where in a recipe something stands: section, field, and so on to the name or the number within it."""


class Store:
    """What is kept in a run's folder of what was given; only the main process writes."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        whole = Path(os.path.abspath(folder.path))  # as the run itself says where it is; links stay links
        self.data, self.start = whole / "data", whole / "start"
        self._fresh = False
        self._new: list[Path] = []

    def keep(self, given: Mapping[Place, Given]) -> dict[Place, str]:
        """Write down what is not there yet; where everything is, for the recipe.

        Raises:
            RecipeError: the run's folder holds something else.
            FolderError: another run is at work in it.
            ExportError: no room, not writable, or a model that cannot be written as it is.
        """
        with self.folder.prepared() as self._fresh:
            return {place: path for name, one in given.items() for place, path in self._kept(name, one).items()}

    def _kept(self, place: Place, given: Given) -> dict[Place, str]:
        section, field = str(place[0]), str(place[1])
        if isinstance(given, GivenModel):
            return {(section, named): path for named, path in self._model(section, given).items()}
        if isinstance(given, GivenProcessor):
            return {place: self._processor(section, given.processor)}
        return {place: self._examples(field, given)}

    def undo(self) -> None:
        """After a run that was refused: only what a recipe of the folder names stays."""
        if not self._new and not self._fresh:
            return
        with suppress(FolderError), self.folder.held():  # else it is another run's by now
            self._drop(self._new)
            if self._fresh:
                self.folder.forget()

    def tidy(self) -> None:
        """After a run: what an older one was given is of no use to anybody."""
        self._drop([path for place in (self.data, self.start) if place.is_dir() for path in place.iterdir()
                    if _NAMED.fullmatch(path.name)])

    def _drop(self, paths: list[Path]) -> None:
        said = self.folder.recipe.read_text(encoding="utf-8") if self.folder.recipe.is_file() else ""
        for path in paths:
            if path.name not in said:
                shutil.rmtree(path, ignore_errors=True)
        for place in (self.data, self.start):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()

    def _place(self, parent: Path, role: str, content: str) -> Path:
        """Where this content lies, by whatever part it was given for, or will lie."""
        there = sorted(path for path in parent.glob(f"*-{content}") if _NAMED.fullmatch(path.name))
        return there[0] if there else parent / f"{role}-{content}"

    def _make_room(self, place: Path) -> None:
        if place.exists():
            say(f"{place}: is not what was written any more; written anew")
            shutil.rmtree(place)
        self._new.append(place)

    def _examples(self, role: str, given: Examples) -> str:
        content = of_examples(given)
        place = self._place(self.data, role, content)
        if _content_at(place) != content:
            self._make_room(place)
            splits = list(given.values()) if isinstance(given, DatasetDict) else [given]
            holds = "dataset_dict.json" if isinstance(given, DatasetDict) else "state.json"
            with replaced(place, needed=sum(map(_size, splits)), holds=holds) as new:
                _save(given, role, new)
        return str(place)

    def _model(self, role: str, given: GivenModel) -> dict[str, str]:
        """A model that is as in the folder that it was loaded from is named there; adapters become part of it."""
        given = replace(given, model=_whole(given.model))
        origin = Path(given.model.name_or_path)
        if given.model.name_or_path and is_saved_in(given.model, origin):
            processor = {} if given.processor is None else {"processor": self._processor(role, given.processor)}
            return {"model": str(origin.resolve()), **processor}
        place = self._place(self.start, role, of_given(given))
        if not is_saved_in(given.model, place):
            self._make_room(place)
            save_student(given.model, given.processor, place)
        return {"model": str(place)}

    def _processor(self, role: str, processor: Any) -> str:
        place = self._place(self.start, f"{role}processor", fingerprint(_processor_content(processor))[:DIGITS])
        if not place.exists():
            self._make_room(place)
            with replaced(place, needed=0, holds=place.name) as new:
                processor.save_pretrained(str(new))
        return str(place)


def _save(given: Examples, role: str, folder: Path) -> None:
    """With the files that pictures and sound name taken in."""
    try:
        given.save_to_disk(str(folder))
    except FileNotFoundError as error:
        raise DataError(f"data.{role}: names a file that is not there: {error.filename or error}") from error


def _whole(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its adapters merged into its weights, as `save_pretrained` knows it then."""
    whole = merged(model)
    if whole is not model:
        vars(whole)["_hf_peft_config_loaded"] = False
    assert isinstance(whole, PreTrainedModel)  # a copy of one
    return whole


def of_examples(given: Examples) -> str:
    """Digits of what the examples are, rows and kinds of columns."""
    splits = dict(given) if isinstance(given, DatasetDict) else {"": given}
    kinds = json.dumps({name: split.features.to_dict() for name, split in splits.items()}, sort_keys=True)
    # texts are texts, whoever made the table
    return fingerprint([data_fingerprint.of_splits(splits), kinds.replace('"large_string"', '"string"')])[:DIGITS]


def _content_at(place: Path) -> str | None:
    if not place.exists():
        return None
    try:
        return of_examples(datasets.load_from_disk(str(place)))
    except Exception:  # whatever a damaged file makes a reader raise
        return ""


def _size(split: Dataset) -> int:
    """Bytes of its rows, about: a selection is written without what it leaves out."""
    return int(split.data.nbytes * len(split) / max(1, split.data.num_rows))


def of_given(given: GivenModel) -> str:
    """Digits of all that a model's answers depend on, and of what its labels are called."""
    model = given.model
    said = model.config.to_dict()
    return fingerprint({
        "class": type(model).__name__, "weights": of_model(model), "generation": _own_generation(model),
        "labels": [said.get("id2label"), said.get("problem_type")], "processor": _processor_content(given.processor),
    })[:DIGITS]


def _processor_content(processor: Any | None) -> Any:
    if processor is None:
        return None
    special = [processor.special_tokens_map, processor.model_max_length, processor.padding_side, processor.truncation_side] \
        if isinstance(processor, PreTrainedTokenizerBase) else []
    return [type(processor).__name__, of_processor(processor), str(special)]


def _own_generation(model: PreTrainedModel) -> Any:
    return _generation(model.generation_config if model.can_generate() else None)


def _generation(config: GenerationConfig | None) -> Any:
    said = {} if config is None else config.to_diff_dict()
    return {name: value for name, value in said.items() if name != "transformers_version" and not name.startswith("_")}


def is_saved_in(model: PreTrainedModel, folder: Path) -> bool:
    """Whether a folder holds just this model: its class, config, way of writing, and every weight bit for bit."""
    if not (folder / "config.json").is_file():
        return False
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        written = (folder / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True) if written else None
    except Exception:  # of an own class, another version, or damaged: then it is not known to be the same
        return False
    if config.architectures != [type(model).__name__] or _settings(config) != _settings(model.config):
        return False
    return _own_generation(model) == _generation(generation) and _same_weights(model, folder)


def _settings(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _SAVING}


def _same_weights(model: nn.Module, folder: Path) -> bool:
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 - it is no mapping
                    if name not in state or not _equal(stored.get_tensor(name), state[name]):
                        return False
                    found.add(name)
        except Exception:  # safetensors has a class of its own for damaged files
            return False
    shared = {state[name].data_ptr() for name in found}  # of tied weights only one is written
    return bool(found) and all(name in found or value.data_ptr() in shared for name, value in state.items())


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other.detach().cpu())
