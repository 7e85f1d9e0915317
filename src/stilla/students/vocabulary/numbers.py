"""Numbers of tokens in the configs of a model: by what names they go, and what becomes of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.configs import ConfigPath
from stilla.models.entry import table_of
from stilla.students.vocabulary.refusal import refusal

_ENDS = ("_token_id", "_token_ids", "_token_index")
_NAMED = ("forced_decoder_ids", "lang_to_id", "task_to_id")
"""Further fields with numbers that have to be kept; those of positions stand in pairs before them."""
_HELD_BACK = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")
"""Fields about tokens that are written less, or more, often: those of tokens that are gone go with them."""


def named_in_configs(model: PreTrainedModel) -> set[int]:
    """Numbers of tokens that the model's configs name, for which there have to be tokens."""
    return {number for plain in _configs(model) for _, name, value in _fields(plain) if not _is_held_back(name)
            for number in _numbers(name, value)}


def refuse_unknown(model: PreTrainedModel) -> None:
    """Before any tokens are counted.

    Raises:
        CompatibilityError: the model's configs name a token that it has no row for (GPT2Config has 50256 for the end of
            a text by itself).
    """
    table = table_of(model)
    if table is None:
        return
    for plain in _configs(model):
        for path, name, value in _fields(plain):
            lost = [] if _is_held_back(name) else [one for one in _numbers(name, value) if one >= table.num_embeddings]
            if lost:
                raise _unknown((*path, name), lost[0])


def renumbered(config: PreTrainedConfig, order: Mapping[int, int]) -> dict[ConfigPath, object]:
    """What changes in a config, by path."""
    return {(*path, name): _changed(name, value, order, path) for path, name, value in _fields(config.to_dict())}


def renumbered_generation(config: GenerationConfig, order: Mapping[int, int]) -> GenerationConfig:
    """How texts are written, in the new numbers."""
    made = copy.deepcopy(config)
    for path, name, value in _fields(config.to_dict()):
        if not path:
            setattr(made, name, _changed(name, value, order, path))
    return made


def _configs(model: PreTrainedModel) -> list[dict[str, Any]]:
    writes = model.can_generate() and isinstance(model.generation_config, GenerationConfig)
    return [model.config.to_dict(), *([model.generation_config.to_dict()] if writes else [])]


def _fields(plain: Mapping[str, Any], path: ConfigPath = ()) -> Iterator[tuple[ConfigPath, str, Any]]:
    """Every field that holds numbers of tokens: (path, name, value), also of configs and settings within."""
    for name, value in plain.items():
        if value is None or not isinstance(name, str):  # labels are by number
            continue
        if name in (*_NAMED, *_HELD_BACK) or name.endswith(_ENDS):
            yield path, name, value
        elif isinstance(value, Mapping):
            yield from _fields(value, (*path, name))


def _is_held_back(name: str) -> bool:
    return name in _HELD_BACK


def _numbers(name: str, value: Any) -> Iterator[int]:
    """The numbers of tokens in a value; negative ones stand for none."""
    if name == "forced_decoder_ids":
        yield from (number for _, number in value if number is not None)
    elif isinstance(value, Mapping):
        yield from (number for one in value.values() for number in _numbers("", one))
    elif isinstance(value, list | tuple):
        yield from (number for one in value for number in _numbers("", one))
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        yield value


def _changed(name: str, value: Any, order: Mapping[int, int], path: ConfigPath) -> Any:
    if name == "forced_decoder_ids":
        return [[place, None if number is None else order[number]] for place, number in value]
    if name == "sequence_bias":
        pairs = value.items() if isinstance(value, Mapping) else value
        return [[[order[one] for one in tokens], bias] for tokens, bias in pairs if all(one in order for one in tokens)]
    if name in _HELD_BACK:
        kept = [one for one in value if all(number in order for number in _numbers("", one))]
        return _mapped(kept, order) or None
    lost = [number for number in _numbers(name, value) if number not in order]
    if lost:
        raise _unknown((*path, name), lost[0])
    return _mapped(value, order)


def _unknown(path: ConfigPath, number: int) -> CompatibilityError:
    return refusal(f"{'.'.join(path)} of the model's config is {number}, and its tokenizer has no such token; correct its "
                   "config.json")


def _mapped(value: Any, order: Mapping[int, int]) -> Any:
    if isinstance(value, Mapping):
        return {key: _mapped(one, order) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(one, order) for one in value]
    return order[value] if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else value
