"""Folders of sentence-transformers: modules.json, 1_Pooling, 2_Dense, 2_Normalize, prompts and the longest text; read and
written in the form that old and new versions of it load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import cached_file

from stilla.errors import CompatibilityError, all_of, one_of
from stilla.signals import Pooling
from stilla.tasks.retrieval.model import Activation, Layer, Shape

MODULES, SETTINGS, LENGTH = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
_POOLING: Mapping[Pooling, tuple[str, str]] = {
    "mean": ("mean", "pooling_mode_mean_tokens"), "first": ("cls", "pooling_mode_cls_token"),
    "max": ("max", "pooling_mode_max_tokens"), "last": ("lasttoken", "pooling_mode_lasttoken")}
"""By our name what new and old versions call it."""
_ACTIVATIONS: Mapping[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity", "torch.nn.modules.activation.Tanh": "tanh"}
_FORMAT = {"sentence_transformers": "3.0.0"}
"""From which version on what is written here is read."""


@dataclass(frozen=True)
class Layout:
    """What a folder says beside its encoder. `shape`: None where it says nothing (a plain Hugging Face folder).

    dense: places of the layers' weights. prompts: by name, `default` that of texts of no kind. length: of the longest text,
    in tokens. lower: whether texts are made lower case first.
    """

    shape: Shape | None = None
    dense: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    length: int | None = None
    lower: bool = False


def read_layout(name: str, **where: Any) -> Layout:
    """What a folder, or a model of the hub, says. `where`: as `from_pretrained` takes it.

    Raises:
        CompatibilityError: modules or settings that would give other vectors than sentence-transformers does.
    """
    where = {key: value for key, value in where.items() if key in ("revision", "local_files_only")}
    settings, lengths = (_json(name, file, where) or {} for file in (SETTINGS, LENGTH))
    shape, dense = _modules(name, where)
    if shape is not None:
        shape = replace(shape, similarity=_similarity(name, settings))
    return Layout(shape, dense, dict(settings.get("prompts") or {}), settings.get("default_prompt_name"),
                  lengths.get("max_seq_length"), bool(lengths.get("do_lower_case")))


def _similarity(name: str, settings: Mapping[str, Any]) -> Any:
    said = settings.get("similarity_fn_name") or "cosine"
    if said not in ("cosine", "dot"):
        raise CompatibilityError(f"{name!r} compares its vectors by {said}; expected cosine or dot")
    return said


def first_module(name: str, **where: Any) -> str | None:
    """What kind its first module is; None of a plain folder."""
    return next(iter(modules_of(name, **where)), None)


def modules_of(name: str, **where: Any) -> list[str]:
    """What kinds its modules are; none of a plain folder."""
    return [str(one.get("type", "")).rpartition(".")[2] for one in _json(name, MODULES, where) or ()]


def read_static(name: str, **where: Any) -> Layout:
    """What the folder of a static model says; `dense` is the place of its table.

    Raises:
        CompatibilityError: other modules follow, or there are no weights.
    """
    modules, settings = _json(name, MODULES, where), _json(name, SETTINGS, where) or {}
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
    place = str(modules[0].get("path") or "")
    file = _file(name, f"{place}/model.safetensors".removeprefix("/"), where)
    if kinds not in (["StaticEmbedding"], ["StaticEmbedding", "Normalize"]) or place or file is None:
        raise CompatibilityError(f"{name!r}: modules.json lists {all_of(kinds)}; expected StaticEmbedding in the "
                                 f"folder itself, as "
                                 "model.safetensors, and Normalize or not")
    shape = Shape("mean", kinds[-1] == "Normalize", _similarity(name, settings))
    return Layout(shape, (file,), dict(settings.get("prompts") or {}), settings.get("default_prompt_name"))


def write_static(folder: Path, shape: Shape) -> None:
    """All that sentence-transformers reads beside a table, its tokenizer and its prompts."""
    modules = [("", "StaticEmbedding"), *([("1_Normalize", "Normalize")] if shape.normalised else [])]
    _write(folder / MODULES, [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)])
    if shape.normalised:
        (folder / "1_Normalize").mkdir(exist_ok=True)
    _note(folder, similarity_fn_name=shape.similarity)


def layer_weights(folder: Path, layers: Sequence[Layer]) -> list[dict[str, Tensor]]:
    """Of the layers after the pooling, in a folder that was written here."""
    return [load_file(folder / f"{2 + place}_Dense" / "model.safetensors") for place in range(len(layers))]


def weights_at(name: str, places: Sequence[str], **where: Any) -> list[dict[str, Tensor]]:
    """The same of any folder, or of the hub.

    Raises:
        CompatibilityError: they are not there as safetensors.
    """
    found = []
    for place in places:
        file = _file(name, f"{place}/model.safetensors", where)
        if file is None:
            raise CompatibilityError(f"{name!r}: the weights of its {place} are not there as model.safetensors. A pickle can "
                                     "run code when it is read: load it with sentence-transformers once, if you trust it, "
                                     "and save it again")
        found.append(load_file(file))
    return found


def write_modules(
    folder: Path, shape: Shape, hidden: int, layers: Sequence[tuple[Layer, Mapping[str, Tensor]]]
) -> None:
    """All that sentence-transformers reads beside the encoder, its tokenizer and its prompts."""
    for old in folder.glob("[0-9]_*"):
        shutil.rmtree(old)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"),
               *((f"{2 + place}_Dense", "Dense") for place in range(len(layers))),
               *([(f"{2 + len(layers)}_Normalize", "Normalize")] if shape.normalised else [])]
    _write(folder / MODULES, [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)])
    chosen = _POOLING[shape.pooling][1]
    _write(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": hidden, **{key: key == chosen for _, key in _POOLING.values()},
        "pooling_mode_mean_sqrt_len_tokens": False, "pooling_mode_weightedmean_tokens": False, "include_prompt": True})
    for place, (layer, weights) in enumerate(layers):
        path = folder / f"{2 + place}_Dense"
        activation = next(name for name, known in _ACTIVATIONS.items() if known == layer.activation)
        _write(path / "config.json", {"in_features": layer.narrow, "out_features": layer.wide, "bias": layer.bias,
                                      "activation_function": activation})
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path / "model.safetensors",
                  metadata={"format": "pt"})
    if shape.normalised:
        (folder / modules[-1][0]).mkdir(exist_ok=True)
    _note(folder, similarity_fn_name=shape.similarity)


def write_reading(folder: Path, prompts: Mapping[str, str], default: str | None, length: int | None, *, lower: bool) -> None:
    """How texts are read: prompts, the longest, and whether they are made lower case."""
    _note(folder, prompts=dict(prompts), default_prompt_name=default)
    _write(folder / LENGTH, {"max_seq_length": length, "do_lower_case": lower})


def _note(folder: Path, **said: Any) -> None:
    """Into the settings, beside what stands there."""
    path = folder / SETTINGS
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"__version__": _FORMAT}
    _write(path, {**before, **said})


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _modules(name: str, where: Mapping[str, Any]) -> tuple[Shape | None, tuple[str, ...]]:
    modules = _json(name, MODULES, where)
    if modules is None:
        return None, ()
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
    dense = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in dense):
        raise CompatibilityError(f"{name!r}: modules.json lists {all_of(kinds)}; expected Transformer, Pooling, any number "
                                 "of Dense, and Normalize or not")
    if modules[0].get("path"):
        raise CompatibilityError(f"{name!r}: its encoder lies in {modules[0]['path']!r}; expected it in the folder itself. "
                                 "Load it with sentence-transformers once and save it again")
    places = tuple(str(one["path"]) for one in modules[2 : 2 + len(dense)])
    layers = tuple(_layer(name, place, where) for place in places)
    pooling = _pooling(name, str(modules[1]["path"]), where)
    return Shape(pooling, kinds[-1] == "Normalize", layers=layers), places


def _pooling(name: str, place: str, where: Mapping[str, Any]) -> Pooling:
    said = _json(name, f"{place}/config.json", where) or {}
    if not said.get("include_prompt", True):
        raise CompatibilityError(f"{name!r}: its vectors leave the prompt's tokens out (include_prompt: false), which is not "
                                 "done here; take another model")
    modes = said.get("pooling_mode")
    wanted = {modes} if isinstance(modes, str) else set(modes or ())
    wanted |= {key for key, on in said.items() if key.startswith("pooling_mode_") and on is True}
    found: list[Pooling] = [ours for ours, names in _POOLING.items() if wanted & set(names)]
    if len(wanted) != 1 or not found:
        raise CompatibilityError(f"{name!r}: pooled by {one_of(sorted(wanted)) or 'nothing'}; expected one of "
                                 f"{one_of([new for new, _ in _POOLING.values()])}")
    return found[0]


def _layer(name: str, place: str, where: Mapping[str, Any]) -> Layer:
    said = _json(name, f"{place}/config.json", where) or {}
    activation = said.get("activation_function", "torch.nn.modules.activation.Tanh")
    strange = [key for key in ("use_residual",) if said.get(key)]
    strange += [key for key in ("module_input_name", "module_output_name")
                if said.get(key) not in (None, "sentence_embedding")]
    if activation not in _ACTIVATIONS or strange:
        raise CompatibilityError(f"{name!r}: its {place} has {strange[0] if strange else activation}; expected a layer with "
                                 f"{one_of(list(_ACTIVATIONS))}")
    return Layer(int(said["in_features"]), int(said["out_features"]), bool(said.get("bias", True)), _ACTIVATIONS[activation])


def _json(name: str, file: str, where: Mapping[str, Any]) -> Any:
    """None where there is no such file."""
    path = _file(name, file, where)
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CompatibilityError(f"{name!r}: {file} is no JSON: {error}") from error


def _file(name: str, file: str, where: Mapping[str, Any]) -> str | None:
    path: str | None = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False, **where)
    return path


Kind = Literal["query", "document"]
"""What a text is where the two are told apart."""
