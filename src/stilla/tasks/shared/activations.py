"""What a cross-encoder's scores are of its logits: sentence-transformers says it in a config, or in a file beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from stilla.errors import CompatibilityError
from stilla.tasks.shared.labels import Activation

PLACES = ("sentence_transformers", "sbert_ce_default_activation_function")
"""Fields of a config that say it, newer and older."""
FILE = "config_sentence_transformers.json"
"""Where sentence-transformers says it from version 6 on."""

_HEAD = "ForSequenceClassification"


def read_beside(config: Any, place: str, **where: Any) -> None:
    """Write into a classifier's config what the file beside it says of the activation, as older versions have it there.

    place: a folder or a hub name. where: what `from_pretrained` takes beside it (`revision`, ...).
    """
    heads = config.architectures or ()
    if not place or not vars(config).keys().isdisjoint(PLACES) or not any(name.endswith(_HEAD) for name in heads):
        return
    where.pop("trust_remote_code", None)
    quietly = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors", "gated_repo")}
    try:
        found = cached_file(place, FILE, **quietly, **where)
    except OSError:  # a folder that is no more: the model was read there before
        found = None
    said = {} if found is None else json.loads(Path(found).read_text(encoding="utf-8"))
    if "activation_fn" in said:
        config.sentence_transformers = {"activation_fn": said["activation_fn"]}


def activation_of(config: Any, source: str) -> Activation:
    """What a cross-encoder of sentence-transformers says that its scores are of its logits.

    Raises:
        CompatibilityError: another function than those known here.
    """
    said = vars(config)
    newer, older = (said.get(name) for name in PLACES)
    named = (newer or {}).get("activation_fn") or older
    name = str(named or "Identity").rpartition(".")[2]
    one = len(config.id2label) == 1
    if name == "Identity" or (name == "Softmax" and not one) or (
            name == "Sigmoid" and config.problem_type == "multi_label_classification"):
        return "none"  # what is done with the logits of these anyway
    if name == "Sigmoid" and one:
        return "sigmoid"
    raise CompatibilityError(f"{source}: its config says that its scores are {named} of its {len(config.id2label)} logits, "
                             f"which "
                             "would be compared without; expected Sigmoid of one logit, Softmax of several, or Identity. Set "
                             "`sentence_transformers: {activation_fn: torch.nn.modules.linear.Identity}` in its "
                             "config.json if "
                             "the bare logits are meant.")


def write_activation(config: Any, activation: Activation) -> None:
    """Say it of one score as sentence-transformers reads it: it takes the sigmoid where a config says nothing."""
    name = "activation.Sigmoid" if activation == "sigmoid" else "linear.Identity"
    config.sentence_transformers = {"activation_fn": f"torch.nn.modules.{name}"}
