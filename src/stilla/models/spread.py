"""Models whose weights are spread over processes, a part in each: by FSDP2 or by DeepSpeed (ZeRO-3).

Such weights are whole only within the forward of the module that owns them; read anywhere else they are a part, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def is_spread(model: nn.Module) -> bool:
    """Whether its weights are, or are only together for the moment."""
    return any(isinstance(one, FSDPModule) for one in model.modules()) or any(
        isinstance(one, DTensor) or _of_deepspeed(one) for one in model.parameters())


def local_parts(model: nn.Module) -> Iterator[Tensor]:
    """What this process holds of every parameter; all of it where nothing is spread."""
    for one in model.parameters():
        if isinstance(one, DTensor):
            yield one.to_local().detach()
        elif _of_deepspeed(one):
            yield vars(one)["ds_tensor"].detach()
        else:
            yield one.detach()


def whole_shape(weight: Tensor) -> tuple[int, ...]:
    """Of all parts together."""
    return tuple(vars(weight)["ds_shape"] if _of_deepspeed(weight) else weight.shape)


def gathered(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """The state dict with whole weights on the CPU, gathered one after the other; tied ones are one tensor.

    All processes have to call; those that do not `keep` get an empty one.
    """
    whole: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            with _together(value) as one:
                seen[id(value)] = one.detach().cpu().clone() if keep else one.detach()[:0]
        if keep:
            whole[name] = seen[id(value)]
    return whole


@contextmanager
def _together(value: Tensor) -> Iterator[Tensor]:
    if isinstance(value, DTensor):
        yield value.full_tensor()
    elif _of_deepspeed(value):
        import deepspeed

        with deepspeed.zero.GatheredParameters([value]):
            yield value
    else:
        yield value


def _of_deepspeed(parameter: Tensor) -> bool:
    return "ds_tensor" in vars(parameter)
