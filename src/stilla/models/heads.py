"""The head of a language model: how it turns hidden states into logits, and a forward that stops before that product.

What a family does to the product (T5's and Granite's scale, Gemma's softcap, BART's bias) is measured on the model, not
known from its name; what is found is compared with the model's own logits, and a model that does anything else is
refused. The head's forward is replaced, not its result: whatever a library hangs on that module (FSDP, ZeRO, adapters)
runs as before, and gathers its weights as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.features import made_up_inputs
from stilla.models.modes import in_eval_mode
from stilla.models.spread import is_spread, whole_shape
from stilla.signals import Head, Headed

_KNOWN: WeakKeyDictionary[nn.Module, ModelHead] = WeakKeyDictionary()


@dataclass(frozen=True)
class After:
    """What a model does to its head's product y: softcap · tanh((scale · y + added) / softcap).

    `added`: a buffer of the model, looked up anew whenever it is used (loading weights may change it).
    """

    scale: float = 1.0
    softcap: float | None = None
    added: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class ModelHead:
    """The module that makes a model's logits, and what the model does to them then."""

    module: nn.Module
    after: After

    def now(self) -> Head:
        """The head with the weights that it has at this moment; differentiable where they are trained."""
        weight, bias = _weights(self.module)
        if bias is not None and self.after.scale != 1:
            bias = bias * self.after.scale
        if self.after.added is not None:
            added = self.after.added().reshape(-1)
            bias = added if bias is None else bias + added
        return Head(weight, bias, self.after.scale, self.after.softcap)


class Tap:
    """What a tapped forward left behind: the hidden states that its head got, and the head."""

    def __init__(self) -> None:
        self._headed: Headed | None = None

    @property
    def headed(self) -> Headed:
        if self._headed is None:
            raise CompatibilityError("no forward ran through the head while it was tapped")
        return self._headed

    @property
    def hidden(self) -> Float[Tensor, "batch positions width"]:
        return self.headed.hidden

    @property
    def head(self) -> Head:
        return self.headed.head


def head_of(model: nn.Module) -> ModelHead:
    """How the model makes logits, looked at once per model, with a few tiny forwards without gradient.

    Raises:
        CompatibilityError: it has no head over a vocabulary, or does something to the logits that is not known here.
    """
    known = _KNOWN.get(model)
    if known is None or known.module is not _module(model):
        known = _KNOWN[model] = _found(model)
    return known


@contextmanager
def tapped(model: nn.Module, inside: Callable[[Headed], Tensor] | None = None) -> Iterator[Tap]:
    """Run one forward inside: it stops before the product of the head, and gives empty logits.

    inside: called with (batch, positions) hidden states and the head *within* the head's forward, while a wrapper holds
        its weights together. What it returns, a scalar, is added to the empty logits: their sum, which is 0, has to be in the
        loss, since it is by the gradient of a module's output that wrappers know when to gather weights again (ZeRO-3).
        Without it, what is left behind has a copy of weights that a wrapper takes apart again.

    Raises:
        CompatibilityError: see `head_of`.
    """
    found, tap = head_of(model), Tap()
    passing = inside is None and is_spread(found.module)

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if tap._headed is not None:
            raise CompatibilityError(f"{type(model).__name__} uses its head more than once in one forward")
        headed = Headed(_as_multiplied(hidden), found.now())
        tap._headed = headed.held() if passing else headed
        # no positions: nothing of the size of a vocabulary comes of what the model does to it
        empty = hidden.new_zeros(hidden.shape[0], 0, 1)
        return empty if inside is None else empty + inside(tap._headed).to(empty.dtype)

    with _instead(found.module, forward):
        yield tap


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _as_multiplied(hidden: Tensor) -> Tensor:
    """In the precision of the product: what autocast would do to it."""
    device = hidden.device.type
    if not torch.is_autocast_enabled(device) or hidden.dtype == torch.float64:
        return hidden
    return hidden.to(torch.get_autocast_dtype(device))


# --- the weights ---


def _module(model: nn.Module) -> nn.Module:
    bare = _bare(model)
    found: nn.Module | None = bare.get_output_embeddings() if isinstance(bare, PreTrainedModel) else None
    if found is None:
        raise CompatibilityError(f"{type(bare).__name__} has no head over a vocabulary: expected a Hugging Face language "
                                 "model (AutoModelForCausalLM, ForSeq2SeqLM or ForMaskedLM)")
    return found


def _bare(model: nn.Module) -> nn.Module:
    """The model that adapters were put into."""
    if _of_peft(model):
        bare: nn.Module = model.get_base_model()  # type: ignore[operator]
        return bare
    return model


def _of_peft(module: nn.Module) -> bool:
    """An optional package: nothing of it is imported before one of its modules is met."""
    return type(module).__module__.partition(".")[0] == "peft"


