"""What the table of a plan says of students, as a person reads it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from stilla.check.estimate import Estimate
from stilla.check.planning import Plan, Planned
from stilla.report.planned import plan_table, what_decides, write_plan
from stilla.students.candidates import Candidate


class NoCosts:
    """Of an estimate, which a page shows as it is."""

    def lines(self) -> list[tuple[str, str]]:
        return []


def of(*students: Planned, by: str | None = None, notes: tuple[str, ...] = ()) -> Plan:
    return Plan(Planned(Candidate({}, 1000), 4.0), students, by, "torch", notes, cast(Estimate, NoCosts()), None)


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


def test_what_stands_between_backticks_is_code_on_the_page(tmp_path: Path) -> None:
    """Also where it is markup, which stays text."""
    notes = ("use `<b>bold</b>` & `layers: 2`", "a single ` is one")
    found = of(Planned(Candidate(1, 400), 1.0), notes=notes)
    page = write_plan(found, "x", tmp_path / "plan.html").read_text(encoding="utf-8")
    assert "a run with a limit (<code>student: {size: 0.33}</code>) tries the best" in page
    assert "<li>use <code>&lt;b&gt;bold&lt;/b&gt;</code> &amp; <code>layers: 2</code></li>" in page
    assert "<li>a single ` is one</li>" in page
