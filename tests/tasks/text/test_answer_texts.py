"""When answers are the same, against the official scripts' rules."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest

from stilla.tasks.text.answer_texts import best, f1, normalised
from tests.tasks.text import answerers


def official(text: str) -> str:
    """SQuAD's, as its script has it."""
    kept = "".join(one for one in text.lower() if one not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def official_f1(said: str, true: str) -> float:
    ours, theirs = official(said).split(), official(true).split()
    if not ours or not theirs:
        return float(ours == theirs)
    same = sum((Counter(ours) & Counter(theirs)).values())
    if not same:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(("said", "true", "worth"), [("", "", 1), ("", "cat", 0), ("cat", "", 0), ("the cat!", "cat", 1),
                                                     ("the", "", 1), ("black cat", "cat", 2 / 3)])
def test_values_by_hand(said: str, true: str, worth: float) -> None:
    assert f1(said, true) == pytest.approx(worth)


def test_english_is_as_the_official_script_has_it() -> None:
    texts = [*answerers.rows(60)["context"], "The U.S. (a) an-other", "a the an", "“quoted”", "It's 5%", ""]
    for said in texts:
        for true in texts[::7] + texts[-5:]:
            assert normalised(said) == official(said)
            assert f1(said, true) == pytest.approx(official_f1(said, true))


def test_chinese_is_compared_by_characters() -> None:
    assert f1("北京大学", "北京大学", "zh") == 1
    assert f1("北京大学", "北京大楼", "zh") == pytest.approx(0.75)
    assert f1("1998年", "1998", "zh") == pytest.approx(2 / 3)
    assert normalised("《红楼梦》，ABC", "zh") == "红 楼 梦 abc"
    assert f1("北京大学", "北京大楼") == 0  # by English rules it is one word


@pytest.mark.parametrize(("language", "said", "plain"), [
    ("de", "Das „Haus“ der Frau", "haus frau"), ("es", "¿La casa?", "casa"), ("vi", "Những người của tôi", "người tôi"),
    ("ar", "الكتاب", "كتاب"), ("hi", "किताब।", "किताब"), ("en", "“House”", "“house”")])
def test_every_language_has_its_articles_and_marks(language: str, said: str, plain: str) -> None:
    assert normalised(said, language) == plain  # type: ignore[arg-type]


def test_the_answer_that_fits_best_counts() -> None:
    assert best("black cat", ("cat", "black cat")) == (1.0, 1.0)
    assert best("", ()) == (1.0, 1.0)
    assert best("cat", ()) == (0.0, 0.0)
