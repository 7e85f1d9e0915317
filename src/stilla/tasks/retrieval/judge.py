"""Language models that are asked whether a text answers a query: how much likelier they say yes than no is the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from stilla.errors import CompatibilityError, DataError, counted, quoted
from stilla.models.fingerprint import of_processor
from stilla.models.heads import tapped
from stilla.recipe import ModelSource
from stilla.runtime.imports import is_import_path
from stilla.runtime.narrate import tracked
from stilla.signals import Head
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval.sections import Asking
from stilla.tasks.shared import loading
from stilla.tasks.shared.int8 import quantise
from stilla.tasks.text import tokens as _tokens

_AT_ONCE = 1000

Pairs = tuple[Sequence[str], Sequence[str]]
"""Queries, and the text beside each."""


class Judge(nn.Module):
    """A language model as a cross-encoder: score = logit(yes) - logit(no), of what comes after a prompt. Not
    log p(yes), which also depends on all other words.

    `config`: the language model's. `answers`: the numbers of the two words.
    """

    def __init__(self, model: PreTrainedModel, yes: int, no: int) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.answers: Tensor
        self.register_buffer("answers", torch.tensor([yes, no]))

    def forward(
        self, input_ids: Int[Tensor, "pairs tokens"], attention_mask: Int[Tensor, "pairs tokens"]
    ) -> SequenceClassifierOutput:
        with tapped(self.model) as tap:
            self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        last = (attention_mask * places).argmax(1)  # wherever the padding is
        return SequenceClassifierOutput(logits=self._ahead(tap.hidden[torch.arange(len(last)), last], tap.head))

    def _ahead(self, hidden: Float[Tensor, "pairs width"], head: Head) -> Float[Tensor, "pairs 1"]:
        """In float32: a difference of two numbers that were rounded to bfloat16 would be mostly rounding."""
        bias = None if head.bias is None else head.bias[self.answers].float()
        two = replace(head, weight=head.weight[self.answers].float(), bias=bias, used=None).logits(hidden.float())
        return two[:, :1] - two[:, 1:]


@dataclass(frozen=True, eq=False)
class Prompts:
    """The processor of a `Judge`: a prompt of a query and a text, of which the text is cut where both are too long."""

    tokenizer: PreTrainedTokenizerBase
    asking: Asking

    @property
    def model_max_length(self) -> int:
        return int(self.tokenizer.model_max_length)

    def tokens(self, pairs: Pairs, length: int) -> tuple[_tokens.Tokens, int]:
        """What its model reads of each pair, and of how many the text was cut.

        Raises:
            DataError: prompts that are too long without any text.
        """
        found: list[list[int]] = []
        cut = 0
        for start in tracked(range(0, len(pairs[0]), _AT_ONCE), "tokenising"):
            some = [*zip(pairs[0][start : start + _AT_ONCE], pairs[1][start : start + _AT_ONCE])]
            short = [(query, _tokens.beginning(self.tokenizer, text, length)) for query, text in some]
            for (query, text), ids in zip(short, self._ids([self._prompt(*pair) for pair in short]), strict=True):
                cut += len(ids) > length
                found.append(ids if len(ids) <= length else self._cut(query, text, length))
        lengths = [len(ids) for ids in found]
        # to the right, whatever the tokenizer says: positions then count from the first token
        return _tokens.Tokens(
            np.concatenate([np.array(ids, np.int32) for ids in found]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), None,
            {"input_ids": int(self.tokenizer.pad_token_id or 0), "attention_mask": 0}, left=False), cut

    def to_dict(self) -> dict[str, Any]:
        """What its reading depends on."""
        return {"tokenizer": of_processor(self.tokenizer), "longest": self.model_max_length, **self.asking.model_dump()}

    def save_pretrained(self, folder: Any) -> None:
        self.tokenizer.save_pretrained(folder)

    def _prompt(self, query: str, text: str) -> str:
        """In one go: braces in a query are a query's."""
        before, _, rest = self.asking.template.partition("{query}")
        if "{document}" in before:
            start, _, middle = before.partition("{document}")
            return start + text + middle + query + rest
        middle, _, end = rest.partition("{document}")
        return before + query + middle + text + end

    def _ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """With what the tokenizer puts before a text (its beginning of texts, unless the prompt has it), and without
        what it puts after one: the answer would come before that."""
        first = self._before()
        plain = self.tokenizer(list(prompts), add_special_tokens=False, padding=False, truncation=False, verbose=False)
        return [[*([] if ids[: len(first)] == first else first), *ids] for ids in plain["input_ids"]]

    def _before(self) -> list[int]:
        bare, whole = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        starts = [place for place in range(len(whole)) if whole[place : place + len(bare)] == bare]
        return list(whole[: starts[0]]) if starts else []

    def _cut(self, query: str, text: str, length: int) -> list[int]:
        """With as many characters of the text as fit."""
        least, most = 0, len(text)
        best = self._ids([self._prompt(query, "")])[0]
        if len(best) > length:
            raise DataError(f"data.asking: the prompt of {quoted(query)} has {len(best):,} tokens without any document, and "
                            f"{length:,} are read. Set data.max_length higher, or shorten the template")
        while least < most:
            middle = (least + most + 1) // 2
            ids = self._ids([self._prompt(query, text[:middle])])[0]
            if len(ids) <= length:
                least, best = middle, ids
            else:
                most = middle - 1
        return best


