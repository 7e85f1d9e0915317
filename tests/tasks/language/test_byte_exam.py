from __future__ import annotations

import math

import numpy as np

from stilla.tasks.answers import Answers
from stilla.tasks.language.byte_exam import BITS_PER_BYTE, ByteExam
from stilla.tasks.language.causal_lm import CausalLM


def test_pieces_of_a_long_text_are_one_answer() -> None:
    exam = ByteExam(CausalLM())
    given = np.array([[8.0, 4], [2.0, 2], [6.0, 2], [3.0, 3]])
    found = exam.finished(Answers(np.array([0, 0, 2, 0]), given, np.array([[1, -100], [2, 3], [4, -100], [5, 6]])))
    assert found.keys.tolist() == [0, 2]
    assert np.asarray(found.given).tolist() == [[13, 9], [6, 2]]
    assert np.asarray(found.references).tolist() == [[1, -100], [4, -100]]


def test_it_is_bits_over_bytes_of_all_texts_and_eight_where_nothing_is_known() -> None:
    given = np.array([[13.0, 9], [6.0, 2]])
    assert BITS_PER_BYTE.compute(given, None) == 19 / 11
    assert not BITS_PER_BYTE.higher_is_better
    no_idea = np.array([[length * math.log2(256), length] for length in (3, 50)])
    assert BITS_PER_BYTE.compute(no_idea, None) == 8
