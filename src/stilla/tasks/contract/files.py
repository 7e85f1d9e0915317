"""How a task's models are known and handed over: folders, model cards, exported files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from stilla.tasks.contract.rows import Rows


class HandedOver(Rows):
    """By default one model, whose answer is a row's likeliest class."""

    heads: ClassVar[tuple[str, ...]] = ()
    """How the names of the Hugging Face classes of its models end (`ForSequenceClassification`)."""
    answer: ClassVar[str] = "logits"
    """What `outputs` is called in an exported file."""
    towers: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Parts of its models that answer by themselves, each in an exported file of its own: their names, with the inputs that
    each takes. Their answers stand one after the other in `outputs`."""
    axes: ClassVar[Mapping[str, tuple[str, ...]]]
    """Names of the axes of each model input that may vary in an exported file, batch first; the others are fixed."""
    preparing: ClassVar[str] = ""
    """Python for an exported file's README that makes `inputs`, where no tokenizer or processor of transformers does it."""
    pipeline: ClassVar[str] = ""
    """What transformers and the Hub call it, where that is another name than `kind`; `other` where it has none there."""
    given: ClassVar[str] = '"An example."'
    """What transformers' pipeline of that name is given in a model card, as Python."""
    usage: ClassVar[str] = ""
    """How a folder is loaded and asked, as Python for its model card, where no pipeline does it."""

    @classmethod
    def called(cls) -> str:
        return cls.pipeline or cls.kind

    def axes_of(self, inputs: Mapping[str, Tensor]) -> Mapping[str, tuple[str, ...]]:
        """`axes` of a model that takes these inputs."""
        return self.axes

    @property
    def reading(self) -> str:
        """Likewise what prints an answer (of `inputs`, `logits`, `labels`), where it is not a row's likeliest class."""
        return ""

    def preparing_by(self, processor: Any) -> str:
        """`preparing`, for a model with this processor; empty where its `input_ids` or `pixel_values` are made as usual."""
        return self.preparing

    def unwritten(self, model: nn.Module, formats: Sequence[str]) -> list[str]:
        """Why a model like this cannot be exported in these formats, in words, as far as it is known without trying."""
        return []

    @property
    def pictures(self) -> bool:
        """Whether its examples are pictures, so that hidden states have places in them (`Stack.grids`)."""
        return "pixel_values" in self.axes

    @property
    def pairs(self) -> bool:
        """Whether its examples are pictures with the texts that belong to them, or queries with what answers them
        (`Signals.pairs`)."""
        return False
