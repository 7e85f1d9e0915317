"""One encoder with several heads: each head is the class that transformers has for its task, around the same encoder.

A head with the encoder is a plain model of that class: `alone` gives it, and `save_pretrained` writes one folder a head
beside the whole.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from stilla.errors import CompatibilityError, all_of

MODEL_TYPE = "stilla-several"
HEADS = "heads"
"""The module that holds them."""
LABELS = ("id2label", "label2id", "problem_type", "sentence_transformers", "tagging", "thresholds")
"""Fields of a config that are of a head: names of its labels, how its logits are meant, how words are read, and from where on
labels apply."""


class SeveralConfig(PreTrainedConfig):
    """`encoder`: as its own class has it. `heads`: by name the class of each with the encoder, and its labels."""

    model_type = MODEL_TYPE
    sub_configs: ClassVar[dict[str, Any]] = {"encoder": AutoConfig}

    def __init__(
        self, encoder: PreTrainedConfig | Mapping[str, Any] | None = None, heads: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        if encoder is None:
            encoder = {"model_type": "bert"}  # transformers makes one without anything, to see what differs from it
        if isinstance(encoder, Mapping):
            encoder = CONFIG_MAPPING[encoder["model_type"]](**encoder)
        self.encoder = encoder
        self.heads = {name: dict(head) for name, head in (heads or {}).items()}
        super().__init__(**others)

    @classmethod
    def of(cls, models: Mapping[str, PreTrainedModel], encoder: PreTrainedConfig) -> SeveralConfig:
        """What these models' heads would be on an encoder."""
        heads = {name: {"architecture": type(model).__name__, "labels": labels_of(model.config)}
                 for name, model in models.items()}
        return cls(encoder=_bare(encoder), heads=heads)

    def of_head(self, name: str) -> PreTrainedConfig:
        """The config of one head's class, with the encoder's fields."""
        config = copy.deepcopy(self.encoder)
        for field, value in self.heads[name]["labels"].items():
            setattr(config, field, {int(index): label for index, label in value.items()} if field == "id2label" else value)
        return config


class SeveralModel(PreTrainedModel):
    """Inputs are named `head/input`: `intents/input_ids`. Only heads that are given inputs answer; inputs without a head's
    name are read by all.

    Raises:
        CompatibilityError: the class of a head is not one of transformers'.
    """

    config_class = SeveralConfig
    base_model_prefix = ""
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: SeveralConfig) -> None:
        super().__init__(config)
        built = {name: _built(_class(head["architecture"]), config.of_head(name)) for name, head in config.heads.items()}
        bodies = [body_of(model) for model in built.values()]
        _refuse_unlike(built, bodies)
        # one without a pooler would lack what another head reads
        self.encoder = max(bodies, key=lambda body: sum(1 for _ in body.parameters()))
        for model in built.values():
            _around(model, self.encoder)
        # a name of its own: a ModuleDict has methods, and heads any name
        self.heads = nn.ModuleDict({_key(name): model for name, model in built.items()})
        self.post_init()

    @classmethod
    def sharing(cls, models: Mapping[str, PreTrainedModel], encoder: PreTrainedModel) -> SeveralModel:
        """A copy of an encoder with a copy of every model's head: where it does not fit the encoder, a new one (seeded by the
        caller)."""
        config = SeveralConfig.of(models, encoder.config)
        whole = cls(config)
        whole.to(next(encoder.parameters()).device)
        _filled(whole.encoder, encoder.state_dict())
        for name, model in models.items():
            head, body = whole.heads[_key(name)], f"{model.base_model_prefix}."
            own = {key: value for key, value in model.state_dict().items() if not key.startswith(body)}
            theirs = head.state_dict()
            if own.keys() == theirs.keys() and all(own[key].shape == theirs[key].shape for key in own):
                _filled(head, own)
        whole.eval()
        return whole

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, *,
        output_hidden_states: bool = False, **inputs: Tensor,
    ) -> dict[str, Any]:
        """`parts`: by name what each head says. `logits`: all of theirs in a row. `hidden_states`: the encoder's, for the
        first that answers, where they are asked for."""
        asked = by_part(inputs)
        if input_ids is not None:
            asked = {name: {"input_ids": input_ids, "attention_mask": attention_mask} for name in self.config.heads}
        more = {"output_hidden_states": True} if output_hidden_states else {}
        said = {name: self.heads[_key(name)](**own, **more) for name, own in asked.items()}
        states = {"hidden_states": next(iter(said.values()))["hidden_states"]} if output_hidden_states else {}
        return {"logits": torch.cat([one["logits"].flatten() for one in said.values()]), "parts": said, **states}

    def head(self, name: str) -> PreTrainedModel:
        """One head with the encoder, within this model: its forward and its config."""
        found: PreTrainedModel = self.heads[_key(name)]
        return found

    def alone(self, name: str) -> PreTrainedModel:
        """One head with the encoder as a model of its own, which shares its tensors with this one."""
        head = self.head(name)
        with torch.device("meta"):
            model = type(head)._from_config(copy.deepcopy(head.config))
        body = f"{model.base_model_prefix}."
        tensors = {**{f"{body}{key}": value for key, value in _named(self.encoder).items()}, **_named(head)}
        for key in _named(model):
            owner, _, attribute = key.rpartition(".")
            setattr(model.get_submodule(owner), attribute, tensors[key])
        return model.eval()

    def remember_heads(self) -> None:
        """Take what heads have in their configs into that of the whole, with which it is saved."""
        for name in self.config.heads:
            self.config.heads[name]["labels"] = labels_of(self.head(name).config)

    def get_input_embeddings(self) -> nn.Module:
        found: nn.Module = self.encoder.get_input_embeddings()
        return found

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def save_pretrained(self, save_directory: Any, *args: Any, **options: Any) -> None:
        """The whole, and in a folder of its name every head with the encoder: what `from_pretrained` and `pipeline` load."""
        super().save_pretrained(save_directory, *args, **options)
        if options.get("is_main_process", True) and options.get("state_dict") is None:
            for name in self.config.heads:
                self.alone(name).save_pretrained(Path(save_directory) / name)


