"""Edits and normalising, against jiwer and by hand."""

from __future__ import annotations

import random

import jiwer
import numpy as np
import pytest

from stilla.tasks.audio.speech_exam import speech_metrics
from stilla.tasks.shared.transcripts import aligned, differing, edits, normalised


@pytest.mark.parametrize(("text", "expected"), [
    ("Hello,  World!", "hello world"), ("don’t STOP", "don't stop"), ("हिन्दी में बात।", "हिन्दी में बात"),
    ("ภาษาไทยที่นี่", "ภาษาไทยที่นี่"), ("cafe\u0301 naïve", "café naïve"), ("Straße 42", "strasse 42"), (" — ", ""),
    ("'He said 'don't', 'o.k.'", "he said don't o k"), ("the dogs’ ' bowl", "the dogs bowl"),
    ("\ufeffhyphen\u00adated \u200fשלום", "hyphenated שלום"), ("می\u200cخواهم", "می\u200cخواهم"),
])
def test_every_scripts_marks_stay_and_punctuation_goes(text: str, expected: str) -> None:
    assert normalised(text) == expected


def test_edits_are_levenshteins() -> None:
    assert edits("kitten", "sitting") == 3
    assert edits("", "abc") == 3
    assert edits("abc", "") == 3
    assert edits([], []) == 0
    draw = random.Random(0)

    def plain(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(plain(a[1:], b) + 1, plain(a, b[1:]) + 1, plain(a[1:], b[1:]) + (a[0] != b[0]))

    for _ in range(40):
        one, other = ("".join(draw.choices("abc", k=draw.randint(0, 5))) for _ in range(2))
        assert edits(one, other) == plain(one, other)


def test_words_are_aligned_with_the_fewest_edits() -> None:
    assert aligned(["a", "x", "c", "d"], ["a", "b", "c"]) == ["a", "x", "c"]
    assert aligned(["c"], ["a", "b", "c"]) == [None, None, "c"]
    assert aligned([], ["a"]) == [None]
    assert differing(["a", "x", "c", "d"], ["a", "b", "c"]) == [1, 3]
    assert differing(["a", "b"], ["a", "b"]) == []
    draw = random.Random(1)
    for _ in range(50):
        said, right = (draw.choices("abc", k=draw.randint(0, 6)) for _ in range(2))
        places = aligned(said, right)
        deleted = sum(one is None for one in places)
        replaced = sum(one not in (None, word) for one, word in zip(places, right))
        extra = len(differing(said, right)) - replaced
        assert deleted + replaced + extra == edits(said, right)


def test_error_rates_are_jiwers_of_all_utterances_together() -> None:
    right = ["one two three", "four", "five six"]
    heard = [("one too three four", 0.0), ("", 0.0), ("five six", 0.0)]
    wer, cer, exact = speech_metrics()
    said = [text for text, _ in heard]
    assert wer.compute(heard, right) == pytest.approx(jiwer.wer(right, said))
    assert cer.compute(heard, right) == pytest.approx(jiwer.cer(right, said))
    assert exact.compute(heard, right) == pytest.approx(1 / 3)
    assert not wer.higher_is_better


def test_a_resample_recomputes_the_ratio() -> None:
    wer = speech_metrics()[0]
    heard, right = [("a", 0.0), ("x y", 0.0)], ["a b c d", "x z"]
    statistics = np.asarray(wer.statistics(heard, right))
    assert statistics.tolist() == [[3, 4], [1, 2]]
    assert wer.from_sums is not None
    assert wer.from_sums(np.array([0, 3]) @ statistics) == pytest.approx(0.5)  # of the second thrice
    assert wer.compute([("a a a", 0.0)], ["b"]) == 3.0  # above 1, where too much is said