def is_one(source: ModelSource) -> bool:
    """Whether it is a language model, whose head says which word comes next."""
    if is_import_path(source.model) or source.weights is not None or source.is_stored:
        return False
    return any(name.endswith("ForCausalLM") for name in loading.read_config(source).architectures or ())


def load(source: ModelSource, asking: Asking | None) -> Loaded:
    """A language model that is asked for yes or no.

    Raises:
        CompatibilityError: nobody says how it is asked; words that are not one token each.
    """
    if asking is None:
        raise CompatibilityError(f"{source.model!r} is a language model, and nobody says how it is asked whether a "
                                 f"text answers a "
                                 "query: data: {asking: {template: '... {query} ... {document} ...', yes: 'yes', no: "
                                 "'no'}}. To "
                                 "train a head of its own instead: teacher: {train: {}}")
    if source.precision == "4bit":
        raise CompatibilityError("teacher.precision: 4bit is for language models that are tasks' own; take int8 or bfloat16")
    config = loading.read_config(source)
    model, info = loading.from_pretrained(source, config, AutoModelForCausalLM)
    if info["missing_keys"]:
        raise CompatibilityError(f"{source.model!r}: {counted(len(info['missing_keys']), 'weight', 'is')} missing from the "
                                 f"checkpoint. Its "
                                 "config.json does not describe its weights")
    tokenizer = _tokens.tokenizer_for(source, model)
    yes, no = (_word(tokenizer, word, name, source.model) for name, word in (("yes", asking.yes), ("no", asking.no)))
    if yes == no:
        raise CompatibilityError(f"data.asking: yes ({asking.yes!r}) and no ({asking.no!r}) are the same token of "
                                 f"{source.model!r}")
    if source.precision == "int8":
        quantise(model, but=model.get_output_embeddings())
    else:
        loading.lowered(model, source)
    return Loaded(Judge(model, yes, no).eval(), Prompts(tokenizer, asking), source.model)


def _word(tokenizer: PreTrainedTokenizerBase, word: str, name: str, source: str) -> int:
    """`Yes`, `yes` and ` yes` are other tokens, and of what is none, or several, nobody can ask how likely it is."""
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        said = [tokenizer.convert_ids_to_tokens(one) for one in ids]
        raise CompatibilityError(f"data.asking.{name}: {word!r} is not one token of {source!r}, but {said}; expected "
                                 f"a word that is, "
                                 "such as the model was trained to answer with (upper and lower case, and a space "
                                 "before it, make "
                                 "other tokens)")
    return int(ids[0])


def refuse_cut(source: str) -> None:
    """Raises:
        CompatibilityError: always; a student begins with something of a language model that is asked for words."""
    raise CompatibilityError(f"student: is cut from its teacher, or made like it, and {source} answers with words, to "
                             f"a prompt: what "
                             "is left of it would be no cross-encoder. Give a model that it starts from: student: "
                             "{model: ...}")