class Teachers(nn.Module):
    """Models of several tasks side by side: a teacher for each. Inputs and outputs as of `SeveralModel`."""

    def __init__(self, models: Mapping[str, nn.Module], encoder: PreTrainedConfig | None) -> None:
        """`encoder`: of what a student is cut from, where its width says how it is trained."""
        super().__init__()
        self.models = nn.ModuleDict({_key(name): model for name, model in models.items()})
        self.config = encoder

    def forward(self, **inputs: Tensor) -> dict[str, Any]:
        said = {name: self.models[_key(name)](**own) for name, own in by_part(inputs).items()}
        return {"logits": torch.cat([one["logits"].flatten() for one in said.values()]), "parts": said}

    def head(self, name: str) -> nn.Module:
        return self.models[_key(name)]


Several = SeveralModel | Teachers
"""What answers for several tasks."""


def by_part(inputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Inputs named `part/input`, by part."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in inputs.items():
        name, _, own = key.partition("/")
        found.setdefault(name, {})[own] = value
    return found


def labels_of(config: Any) -> dict[str, Any]:
    said = vars(config)
    return {field: said[field] for field in LABELS if said.get(field) is not None}


def is_several(folder: str) -> bool:
    """Whether a model of several heads lies there."""
    path = Path(folder).expanduser() / "config.json"
    if not path.is_file():
        return False
    config, _ = PreTrainedConfig.get_config_dict(str(path.parent))
    return bool(config.get("model_type") == MODEL_TYPE)


def body_of(model: PreTrainedModel) -> PreTrainedModel:
    """A model without its head.

    Raises:
        CompatibilityError: its class does not say which part that is.
    """
    body = model.base_model
    if body is model or not isinstance(body, PreTrainedModel):
        raise CompatibilityError(f"{type(model).__name__} is no encoder with a head on it, so several heads cannot share it")
    return body


def _refuse_unlike(built: Mapping[str, PreTrainedModel], bodies: Sequence[PreTrainedModel]) -> None:
    """T5 has a decoder too where texts are classified, and none where words are.

    Raises:
        CompatibilityError: heads are around encoders of several classes.
    """
    if len({type(body) for body in bodies}) > 1:
        said = [f"{name} as {type(model).__name__} around {type(body).__name__}"
                for (name, model), body in zip(built.items(), bodies)]
        raise CompatibilityError(f"transformers has {all_of(said)}, which are not one encoder that heads could share. Let "
                                 "the student begin as another model, or distil each task by itself")


def _around(model: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Have a model use an encoder that is not its own: as an attribute, so that its weights are counted and saved once."""
    prefix = model.base_model_prefix
    del model._modules[prefix]
    object.__setattr__(model, prefix, encoder)


def _built(kind: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """A head with an encoder. Where nobody names an implementation of attention, `from_pretrained` gives the whole model's to
    its parts, which not every class has (DeBERTa)."""
    if config._attn_implementation == "sdpa" and not kind._supports_sdpa:
        config._attn_implementation = "eager"
    made: PreTrainedModel = kind(config)
    return made


def _class(name: str) -> type[PreTrainedModel]:
    found = vars(transformers).get(name) or getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise CompatibilityError(f"a head is of the class {name!r}, which transformers does not have")
    return found


def _bare(config: PreTrainedConfig) -> PreTrainedConfig:
    """Without what is of a head."""
    plain = type(config)()
    bare = copy.deepcopy(config)
    for field in ("id2label", "label2id", "problem_type"):
        setattr(bare, field, getattr(plain, field))
    bare.architectures = None
    return bare


def _key(name: str) -> str:
    return f"{name}_head"


def _named(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def _filled(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """With these values, in float32. A pooler that nobody gives stays new; one that nobody reads is left out."""
    there = module.state_dict()
    wanted = {key: value.float() if value.is_floating_point() else value for key, value in state.items()
              if key in there or "pooler" not in key}
    missing, unexpected = module.load_state_dict(wanted, strict=False)
    if unexpected or any("pooler" not in key for key in missing):
        raise CompatibilityError(f"{type(module).__name__} has other weights than the model that it is made of: "
                                 f"{[*unexpected, *missing][:4]}")
