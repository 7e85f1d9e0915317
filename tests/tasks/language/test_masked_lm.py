"""Masked language models: which tokens are hidden, from both models alike, and drawn from what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertJapaneseTokenizer, BertTokenizer

from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource
from stilla.rows import row_measures
from stilla.tasks.base import Prepared, Side
from stilla.tasks.forward import listen
from stilla.tasks.language.masked_lm import MaskedLM
from stilla.tasks.language.masking import Masking
from stilla.tasks.language.sections import MaskedLMData
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks.tiny_lm import bert_lm, bert_lm_tokenizer, byte_tokenizer, folder, llama, sentences

TEXTS = ["the cat played on the mat", "a dog", "playing eels and cats slept under the old log ."]


def prepared(texts: list[str], *, training: bool = False, seed: int = 0, **section: Any) -> tuple[MaskedLM, Prepared]:
    split = Dataset.from_dict({"text": texts})
    task = MaskedLM.understand(MaskedLMData(train="x", **section), {"train": split})
    return task, task.prepare(split, bert_lm_tokenizer(), None, training=training, seed=seed)


def labels(made: Prepared, rows: list[int] | None = None) -> list[list[int]]:
    return made.collate(list(range(len(made))) if rows is None else rows).labels.tolist()


def test_masks_depend_on_seed_epoch_and_text_alone() -> None:
    _, made = prepared(sentences(20), training=True)
    made.on_epoch(1)
    first = labels(made)
    made.on_epoch(2)
    second = labels(made)
    made.on_epoch(1)
    assert labels(made) == first != second
    (alone,) = labels(made, [5])
    assert first[5][: len(alone)] == alone
    _, other = prepared(sentences(20), training=True, seed=1)
    other.on_epoch(1)
    assert labels(other) != first


def test_what_is_measured_is_masked_the_same_way_every_time() -> None:
    made = [prepared(sentences(20), seed=seed)[1] for seed in (0, 1)]
    assert made[0].on_epoch is None
    assert labels(made[0]) == labels(made[1])


def test_masks_that_are_not_fresh_are_the_same_in_every_epoch_and_with_every_seed() -> None:
    made = [prepared(sentences(20), training=True, seed=seed, fresh_masks=False)[1] for seed in (0, 1)]
    assert made[0].on_epoch is None  # nothing that a cache would have to fear
    assert labels(made[0]) == labels(made[0]) == labels(made[1])


def test_teacher_and_student_see_the_same() -> None:
    _, made = prepared(TEXTS, training=True)
    batch = made.collate([0, 1, 2])
    assert batch.student is batch.teacher


def test_all_tokens_of_a_word_are_masked_together() -> None:
    tokenizer = bert_lm_tokenizer()
    _, made = prepared(["played playing plays"] * 60, training=True, mask=0.4)
    for row in labels(made):
        words = [row[1:3], row[3:5], row[5:7]]
        assert all((word[0] == NO_ROW) == (word[1] == NO_ROW) for word in words)
        assert sum(word[0] != NO_ROW for word in words) == 1
    _, made = prepared(["played playing plays"] * 60, training=True, mask=0.4, whole_words=False)
    assert any((row[1] == NO_ROW) != (row[2] == NO_ROW) for row in labels(made))
    assert tokenizer.cls_token_id not in {one for row in labels(made) for one in row}


def test_every_text_has_a_row() -> None:
    _, made = prepared(["a", "a dog"], mask=0.01)
    assert [sum(one != NO_ROW for one in row) for row in labels(made)] == [1, 1]


def test_of_the_chosen_most_are_hidden_some_replaced_and_the_rest_left() -> None:
    others = np.arange(10, 20, dtype=np.int32)
    masking = Masking(0.5, 4, others, 0)
    ids, words = np.full(4000, 30, np.int32), np.arange(4000, dtype=np.int32)
    words[0] = -1
    seen, wanted = masking(ids, words, epoch=0, piece=(0, 0))
    chosen = wanted != NO_ROW
    assert not chosen[0]
    assert (seen[~chosen] == 30).all()
    assert (wanted[chosen] == 30).all()
    shares = [(seen[chosen] == 4).mean(), np.isin(seen[chosen], others).mean(), (seen[chosen] == 30).mean()]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.03)
    assert chosen.mean() == pytest.approx(0.5, abs=0.01)


def test_long_texts_come_in_pieces_with_masks_of_their_own() -> None:
    _, made = prepared([" ".join(["cat"] * 30)], max_length=12)
    assert len(made) == 3
    assert made.keys.tolist() == [0, 0, 0]
    rows = labels(made)
    assert len({tuple(row) for row in rows}) > 1
    assert made.collate([0]).student["input_ids"].shape[1] == 12


def test_padding_has_no_influence() -> None:
    task, made = prepared(TEXTS)
    model = bert_lm()
    said = [listen(model, task, made.collate(rows), Side.STUDENT) for rows in ([1], [1, 2])]
    alone, beside = (row_measures(one.logits, one.labels).nll for one in said)
    assert torch.allclose(alone, beside[: len(alone)], atol=1e-5)
    assert task.counts(made.collate([1, 2]))["rows"] == len(beside)


def test_what_cannot_be_masked_is_refused(tmp_path: Path) -> None:
    task, _ = prepared(TEXTS)
    with pytest.raises(CompatibilityError, match="is a llama model"):
        task.load(ModelSource(model=folder(tmp_path / "llama", llama(), byte_tokenizer())), labelled=True)
    with pytest.raises(CompatibilityError, match="its tokenizer has no mask token"):
        task.load(ModelSource(model=folder(tmp_path / "bert", bert_lm(300), byte_tokenizer())), labelled=True)
    with pytest.raises(DataError, match=r"null or empty in 1 of 2.*row 1"):
        prepared(["a", " "])


# --- tokenizers that do not cut by themselves, or do it wrongly ---


def python_tokenizer(tmp_path: Path, length: int = 16) -> BertJapaneseTokenizer:
    """A character is a token; there is no fast tokenizer of this class."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]))
    return BertJapaneseTokenizer(str(vocabulary), word_tokenizer_type="basic", subword_tokenizer_type="character",
                                 model_max_length=length)


