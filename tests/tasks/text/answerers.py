"""Tiny models that answer from a passage, and questions that can be learnt: who or where, of one passage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import processors

from tests.tasks.text import taggers
from tests.tasks.text.taggers import FILLER, NAMES, PLACES

ASKS = ("who", "where", "is", "it")
QUESTIONS = {"who": "who is it", "where": "where is it"}


def rows(count: int, seed: int = 0, *, maybe_none: bool = True, longest: int = 6) -> dict[str, list[Any]]:
    """As Hugging Face's SQuAD: a person or a place within other words; a third of the questions is of what is not there."""
    draw = random.Random(seed)
    made: dict[str, list[Any]] = {"id": [], "context": [], "question": [], "answers": []}
    for number in range(count):
        asked = draw.choice(list(QUESTIONS))
        there = {"who": draw.choice(NAMES), "where": draw.choice(PLACES)}
        none = maybe_none and draw.random() < 1 / 3
        if none:
            del there[asked]
        words = draw.choices(FILLER, k=draw.randint(2, longest))
        for name in there.values():
            words.insert(draw.randint(0, len(words)), name)
        context = " ".join(words)
        answers = [] if none else [(there[asked], context.index(there[asked]))]
        made["id"].append(str(number))
        made["context"].append(context)
        made["question"].append(QUESTIONS[asked])
        made["answers"].append({"text": [one for one, _ in answers], "answer_start": [start for _, start in answers]})
    return made


def squad(path: Path, count: int, seed: int = 0, **options: Any) -> str:
    """The same as SQuAD's file."""
    made = rows(count, seed, **options)
    paragraphs = []
    for name, context, question, answers in zip(*made.values()):
        said = [{"text": text, "answer_start": start} for text, start in zip(*answers.values())]
        paragraphs.append({"context": context, "qas": [
            {"id": name, "question": question, "answers": said, "is_impossible": not said,
             **({} if said else {"plausible_answers": [{"text": context[:3], "answer_start": 0}]})}]})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "one", "paragraphs": paragraphs[: count // 2]},
                                                            {"title": "two", "paragraphs": paragraphs[count // 2 :]}]}))
    return str(path)


def tokenizer(length: int = 64) -> Any:
    made = taggers.wordpieces(*ASKS)
    made.model_max_length = length
    return made


def model(size: int, layers: int = 2, seed: int = 0, **more: Any) -> hf.PreTrainedModel:
    torch.manual_seed(seed)
    config = taggers.config("bert", size, ("start", "end"), layers, **more)
    return hf.BertForQuestionAnswering(config).eval()


def without_cls(*, begins: bool) -> Any:
    """As language models have it: a text begins with a token of its own, or with its own first one."""
    made = taggers.byte_level()
    made.cls_token = made.sep_token = None
    single, mark = ("<s> $A", [("<s>", 0)]) if begins else ("$A", [])
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B:1", special_tokens=mark)
    return made


def of_a_language_model(path: Path, family: str, *, begins: bool, left: bool = False) -> str:
    """A folder whose tokenizer has no CLS."""
    made = without_cls(begins=begins)
    made.padding_side = "left" if left else "right"
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": len(made), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if family == "t5":
        config = hf.T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_decoder_layers=2, num_heads=2,
                             decoder_start_token_id=1, initializer_factor=3.0, **sizes)
        model: Any = hf.T5ForQuestionAnswering(config)
    else:
        config = hf.LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                                num_key_value_heads=1, initializer_range=0.3, **sizes)
        model = hf.LlamaForQuestionAnswering(config)
    model.save_pretrained(path)
    made.save_pretrained(path)
    return str(path)


def folder(path: Path, layers: int = 2, **more: Any) -> str:
    made = tokenizer()
    model(len(made), layers, **more).save_pretrained(path)
    made.save_pretrained(path)
    return str(path)
