"""Functions of a library as data, and the small Llama that learns from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from stilla.errors import DataError
from stilla.samples.library import functions, functions_teacher


@pytest.fixture
def library(tmp_path: Path) -> Path:
    made = tmp_path / "library"
    (made / "tests").mkdir(parents=True)
    body = "    # adds {0}, and says so\n    return value + {0}, 'added {0} to it'\n"
    names = [f"def number_{index}(value):\n{body.format(index)}" for index in range(300)]
    (made / "numbers.py").write_text("import os\n\n" + "\n\n".join(names))
    (made / "tests" / "test_numbers.py").write_text("def secret_test(value):\n    return value\n" * 5)
    (made / "broken.py").write_text("def half(:")
    return made


def read(folder: Path) -> dict[str, list[str]]:
    return {path.stem: list(Dataset.from_parquet(str(path), keep_in_memory=True)["text"])
            for path in folder.glob("*.parquet")}


def test_a_text_is_a_whole_function_and_in_one_split(library: Path, tmp_path: Path) -> None:
    found = read(functions(tmp_path / "data", library=library))
    assert set(found) == {"train", "validation", "test"}
    texts = [text for split in found.values() for text in split]
    assert len(texts) == len(set(texts))
    assert all(text.startswith("def number_") and text.endswith("it'\n") for text in texts)
    assert len(found["train"]) > 5 * len(found["test"]) > 0


def test_the_same_sources_give_the_same_data_and_the_same_teacher(library: Path, tmp_path: Path) -> None:
    texts = read(functions(tmp_path / "data", library=library))["train"]
    folders = [functions_teacher(tmp_path / name, texts, vocabulary=300, layers=1, width=16, heads=2) for name in "ab"]
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folders[0]), AutoTokenizer.from_pretrained(folders[0])
    ids = tokenizer(texts[0])["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == texts[0]
    assert model(input_ids=torch.tensor([ids])).logits.shape[-1] == len(tokenizer)


def test_a_python_without_sources_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without the sources"):
        functions(tmp_path / "data", library=tmp_path)
