"""Functions and classes of Python's own standard library: text to learn a small language model from, without a download.

Read from the sources of the running interpreter; they are covered by Python's licence (PSF-2.0) and differ a little between
versions of Python. Nothing is imported or run.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from datasets import Dataset, Features, Value

from stilla.errors import DataError

SHARES = {"test": 0.03, "validation": 0.03, "train": 0.2}
"""Of all functions and classes, the fractions that are taken: about a quarter of a million tokens to learn from."""

_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data", "site-packages", "dist-packages",
             "__pycache__", "turtledemo"}
_FEWEST, _MOST = 80, 6000  # characters


def functions(folder: Path, *, library: Path | None = None) -> Path:
    """Write train, validation and test as Parquet files of texts, a function or class each; returns the folder.

    A text is taken, and belongs to a split, by its hash: the same one is in the same split on every machine.

    Args:
        library: where the sources are; by default where the running Python's are.

    Raises:
        DataError: this Python comes without the sources of its standard library.
    """
    rows: dict[str, list[str]] = defaultdict(list)
    for text in sorted(set(_texts(library or Path(sysconfig.get_paths()["stdlib"])))):
        drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32
        split = next((name for name, share in zip(SHARES, accumulate(SHARES.values())) if drawn < share), None)
        if split is not None:
            rows[split].append(text)
    if len(rows) < len(SHARES):
        raise DataError("this Python comes without the sources of its standard library; use another one, or the demo on "
                        "digits.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in rows.items():
        table = Dataset.from_dict({"text": texts}, features=Features({"text": Value("string")}))
        table.to_parquet(folder / f"{name}.parquet")
    return folder


def _texts(library: Path) -> Iterator[str]:
    for file in sorted(library.rglob("*.py")):
        if _LEFT_OUT & set(file.relative_to(library).parts):
            continue
        try:
            source = file.read_bytes().decode("utf-8")
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # examples of what Python refuses
            continue
        lines = source.splitlines(keepends=True)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = "".join(lines[node.lineno - 1 : node.end_lineno])
                if _FEWEST <= len(text) <= _MOST:
                    yield text


def functions_teacher(
    folder: Path,
    texts: Sequence[str],
    *,
    vocabulary: int = 1024,
    layers: int = 3,
    width: int = 128,
    heads: int = 4,
    longest: int = 256,
    seed: int = 0,
) -> Path:
    """A Llama with random weights and a tokenizer learnt from `texts`, as a Hugging Face folder, to be trained.

    `longest` in tokens. The same seed and texts give the same files; global random state is left alone.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_learnt(texts, vocabulary), bos_token="<s>", eos_token="</s>",
                                        pad_token="<pad>", model_max_length=longest, clean_up_tokenization_spaces=False)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=longest, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _learnt(texts: Sequence[str], size: int) -> object:
    """Pairs of bytes, the most frequent first; a beginning of text is put before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<s>", "</s>", "<pad>"], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer
