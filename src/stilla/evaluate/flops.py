"""How large a model is and how much it computes, without timing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from stilla.errors import StillaError
from stilla.evaluate.asking import Inputs, evaluating
from stilla.models.entry import table_of


def count_parameters(model: nn.Module) -> int:
    """Numbers that were learnt, in however many bits they are kept; a tied weight counts once."""
    # bitsandbytes packs two weights of 4 bits into a byte; weights of 8 bits are buffers, since nobody trains them
    learnt = sum(one.numel() * (2 if one.dtype == torch.uint8 else 1) for one in model.parameters())
    return learnt + sum(one.numel() for one in model.buffers() if one.dtype == torch.int8)


def count_tokens(model: nn.Module) -> int | None:
    """For how many tokens a model has an embedding; None where it reads none."""
    table = table_of(model)
    return None if table is None else table.num_embeddings


def stored_bytes(model: nn.Module) -> int:
    """Bytes of the weights as a file holds them: parameters and persistent buffers, shared ones once."""
    tensors = [value for value in model.state_dict(keep_vars=True).values() if isinstance(value, Tensor)]
    return sum(one.numel() * one.element_size() for one in {id(one): one for one in tensors}.values())


def count_flops(model: nn.Module, inputs: Inputs) -> float:
    """FLOPs of one forward: two per multiply-add of every matrix product, convolution and attention.

    Counted on a real forward, so loops and branches of the model are as they run.

    Raises:
        StillaError: the model runs operations that cannot be counted.
    """
    device = next(iter(inputs.values())).device
    counter = Counter()
    try:
        with evaluating(model, device, "float32") as run, _no_fast_path(), counter:
            run(inputs)
    except Exception as error:  # whatever a model's own operations raise under the counter
        raise StillaError(f"FLOPs cannot be counted ({type(error).__name__}: {error})") from error
    if not counter.total:
        raise StillaError("FLOPs cannot be counted (the model runs no operation that the counter knows)")
    return float(counter.total)


def flops_of(run: Callable[[], object], counter: Counter | None = None) -> float | None:
    """FLOPs of whatever is called; None where it runs operations that cannot be counted, or none that can. `counter`: what
    counts, for who is called and asks how far it is."""
    counter = counter or Counter()
    before = counter.total
    try:
        with _no_fast_path(), counter:
            run()
    except Exception:  # whatever a model's own operations raise under the counter
        return None
    return float(counter.total - before) or None


class Counter(TorchDispatchMode):
    """What torch's `FlopCounterMode` counts in all, by its own formulas, and in half of its time: that keeps by module what
    it counts, for which it follows every module and every tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._formulas = _formulas()
        self._whole = set[Any]()

    def __torch_dispatch__(  # torch's own signature
        self, operation: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if operation not in self._whole:  # without gradients some arrive that are made of others
            with self:
                made = operation.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
            self._whole.add(operation)
        made = operation(*args, **kwargs)
        formula = self._formulas.get(operation.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=made)
        return made


@cache
def _formulas() -> Mapping[Any, Callable[..., int]]:
    found: Mapping[Any, Callable[..., int]] = FlopCounterMode(display=False, custom_mapping={
        _CPU_ATTENTION: _cpu_attention_flops, _CPU_ATTENTION_BACK: _cpu_attention_back_flops}).flop_registry
    return found


# torch's counter knows attention on GPUs only: on the CPU it silently counts 0 for the products of q, k and v
_CPU_ATTENTION: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _cpu_attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *args: object, **kwargs: object,
) -> int:
    """q·kᵀ and its product with v; shapes (batch, heads, positions, width)."""
    batch, heads, queries, width = query
    keys, value_width = key[-2], value[-1]
    return 2 * batch * heads * queries * keys * (width + value_width)


_CPU_ATTENTION_BACK: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _cpu_attention_back_flops(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *args: object, **kwargs: object,
) -> int:
    """q·kᵀ once more, as it is not kept, and the gradients of weights, v, q and k, a product each."""
    batch, heads, queries, width = query
    keys, value_width = key[-2], value[-1]
    return 2 * batch * heads * queries * keys * (3 * width + 2 * value_width)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """`nn.TransformerEncoder` in eval mode runs as one fused operation, which the counter takes for none."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
