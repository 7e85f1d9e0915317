"""How a task's models are known and handed over: folders, model cards, exported files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.recipe import Evaluate
from stilla.tasks.contract.rows import Rows

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Graph:
    """What is written as a file of its own: a function of tensors in the order of `inputs`, in evaluation mode.

    inputs: what it is given of a batch. axes: of every input those that may have any size, by their names. outputs: their
    names. about: what the file says of itself. exact: its weights stay as they are where others are quantised.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    about: Mapping[str, str] = field(default_factory=dict)
    exact: bool = False


class File(Protocol):
    """Such a file, run by onnxruntime."""

    about: dict[str, str]
    shapes: dict[str, list[Any]]
    bytes: int

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Every output by name; inputs that the file does not take are ignored."""
        ...


class Joined(ABC):
    """Files of a model as one function of its inputs, for whoever measures them. bytes: of all of them."""

    bytes: int

    @abstractmethod
    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the task's exam asks a model's forward."""


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

    @property
    def by_graphs(self) -> bool:
        """Whether its models are written as the files of `graphs_of`, of whose answers a program makes one (frame after
        frame); else as one file, whose answer is `outputs`."""
        return False

    def graphs_of(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Graph]:
        """By the names of their files the parts that a model is written in, with what each is given of a batch. The first is
        `model.onnx` or `encoder_model.onnx`, which stand for what lies in a folder. `model`: an exporter's copy, which may be
        changed."""
        raise NotImplementedError

    def opened(self, name: str, files: Callable[[str], File]) -> Joined:
        """These files, by name, as one function. `name`: of the one that stands for all."""
        raise NotImplementedError

    def program(self, model: nn.Module, processor: Any) -> str:
        """What their README says of them: words, and a program in Python that runs them."""
        raise NotImplementedError

    def delivered(self, section: Evaluate) -> Self:
        """The same task as its models are handed over, with what a recipe measures them by that is written beside them."""
        return self

    @property
    def companions(self) -> Mapping[str, str]:
        """By name the models that are written beside its own (a vocoder)."""
        return {}

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
