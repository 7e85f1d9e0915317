"""Tiny taggers and tokenizers, made from configs in a moment, and sentences in which a word's tag can be learnt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from stilla.tasks.text.crf import log_marginals

NAMES = ("Ann", "Bob", "Marianne")
PLACES = ("Bern", "Zurich", "Winterthur")
FILLER = ("sees", "in", "and", "the", "river", "near", "walks", "unbelievable")
PIECES = ("un", "##believ", "##able", "mari", "##anne", "winter", "##thur", "zu", "##rich", "wal", "##ks")
ENTITIES = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def sentences(count: int, seed: int = 0) -> dict[str, list[list[str]]]:
    """Words with IOB2 tags: people of one or two names, places, which sometimes touch; and whether a word has a capital."""
    draw = random.Random(seed)
    tokens, tags = [], []
    for _ in range(count):
        words: list[str] = []
        said: list[str] = []
        for _ in range(draw.randint(1, 3)):
            some = draw.choices(FILLER, k=draw.randint(0, 3))
            kind, names = draw.choice((("PER", NAMES), ("LOC", PLACES)))
            names = tuple(draw.choices(names, k=draw.randint(1, 2)))
            words += [*some, *names]
            said += ["O"] * len(some) + [f"{'I' if place else 'B'}-{kind}" for place in range(len(names))]
        tokens.append(words)
        tags.append(said)
    return {"tokens": tokens, "tags": tags}


def conllu(path: Path, count: int, column: str, seed: int = 0) -> str:
    """The sentences with a part of speech for every word in a column of CoNLL-U."""
    lines = []
    for words, tags in zip(*sentences(count, seed).values()):
        for number, (word, tag) in enumerate(zip(words, tags), 1):
            said = {"upos": "_", "xpos": "_", column: "PROPN" if tag != "O" else "X"}
            lines.append("\t".join([str(number), word, "_", said["upos"], said["xpos"], *"_____"]))
        lines.append("")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def wordpieces(*more: str, reverse: bool = False) -> hf.PreTrainedTokenizerFast:
    """BERT's, lower-cased; `reverse` numbers the same pieces otherwise."""
    words = [one.lower() for one in (*NAMES[:2], PLACES[0], *FILLER[:6], *PIECES, *more)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(words[::-1] if reverse else words)]
    return hf.BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}, model_max_length=64)


def byte_level(seed: int = 0) -> hf.PreTrainedTokenizerFast:
    """RoBERTa's kind: bytes in pairs, a word with the space before it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator([" ".join(words) for words in sentences(60, seed)["tokens"]], BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", pad_token="<pad>", eos_token="</s>",
                                      unk_token="<unk>", mask_token="<mask>", cls_token="<s>", sep_token="</s>",
                                      model_max_length=64)


def unigram() -> hf.PreTrainedTokenizerFast:
    """SentencePiece's kind, as DeBERTa v3 and XLM-R have it: a piece may begin with the space before a word."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator([" ".join(words) for words in sentences(60)["tokens"]], UnigramTrainer(
        vocab_size=60, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]"], unk_token="[UNK]", show_progress=False))
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                      sep_token="[SEP]", model_max_length=64)


def labels_of(names: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def config(family: str, size: int, names: Sequence[str], layers: int = 2, **more: Any) -> Any:
    shared = {"vocab_size": size, "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2,
              "intermediate_size": 32, "max_position_embeddings": 70, "pad_token_id": 0, **labels_of(names), **more}
    if family == "roberta":
        return hf.RobertaConfig(**{**shared, "pad_token_id": 1}, bos_token_id=0, eos_token_id=2)
    if family == "deberta":
        return hf.DebertaV2Config(**shared, relative_attention=True, pos_att_type=["c2p", "p2c"], max_relative_positions=8)
    if family == "modernbert":
        return hf.ModernBertConfig(**shared, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
                                   attn_implementation="eager")
    if family == "gpt2":
        return hf.GPT2Config(vocab_size=size, n_embd=16, n_layer=layers, n_head=2, n_positions=70, pad_token_id=1,
                             bos_token_id=0, eos_token_id=2, **labels_of(names), **more)
    if family == "qwen3":
        return hf.Qwen3Config(**{**shared, "pad_token_id": 1}, num_key_value_heads=1, head_dim=8, bos_token_id=0,
                              eos_token_id=2)
    return hf.BertConfig(**shared)


def model(family: str, size: int, names: Sequence[str] = ENTITIES, seed: int = 0, **more: Any) -> hf.PreTrainedModel:
    torch.manual_seed(seed)
    return hf.AutoModelForTokenClassification.from_config(config(family, size, names, **more)).eval()


class Crf(torch.nn.Module):
    """A CRF over the first pieces, which gives its marginals."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.emissions = torch.nn.Embedding(64, num_labels)
        self.transitions = torch.nn.Parameter(torch.randn(num_labels, num_labels))
        self.ends = torch.nn.Parameter(torch.randn(2, num_labels))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        mask = attention_mask.bool() & (input_ids > 4)
        return {"logits": log_marginals(self.emissions(input_ids), self.transitions, *self.ends, mask)}


class Whole(torch.nn.Module):
    """Answers for whole texts, which is another task's model."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.labels = num_labels
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.weight.expand(len(input_ids), self.labels)


def folder(path: Path, family: str = "bert", names: Sequence[str] = ENTITIES, tokenizer: Any = None, **more: Any) -> str:
    made = tokenizer or (byte_level() if family in ("roberta", "gpt2", "qwen3") else wordpieces())
    model(family, len(made), names, **more).save_pretrained(path)
    made.save_pretrained(path)
    return str(path)
