import math

import pytest

from stilla.errors import RecipeError
from stilla.recipe.schedule import Constant, Cosine, Linear, Steps, schedule


@pytest.mark.parametrize(
    ("plain", "at"),
    [
        (0.7, {0.0: 0.7, 0.5: 0.7, 1.0: 0.7}),
        (2, {0.3: 2.0}),
        ({"linear": [1.0, 0.0]}, {0.0: 1.0, 0.25: 0.75, 1.0: 0.0}),
        ({"cosine": [1.0, 0.2]}, {0.0: 1.0, 1 / 3: 0.8, 0.5: 0.6, 1.0: 0.2}),
        ({"steps": [[0.0, 1.0], [0.5, 0.2]]}, {0.0: 1.0, 0.49: 1.0, 0.5: 0.2, 1.0: 0.2}),
    ],
)
def test_a_schedule_has_the_values_that_its_form_says(plain, at):
    for progress, value in at.items():
        assert schedule(plain)(progress) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("plain", [{"linear": [1, 0]}, {"cosine": [1, 0]}, {"steps": [[0, 1], [0.9, 0]]}])
def test_progress_beyond_the_end_stays_at_the_end(plain):
    assert schedule(plain)(1.5) == schedule(plain)(1.0) == 0.0
    assert schedule(plain)(-0.1) == schedule(plain)(0.0) == 1.0


@pytest.mark.parametrize("one", [Constant(1.5), Linear(1, 0), Cosine(1, 0), Steps(((0.0, 1.0), (0.5, 2.0)))])
def test_a_schedule_written_plainly_reads_back_equal(one):
    assert schedule(one.plain()) == one
    assert schedule(one) is one


def test_values_are_what_bounds_the_schedule():
    assert schedule({"steps": [[0.0, 3.0], [0.5, -1.0]]}).values() == (3.0, -1.0)
    assert schedule({"cosine": [1.0, 4.0]}).values() == (1.0, 4.0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (True, "expected a number"),
        ("high", "expected a number"),
        (math.nan, "finite"),
        ({"liner": [1, 0]}, "Did you mean linear?"),
        ({"linear": [1]}, "[from, to]"),
        ({"linear": [1, True]}, "finite number"),
        ({"linear": [1, 0], "cosine": [1, 0]}, "expected a number or one of"),
        ({"steps": []}, "[[progress, value], ...]"),
        ({"steps": [[0.5, 1]]}, "rising numbers from 0.0"),
        ({"steps": [[0.0, 1], [0.0, 2]]}, "rising numbers"),
        ({"steps": [[0.0, 1], [1.5, 2]]}, "at most 1.0"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused(wrong, said):
    with pytest.raises(RecipeError) as caught:
        schedule(wrong)
    assert said in str(caught.value)
