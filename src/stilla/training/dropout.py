"""Another dropout than the model's own while it is trained.

A student that drops a tenth of its states answers another question than a teacher that drops nothing, and part of what
it is corrected for is that noise (Beyer et al. 2022, arXiv:2106.05237: a good teacher is consistent). What it was worth
where it was measured stands in docs/defaults.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.dropout import _DropoutNd


@contextmanager
def dropping(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Inside, every dropout of the model has this probability; None leaves it its own. Afterwards all is as before.

    Adapters keep theirs, which the recipe names apart (`student.lora.dropout`): it holds back few new weights, and takes
    nothing from the states that the model passes on.

    Layers hold it as a module, or as a number in an attribute whose name ends in `dropout` (BART's `dropout`,
    Llama's `attention_dropout`). LayerDrop and stochastic depth, which leave out whole layers, are not meant. The
    model's config is not touched: what is saved can be fine-tuned as before.
    """
    before = [] if probability is None else list(_places(model))
    for module, name, _ in before:
        setattr(module, name, probability)
    try:
        yield
    finally:
        for module, name, own in before:
            setattr(module, name, own)


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    for path, module in model.named_modules():
        if "lora_dropout" in path.split("."):
            continue
        if isinstance(module, _DropoutNd):
            yield module, "p", module.p
        for name, value in vars(module).items():
            if name.endswith("dropout") and isinstance(value, float):
                yield module, name, value
