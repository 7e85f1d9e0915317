"""A program of several processes that fails fails its test, with what it said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.equivalence.launching import launch


@pytest.mark.slow
def test_what_a_process_said_that_failed_is_told_and_the_others_are_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ValueError: invalid literal for int"):
        launch(tmp_path / "two", 2, "tests.equivalence.setting", "not a number of examples", 2, 2)
