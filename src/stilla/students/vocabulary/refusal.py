"""How every refusal of a smaller vocabulary begins and ends."""

from __future__ import annotations

from stilla.errors import CompatibilityError


def refusal(why: str) -> CompatibilityError:
    """`why`: what is in the way, and what else can be done about it."""
    return CompatibilityError(f"student.vocabulary: {why}. Leave vocabulary out")
