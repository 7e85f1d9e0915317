"""A teacher that reads a query and a text together (a cross-encoder), whose scores of candidates a student's vectors learn.

It has no vectors, so that nothing can be searched by it: what stands beside a query is all that it is asked about.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from stilla.data.hub import hub_reachable
from stilla.errors import CompatibilityError, all_at_once
from stilla.models.fingerprint import of_processor
from stilla.objectives.base import Term
from stilla.recipe import ModelSource, ObjectiveSpec
from stilla.runtime.imports import is_import_path
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval.forms import Form
from stilla.tasks.retrieval.layout import Kind, modules_of
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.shared import loading
from stilla.tasks.shared.activations import activation_of
from stilla.tasks.shared.labels import Activation, Problem
from stilla.tasks.text import tokens as _tokens

logger = logging.getLogger(__name__)

_HEAD = "ForSequenceClassification"

UNMEASURED = ("it reads a query and a text together, and has no vectors that could be searched or compared. How well it puts "
              "candidates in order, task: reranking measures")
"""Why it is not measured beside its student."""


@dataclass(frozen=True, eq=False)
class Crossing:
    """The processor of a cross-encoder. `activation`: what its folder says that scores are of its logits."""

    tokenizer: PreTrainedTokenizerBase
    activation: Activation

    @property
    def model_max_length(self) -> int:
        return int(self.tokenizer.model_max_length)

    def pairs(self, examples: Iterable[Sequence[str]], max_length: int | None) -> _tokens.Tokens:
        """What its model reads of each example: the first text with each of the others, as the data have them; prompts are of
        models that give vectors. Of pairs that are too long the longer text is cut first. `max_length`: of one text."""
        asked = [(first, other) for first, *others in examples for other in others]
        length = _tokens.longest([self], None if max_length is None else min(2 * max_length, self.model_max_length))
        tokens, cut = _tokens.tokenise(self.tokenizer, [list(one) for one in zip(*asked)], length)
        if cut:
            logger.warning("%d of %d pairs are longer than %d of the teacher's tokens: cut", cut, len(asked), length)
        return tokens

    def tokens(self, texts: Sequence[str], kinds: Sequence[Kind | None], length: int) -> tuple[_tokens.Tokens, int]:
        """Texts by themselves, as a student with its tokenizer would read them: for whoever looks at data before there is
        one."""
        return _tokens.tokenise(self.tokenizer, [list(texts)], length)

    def scores(self, logits: Float[Tensor, "rows candidates"]) -> Float[Tensor, "rows candidates"]:
        """Of several candidates the logits: all good ones would be near 1. Of one, which a cosine is held against, what its
        folder says."""
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return exact.sigmoid() if logits.shape[-1] == 1 and self.activation == "sigmoid" else exact

    def save_pretrained(self, folder: Any) -> None:
        self.tokenizer.save_pretrained(folder)

    def to_dict(self) -> dict[str, Any]:
        """What its reading depends on."""
        return {"tokenizer": of_processor(self.tokenizer), "longest": self.model_max_length, "activation": self.activation}


def is_one(source: ModelSource) -> bool:
    """Whether it gives one score of what it reads, and no vector: a classifier of transformers with one output, whose folder
    says nothing of pooling. (From sentence-transformers 6 on a cross-encoder's lists its only module.)"""
    if is_import_path(source.model) or source.weights is not None or source.is_stored:
        return False
    where = {"revision": source.revision, "local_files_only": not hub_reachable()}
    if modules_of(source.model, **where) not in ([], ["Transformer"]):
        return False
    config = loading.read_config(source)
    return any(name.endswith(_HEAD) for name in config.architectures or ()) and len(config.id2label) == 1


def load(source: ModelSource) -> Loaded:
    """A cross-encoder in the precision that the recipe asks for.

    Raises:
        CompatibilityError: as for any trained classifier; a score that is another function of the logit than those known.
    """
    model: Any = loading.classifier(source, Problem("number", ()), AutoModelForSequenceClassification, labelled=True)
    tokenizer = _tokens.tokenizer_for(source, model)
    return Loaded(model, Crossing(tokenizer, activation_of(model.config, source.model)), source.model)


def refuse_unfit(
    section: EmbeddingData, form: Form, measured: Collection[str], crossing: Crossing, source: str
) -> None:
    """Hold data against a teacher that scores a query with a text. `form`: of what is learnt, before anything is found.

    Raises:
        CompatibilityError: all that it cannot teach, or cannot be held against.
    """
    scores, problems = f"{source} is a cross-encoder, which scores a query with a text that stands beside it", []
    negatives = section.negatives
    if negatives is not None and negatives.by is None:
        problems.append(f"data.negatives: {scores}, and has no vectors to search by. Name a model of vectors that finds what "
                        "does not answer: data.negatives: {by: ...}")
    if form.kind == "texts" and negatives is None:
        where, named = ("data.unlabelled", ", named in data.text") if section.train is None else ("data.train", "")
        problems.append(f"{where}: {scores}, and the training data are texts by themselves. Give queries with what answers "
                        f"them and what does not (query, positive, negative){named}, or queries with answers, and name who "
                        "finds the rest: data.negatives: {by: ...}. Texts by themselves are learnt from a model of vectors")
    elif form.classes == 1 and negatives is None and crossing.activation == "none":
        problems.append(f"data.train: {scores}, by a logit of any size, and beside each query stands one text, whose cosine "
                        "is at most 1. Give what does not answer too (query, positive, negative), or name who finds it: "
                        "data.negatives: {by: ...}. Pairs by themselves are learnt from a cross-encoder whose folder says "
                        "that its scores are the sigmoid of its logits")
    if "texts" in measured:
        problems.append(f"data: {scores}, and validation or test data are texts by themselves, which are measured by how "
                        "near a vector is to the teacher's. Give pairs with a score, queries with answers, or a folder for "
                        "search")
    if section.documents == "teacher":
        problems.append(f"data.documents: got 'teacher', and {source} is a cross-encoder, which has no vectors of documents. "
                        "Leave it out")
    if section.matryoshka:
        problems.append(f"data.matryoshka: got {list(section.matryoshka)}: beginnings of vectors are learnt from the cosines "
                        f"of the teacher's vectors, and {source} is a cross-encoder, which has none. Leave it out")
    if problems:
        raise all_at_once(problems, CompatibilityError)


def learnt_by(classes: int) -> tuple[ObjectiveSpec, ...]:
    """What students learn by where a recipe names nothing: by how much the teacher finds the answer better than the others
    (Hofstätter et al. 2020); of pairs its score itself. `classes`: scores of an example."""
    if classes == 1:
        return (ObjectiveSpec(kind="logits", divergence="mse"),)
    return (ObjectiveSpec(kind="margins"),)


def misled(terms: Sequence[Term]) -> list[str]:
    """Which terms compare what it has not, in words."""
    return [f"`{term.name}` compares hidden states of what both models read, and the teacher reads a query and a text as "
            "one. Use `margins`, or `logits`" for term in terms if term.objective.needs_stacks]


def refuse_cut(source: str) -> NoReturn:
    """Raises:
        CompatibilityError: always; a student begins with something of a model that was never trained to give vectors."""
    raise CompatibilityError(f"student: is cut from its teacher, or made like it, and {source} is a cross-encoder, whose "
                             "layers were trained to judge two texts at once, not to give a vector of one. Give a model "
                             "that it starts from: student: {model: ...}")
