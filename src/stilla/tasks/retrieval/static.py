"""Static models: a table with a vector for each token, and a text's is the mean of its tokens'. Made from a teacher as
model2vec makes them, and written as `StaticEmbedding` of sentence-transformers reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.runtime.narrate import tracked
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval import layout
from stilla.tasks.retrieval.model import EmbeddingOutput, Shape
from stilla.tasks.retrieval.reading import Reader

_RARE = 1e-4
"""a of a / (a + p): how often a token has to stand in texts to count half (Arora et al. 2017, smooth inverse frequency)."""
_AT_ONCE = 256

_TOLD: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()
"""What a teacher says of each token: asked once for all students of a run."""


class StaticConfig(PreTrainedConfig):
    """vocab_size, hidden_size: of the table. normalise, similarity: as in `Shape`."""

    model_type = "stilla-static"

    def __init__(
        self, vocab_size: int = 2, hidden_size: int = 1, normalise: bool = True, similarity: str = "cosine", **more: Any
    ) -> None:
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.normalise, self.similarity = normalise, similarity
        super().__init__(**more)


class StaticModel(PreTrainedModel):
    """A vector per text: the mean of its tokens', made of length 1. No layers, and the order of words says nothing."""

    config_class = StaticConfig
    embedding: nn.Embedding
    base_model_prefix = ""
    new_layers = 0

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)  # its name in files of sentence-transformers
        self.post_init()

    @property
    def shape(self) -> Shape:
        config: Any = self.config
        return Shape("mean", config.normalise, config.similarity)

    @property
    def width(self) -> int:
        return int(self.embedding.embedding_dim)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, value: Any) -> None:
        self.embedding = value

    def forward(
        self, input_ids: Int[Tensor, "texts tokens"], attention_mask: Int[Tensor, "texts tokens"] | None = None
    ) -> EmbeddingOutput:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        vectors = self.embedding(input_ids)
        mask = mask.to(vectors.dtype)
        mean = (vectors * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return EmbeddingOutput(F.normalize(mean, dim=-1) if self.shape.normalised else mean)

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> None:
        super().save_pretrained(save_directory, *arguments, **options)
        layout.write_static(Path(save_directory), self.shape)


def made_from(teacher: Loaded, width: int | None) -> StaticModel:
    """A table of the teacher's vectors of each token by itself: centred, in `width` principal components where that is
    fewer, and weighted by how rare the token is, a / (a + p), p ∝ 1 / rank in the vocabulary (Zipf; model2vec, MIT).

    In the teacher's own width the components are its own axes, so that vectors stay comparable with the teacher's; a rotation
    would change no cosine between them.

    Raises:
        CompatibilityError: a tokenizer in Python, which `StaticEmbedding` cannot read.
    """
    model: Any = teacher.model
    vectors = _TOLD.get(model)
    if vectors is None:
        vectors = _TOLD[model] = _of_tokens(model, teacher.processor.tokenizer)
    centred = vectors - vectors.mean(0)
    if width is not None and width < centred.shape[1]:
        _, _, axes = torch.linalg.svd(centred.double(), full_matrices=False)
        centred = (centred.double() @ axes[:width].T).float()
    rank = torch.arange(len(centred), dtype=torch.float64) + 2
    often = (1 / rank) / (1 / rank).sum()
    rows = centred * (_RARE / (_RARE + often)).float()[:, None]
    return _of_rows(rows, model.shape)


def any_of_its_shape(teacher: Loaded, width: int | None) -> StaticModel:
    """A table as `made_from` gives it with numbers that are drawn, for whoever looks at sizes and times: no teacher is asked.

    Raises:
        CompatibilityError: as there.
    """
    model: Any = teacher.model
    tokens = max(_known(teacher.processor.tokenizer).values()) + 1
    return _of_rows(torch.randn(tokens, min(width or model.width, model.width)), model.shape)


def _known(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Raises:
        CompatibilityError: a tokenizer in Python.
    """
    if not tokenizer.is_fast:
        raise CompatibilityError(f"student.static: the teacher's {type(tokenizer).__name__} is a tokenizer in Python, and a "
                                 "static model is read by sentence-transformers with one in Rust; take a teacher that has "
                                 "one")
    known: dict[str, int] = tokenizer.get_vocab()
    return known


def _of_rows(rows: Float[Tensor, "tokens width"], shape: Shape) -> StaticModel:
    tokens, width = rows.shape
    made = StaticModel(StaticConfig(tokens, width, shape.normalised, shape.similarity))
    with torch.no_grad():
        made.embedding.weight.copy_(rows)
    return made


@torch.no_grad()
def _of_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Float[Tensor, "tokens width"]:
    """Each with what the tokenizer puts around a text. Numbers that are no token's get the vector of the first."""
    known = _known(tokenizer)
    size, there = max(known.values()) + 1, {*known.values()}
    before, after = _around(tokenizer)
    device, training = next(model.parameters()).device, model.training
    model.eval()
    found = []
    for start in tracked(range(0, size, _AT_ONCE), "asking the teacher about each token"):
        ids = [[*before, one if one in there else min(there), *after] for one in range(start, min(size, start + _AT_ONCE))]
        inputs = torch.tensor(ids, device=device)
        found.append(model(input_ids=inputs, attention_mask=torch.ones_like(inputs))["sentence_embedding"].float().cpu())
    model.train(training)
    return torch.cat(found)


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    start = next((one for one in range(len(whole)) if whole[one : one + len(bare)] == bare), 0)
    return list(whole[:start]), list(whole[start + len(bare):])


def reader_of(teacher: Reader) -> Reader:
    """Reads as the teacher does, to a text's end, and puts nothing around it."""
    old: Any = teacher.tokenizer
    rules = Tokenizer.from_str(old.backend_tokenizer.to_str())
    rules.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    rules.no_truncation()
    rules.no_padding()
    made = PreTrainedTokenizerFast(tokenizer_object=rules, pad_token=old.pad_token, unk_token=old.unk_token,
                                   model_input_names=["input_ids", "attention_mask"])
    return replace(teacher, tokenizer=made, whole=True)


def is_one(name: str, **where: Any) -> bool:
    return layout.first_module(name, **where) == "StaticEmbedding"


def load(source: ModelSource, prompts: Mapping[str, str], **where: Any) -> Loaded:
    """A folder that was written here, by sentence-transformers or by model2vec.

    Raises:
        CompatibilityError: it has no such weights, or model2vec's of a vocabulary in fewer rows.
    """
    said = layout.read_static(source.model, **where)
    (file,) = said.dense
    weights = load_file(file)
    rows = weights.get("embedding.weight", weights.get("embeddings"))
    if rows is None or "mapping" in weights or "weights" in weights:
        raise CompatibilityError(f"{source.model!r}: its model.safetensors has {sorted(weights)}; expected "
                                 f"embedding.weight, or "
                                 "embeddings without a mapping. Load it with sentence-transformers once and save it again")
    shape = said.shape
    assert shape is not None
    model = _of_rows(rows.float(), shape)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source.model, **where)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    reader = reader_of(Reader(tokenizer, said.prompts, said.default))
    return Loaded(model.eval(), reader.with_prompts(prompts) if prompts else reader, source.model)