def _weights(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    if _of_peft(module):
        return _adapted(module)
    if not isinstance(module, nn.Linear) or not module.weight.is_floating_point():
        raise CompatibilityError(f"the model's head is a {type(module).__name__}, expected a linear layer with weights in "
                                 "floating point; load the model without quantising its head")
    return module.weight, module.bias


def _adapted(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """A head with adapters, as one weight: W + scaling · B A, through which gradients reach A and B."""
    from peft.tuners.lora.layer import Linear as LoraLinear
    from peft.utils.other import ModulesToSaveWrapper

    if isinstance(module, ModulesToSaveWrapper):
        chosen = module.original_module if module.disable_adapters else module.modules_to_save[module.active_adapters[0]]
        return _weights(chosen)
    if not isinstance(module, LoraLinear):
        raise CompatibilityError(f"the model's head has an adapter of a kind that is not known here, "
                                 f"{type(module).__name__}; use LoRA, or leave the head out of `target_modules`")
    weight, bias = _weights(module.get_base_layer())
    if module.disable_adapters or module.merged:
        return weight, bias
    for name in module.active_adapters:
        if name not in module.lora_A:
            continue
        dropout = module.lora_dropout[name]
        if name in module.lora_variant or module.lora_bias.get(name):
            raise CompatibilityError("the head's LoRA adapter is a variant (DoRA, a bias of its own ...); use plain LoRA, or "
                                     "leave the head out of `target_modules`")
        if module.training and isinstance(dropout, nn.Dropout) and dropout.p > 0:
            raise CompatibilityError("the head's LoRA adapter has a dropout, which no single weight can stand for; set "
                                     "`lora_dropout: 0`, or leave the head out of `target_modules`")
        weight = weight + module.get_delta_weight(name).to(weight.dtype)
    return weight, bias


# --- what the model does after the product ---


def _found(model: nn.Module) -> ModelHead:
    module = _module(model)
    devices = sorted({parameter.device.index for parameter in model.parameters() if parameter.is_cuda})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices), in_eval_mode(model):
            found = ModelHead(module, _after(model, module))
            _KNOWN[model] = found
            _compare(model)
    except BaseException:
        _KNOWN.pop(model, None)
        raise
    return found


def _after(model: nn.Module, module: nn.Module) -> After:
    """Fits scale, added bias and softcap to what becomes of numbers given in place of the product."""
    def became(product: Tensor | float) -> Tensor:
        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            shape = (*hidden.shape[:-1], classes)
            return torch.broadcast_to(torch.as_tensor(product, dtype=torch.float64, device=hidden.device), shape).clone()

        with _instead(module, forward):
            return _logits(model).double()

    classes = whole_shape(_weights(module)[0])[0]
    far = became(1e8)
    softcap = float(far.flatten()[0]) if torch.equal(far, became(2e8)) else None

    def straight(logits: Tensor) -> Tensor:
        return logits if softcap is None else softcap * torch.atanh(logits / softcap)

    zero = straight(became(0.0))
    scale = float((straight(became(1.0)) - zero).mean())
    added = zero.flatten(0, -2)[0]
    tried = 20 * torch.randn(classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(added.device)
    line = scale * tried + added
    expected = line if softcap is None else softcap * torch.tanh(line / softcap)
    close = (became(tried) - expected).abs().max() <= 1e-4 * (1 + expected.abs().max())
    if not (close and scale > 0 and math.isfinite(scale)):
        raise CompatibilityError(f"{type(model).__name__} makes its logits from its head's product in a way that is not "
                                 "known here (other than a scale, a bias and a softcap)")
    return After(_round(scale), None if softcap is None else _round(softcap), _buffer(model, added))


def _round(number: float) -> float:
    """What was measured in float32 arithmetic, without its last digits: 0.0625, not 0.06250000004."""
    return float(f"{number:.7g}")


def _buffer(model: nn.Module, added: Tensor) -> Callable[[], Tensor] | None:
    """The buffer that is added: the one with as many numbers as there are classes, and these."""
    for name, buffer in model.named_buffers():
        if buffer.numel() == len(added) and torch.allclose(buffer.reshape(-1).double(), added, atol=1e-5):
            return lambda: model.get_buffer(name)
    if added.abs().max() > 1e-6:
        raise CompatibilityError(f"{type(model).__name__} adds something to its logits that is none of its buffers")
    return None


def _logits(model: nn.Module) -> Tensor:
    bare = _bare(model)
    try:
        logits = model(**_unlike(made_up_inputs(bare)))["logits"]
    except CompatibilityError:
        raise
    except Exception as error:  # whatever a class says to inputs that it does not take
        raise CompatibilityError(f"{type(bare).__name__} could not be asked for logits, to see how its head makes them: "
                                 f"{error}") from error
    found: Tensor = logits
    return found


def _unlike(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """With tokens that differ: equal ones would give equal rows, and hide their order."""
    return {name: torch.remainder(torch.arange(value.shape[1], device=value.device), value.max() + 1)[None]
            if name.endswith("input_ids") else value for name, value in inputs.items()}


def _compare(model: nn.Module) -> None:
    """Raise unless hidden states and head give the model's own logits."""
    own = _logits(model)
    with tapped(model) as tap:
        _logits(model)
    if tap.hidden.dim() != 3 or own.shape != (*tap.hidden.shape[:2], tap.head.classes):
        raise CompatibilityError(f"{type(model).__name__}: its logits have the shape {tuple(own.shape)}, and its head got "
                                 f"{tuple(tap.hidden.shape)}; expected one row of logits per position")
    exact = {torch.float64: 1e-9, torch.float32: 1e-4}.get(tap.hidden.dtype, 3e-2)
    gap = (tap.head.logits(tap.hidden) - own).abs().max()
    if not gap <= exact * (1 + own.abs().max()):
        raise CompatibilityError(f"{type(model).__name__}: its head and hidden states do not give its own logits (off by "
                                 f"up to {float(gap):.2g})")
