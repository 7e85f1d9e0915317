"""What the table of a plan says of students, as a person reads it."""

from __future__ import annotations

from typing import Any, cast

from stilla.check.estimate import Estimate
from stilla.check.planning import Plan, Planned
from stilla.report.planned import plan_table, what_decides
from stilla.students.candidates import Candidate


def of(*students: Planned, by: str | None = None) -> Plan:
    return Plan(Planned(Candidate({}, 1000), 4.0), students, by, "torch", (), cast(Estimate, cast(Any, None)), None)


def column(plan: Plan, key: str) -> list[str]:
    table = plan_table(plan)
    place = [one.key for one in table.columns].index(key)
    return [row.cells[place].text for row in table.rows]


def test_beside_a_narrower_student_the_others_have_all_their_neurons() -> None:
    narrower = of(Planned(Candidate(2, 500, ffn=0.75), 2.0), Planned(Candidate(1, 400), 1.0))
    assert column(narrower, "neurons") == ["100.0 %", "75.0 %", "100.0 %"]
    assert "neurons" not in [one.key for one in plan_table(of(Planned(Candidate(1, 400), 1.0))).columns]


def test_what_was_reached_is_named() -> None:
    assert what_decides(of(Planned(Candidate(1, 400), 1.0, 0.25), by="kl")).startswith("Reached: kl on validation data")
