"""What else in a config must follow when a stack of layers gets another depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from stilla.errors import CompatibilityError
from stilla.models.configs import ConfigPath, config_value
from stilla.models.stacks import LayerStack

# Per path of a stack: which teacher layer (from 0, within that path) each student layer is copied from.
Kept = tuple[tuple[int, ...], ...]
Changes = dict[ConfigPath, object]


def keeping(config: PreTrainedConfig, stack: LayerStack, kept: Kept) -> Changes:
    """The changes that leave only the layers `kept` of a stack: the depth, and what is said layer by layer.

    Raises:
        CompatibilityError: the model hands out the output of a layer (a backbone's `out_indices`) that is not
            kept.
    """
    counts = [len(indices) for indices in kept]
    if stack.staged:
        return {stack.config_path: counts}
    changes: Changes = {stack.config_path: counts[0]}
    for path in (stack.config_path, *stack.per_layer):
        entries = config_value(config, path)
        if isinstance(entries, list | tuple):
            changes[path] = [entries[index] for index in kept[0]]
    section, values = _section(config, stack)
    if values.get("per_layer_config"):
        overrides = {int(index): override for index, override in values["per_layer_config"].items()}
        changes[*section, "per_layer_config"] = {
            position: overrides[index] for position, index in enumerate(kept[0]) if index in overrides
        }
    if values.get("out_indices") is not None:
        changes[*section, "out_features"] = None  # follow from the indices
        changes[*section, "out_indices"] = _outputs(values["out_indices"], stack, kept[0])
    if values.get("backbone_out_indices") is not None:  # DPT's, which count layers and not what lies between them
        between = [output + 1 for output in values["backbone_out_indices"]]
        changes[*section, "backbone_out_indices"] = [one - 1 for one in _outputs(between, stack, kept[0])]
    return changes


def of_depth(config: PreTrainedConfig, stack: LayerStack, depth: int) -> Changes:
    """What follows when a stack of random layers gets `depth` of them: patterns are shortened or repeated."""
    changes: Changes = {}
    for path in stack.per_layer:
        entries = config_value(config, path)
        changes[path] = [entries[layer % len(entries)] for layer in range(depth)]
    section, values = _section(config, stack)
    if values.get("out_indices") in ([stack.depth], [-1]):
        changes[*section, "out_features"] = None
        changes[*section, "out_indices"] = [depth]
    return changes


def _section(config: PreTrainedConfig, stack: LayerStack) -> tuple[ConfigPath, dict[str, Any]]:
    section = stack.config_path[:-1]
    return section, config_value(config, section).to_dict()


def _outputs(outputs: Sequence[int], stack: LayerStack, kept: Sequence[int]) -> list[int]:
    """Output i is what leaves layer i - 1, 0 what enters the first; the last stays the last."""
    places = {
        0: 0,
        **{index + 1: position + 1 for position, index in enumerate(kept)},
        stack.depth: len(kept),
    }
    wanted = [output % (stack.depth + 1) for output in outputs]
    for output in wanted:
        if output not in places:
            raise CompatibilityError(
                f"stack `{stack.name}`: the model reads what leaves layer {output - 1} (of layers "
                f"{[one - 1 for one in wanted]}, its config's `out_indices`), which is not kept; got {list(kept)}. Keep it "
                "too."
            )
    return [places[output] for output in wanted]
