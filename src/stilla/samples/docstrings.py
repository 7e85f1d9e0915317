"""What Python's own standard library says about itself: docstrings, by the topic of their module.

Read from the sources of the running interpreter, so that nothing has to be downloaded; the texts are covered
by Python's licence (PSF-2.0) and differ a little between versions of Python. Nothing is imported or run.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from datasets import ClassLabel, Dataset, Features, Value

from stilla.errors import DataError

TOPICS: Mapping[str, tuple[str, ...]] = {
    "asyncio": ("asyncio",),
    "containers": (
        "collections", "_collections_abc", "operator", "heapq", "bisect", "functools", "itertools", "enum",
        "weakref", "_weakrefset", "copy", "types", "dataclasses", "contextlib",
    ),
    "files": (
        "tarfile", "zipfile", "shutil", "pathlib", "tempfile", "gzip", "bz2", "lzma", "os", "posixpath",
        "ntpath", "genericpath", "_pyio", "io", "fileinput", "glob", "fnmatch", "filecmp", "stat",
    ),
    "importing": ("importlib", "pkgutil", "zipimport", "runpy", "modulefinder", "site", "sysconfig", "venv"),
    "introspection": (
        "inspect", "pydoc", "ast", "dis", "typing", "traceback", "pdb", "bdb", "symtable", "tokenize",
        "trace", "tracemalloc", "linecache", "pickletools", "warnings",
    ),
    "logging": ("logging",),
    "mail": ("email", "mailbox", "smtplib", "imaplib", "poplib", "mimetypes"),
    "numbers": (
        "_pydecimal", "decimal", "fractions", "statistics", "random", "numbers", "datetime", "_pydatetime",
        "calendar", "_strptime", "colorsys",
    ),
    "processes": ("multiprocessing", "concurrent", "threading", "subprocess", "queue", "sched", "selectors"),
    "testing": ("unittest", "doctest"),
    "web": (
        "http", "urllib", "wsgiref", "webbrowser", "socketserver", "socket", "ssl", "ftplib", "cgi",
        "ipaddress", "xmlrpc",
    ),
    "xml": ("xml", "html"),
}  # fmt: skip
"""Modules and packages of each topic; what a version of Python lacks is passed over."""

WORDS = 32
"""A text is cut to so many words."""

_FEWEST_WORDS = 4
_FEWEST_TEXTS = 40
_MODULES = sorted({module.strip("_") for modules in TOPICS.values() for module in modules} - {"os", "io"})
_LEAK = re.compile(rf"\b(?:{'|'.join(_MODULES)})(?:\.\w+)*\b", re.IGNORECASE)
_PROMPT = re.compile(r"^\s*(>>>|\.\.\. ).*$", re.MULTILINE)


def docstrings(folder: Path, *, library: Path | None = None) -> Path:
    """Write train, validation and test as Parquet files of texts and topics; returns the folder.

    Modules' names are taken out, as they would give the topic away. A text belongs to a split by its hash, so
    the same text is in the same split on every machine and in every version of Python.

    Args:
        library: where the sources are; by default where the running Python's are.

    Raises:
        DataError: this Python comes without the sources of its standard library.
    """
    texts = collect(library or Path(sysconfig.get_paths()["stdlib"]))
    topics = [topic for topic, count in Counter(texts.values()).items() if count >= _FEWEST_TEXTS]
    if len(topics) < 2:
        raise DataError("this Python comes without the sources of its standard library; use another one, or "
                        "the demo on digits.")
    features = Features({"text": Value("string"), "topic": ClassLabel(names=sorted(topics))})
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for text, topic in sorted(texts.items()):
        if topic in topics:
            rows[_split_of(text)].append((text, topic))
    for name, pairs in rows.items():
        columns = {"text": [text for text, _ in pairs], "topic": [topic for _, topic in pairs]}
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"{name}.parquet")
    return folder


def collect(library: Path) -> dict[str, str]:
    """Every text with its topic; what stands in modules of several topics is left out."""
    topics: dict[str, set[str]] = defaultdict(set)
    for topic, modules in TOPICS.items():
        for module in modules:
            for text in _texts_of(library, module):
                topics[text].add(topic)
    return {text: next(iter(found)) for text, found in topics.items() if len(found) == 1}


def _texts_of(library: Path, module: str) -> Iterator[str]:
    files = sorted((library / module).rglob("*.py")) or [library / f"{module}.py"]
    for file in files:
        parts = file.relative_to(library).parts
        if not file.is_file() or "test" in parts or "tests" in parts:
            continue
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = _cleaned(ast.get_docstring(node) or "")
                if len(text.split()) >= _FEWEST_WORDS:
                    yield text


def _cleaned(text: str) -> str:
    """Prose on one line, without examples at the prompt and without modules' names."""
    prose = _LEAK.sub("", _PROMPT.sub("", text))
    return " ".join(prose.split()[:WORDS])


def _split_of(text: str) -> str:
    share = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32
    return "test" if share < 0.2 else "validation" if share < 0.3 else "train"


def docstrings_teacher(
    folder: Path,
    texts: Sequence[str],
    *,
    vocabulary: int = 4000,
    layers: int = 6,
    width: int = 128,
    heads: int = 4,
    longest: int = 64,
    seed: int = 0,
) -> Path:
    """A BERT with random weights and a tokenizer learnt from `texts`, as a Hugging Face folder, to be
    trained.

    `longest` in tokens. The same seed and texts give the same files; global random state is left alone.
    """
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    pieces = _vocabulary(texts, vocabulary)
    tokenizer = BertTokenizer(vocab=pieces, model_max_length=longest)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=longest,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _vocabulary(texts: Sequence[str], size: int) -> dict[str, int]:
    """Word pieces by frequency: every character, then an eighth of endings, then whole words.

    Counted here, because the trainers of `tokenizers` number their pieces anew on every run.
    """
    from tokenizers import normalizers, pre_tokenizers

    lower, cut = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in cut.pre_tokenize_str(lower.normalize_str(text)))
    endings: Counter[str] = Counter()
    for word, count in words.items():
        endings.update({f"##{word[start:]}": count for start in range(max(1, len(word) - 5), len(word))})
    characters = sorted({character for word in words for character in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    pieces += [f"##{character}" for character in characters]
    pieces += _most_frequent(endings)[: size // 8] + _most_frequent(words)
    return {piece: index for index, piece in enumerate(list(dict.fromkeys(pieces))[:size])}


def _most_frequent(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda piece: (-counts[piece], piece))