@pytest.mark.parametrize("letters", [3, 14, 15, 26])
def test_a_tokenizer_in_python_loses_nothing_of_a_long_text(tmp_path: Path, letters: int) -> None:
    own, text = python_tokenizer(tmp_path), " ".join("abcdefghijklmnopqrstuvwxyz"[:letters])
    split = Dataset.from_dict({"text": [text, "a b"]})
    task = MaskedLM.understand(MaskedLMData(train="x", max_length=16, whole_words=False), {"train": split})
    made = task.prepare(split, own, None, training=False)
    pieces = made.collate.pieces
    assert made.keys.tolist() == [0] * -(-letters // 14) + [1]
    first, last = own.cls_token_id, own.sep_token_id
    cut = [pieces.ids[start:end].tolist() for start, end in zip(pieces.starts, pieces.starts[1:])]
    assert all(len(piece) <= 16 and (piece[0], piece[-1]) == (first, last) for piece in cut)
    assert [token for piece in cut[:-1] for token in piece[1:-1]] == own(text, add_special_tokens=False)["input_ids"]
    assert cut[-1] == own("a b")["input_ids"]


def test_a_piece_has_room_for_more_than_its_special_tokens(tmp_path: Path) -> None:
    split = Dataset.from_dict({"text": ["a b c"]})
    task = MaskedLM.understand(MaskedLMData(train="x", max_length=2, whole_words=False), {"train": split})
    with pytest.raises(DataError, match=r"data\.max_length: got 2; expected more than the 2 special tokens"):
        task.prepare(split, python_tokenizer(tmp_path), None, training=False)


class Forgetful(BertTokenizer):
    """Gives of a long text its first piece alone."""

    def __call__(self, text, *args, **options):  # type: ignore[no-untyped-def]
        if not options.pop("return_overflowing_tokens", False):
            return super().__call__(text, *args, **options)
        made = super().__call__(text, *args, **options)
        made["overflow_to_sample_mapping"] = list(range(len(text)))
        return made


def test_a_tokenizer_that_loses_what_overflows_is_refused() -> None:
    own = bert_lm_tokenizer()
    forgetful = Forgetful(vocab=own.get_vocab(), model_max_length=32)
    split = Dataset.from_dict({"text": ["the cat sat on the mat and then slept under the log", "a dog"]})
    task = MaskedLM.understand(MaskedLMData(train="x", max_length=8), {"train": split})
    with pytest.raises(CompatibilityError, match=r"Forgetful loses tokens where it cuts .* of 12 it gives 6\."):
        task.prepare(split, forgetful, None, training=False)
    short = Dataset.from_dict({"text": ["a dog", "the cat sat on the mat"]})
    assert len(task.prepare(short, forgetful, None, training=False)) == 2
