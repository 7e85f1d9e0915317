"""What the log says is drawn, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stilla.report.charts.lines import Line, lines
from stilla.report.charts.marks import Style
from stilla.report.charts.scatter import Axis, Point, place_labels, scatter, side_by_side
from stilla.report.charts.svg import Scale, padded, padded_log, tag, tick_text
from stilla.report.curves import read_log, thinned
from stilla.runtime.files import line_of


def write(folder: Path, *lines: object) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_a_step_that_was_repeated_after_resuming_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path, *({"stage": "student", "step": step, "loss": loss}
                             for step, loss in ((10, 3.0), (20, 2.0), (30, 1.0), (20, 2.5), (30, 1.5))))
    training, unread = read_log(path)
    assert unread == 0
    assert training.stages[0].losses["total"] == [(10, 3.0), (20, 2.5), (30, 1.5)]


def test_half_a_line_of_a_killed_run_is_counted_and_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, {"stage": "student", "step": 1, "loss": 1.0}, '{"stage": "stud')
    training, unread = read_log(path)
    assert unread == 1
    assert len(training.stages) == 1


def test_losses_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, '{"stage": "student", "step": 1, "loss": NaN, "terms": {"labels": null}}\n',
                 {"stage": "student", "step": 2, "loss": 1.0, "terms": {"labels": 1.0}})
    training, _ = read_log(path)
    assert training.stages[0].losses == {"total": [(2, 1.0)], "labels": [(2, 1.0)]}


@pytest.mark.parametrize(("name", "parts"), [
    ("student", ("student", "", "")), ("student-1", ("student", "1", "")),
    ("student-seed2", ("student", "2", "")),
    ("baseline-2.0", ("baseline", "2", "0")), ("student.1", ("student", "", "1")),
])
def test_a_stages_name_says_subject_seed_and_part(tmp_path: Path, name: str, parts: tuple[str, ...]) -> None:
    training, _ = read_log(write(tmp_path, {"stage": name, "step": 1, "loss": 1.0}))
    log = training.stages[0]
    assert (log.subject, log.seed, log.part) == parts


def test_seeds_of_a_stage_belong_together(tmp_path: Path) -> None:
    lines = [{"stage": name, "step": 1, "loss": 1.0}
             for name in ("teacher", "student", "student-1", "student-2")]
    training, _ = read_log(write(tmp_path, *lines))
    assert {stage: len(logs) for stage, logs in training.by_stage().items()} == {
        ("teacher", ""): 1, ("student", ""): 3}


def test_thinning_keeps_the_mean_and_the_last_step() -> None:
    points = [(float(step), float(step % 7)) for step in range(1000)]
    thin = thinned(points, 200)
    assert len(thin) == 200
    assert thin[-1][0] == 999
    assert sum(value for _, value in thin) / 200 == pytest.approx(sum(value for _, value in points) / 1000)


def test_ticks_are_round_and_inside() -> None:
    scale = Scale(0.913, 0.968, 300, 30)
    assert scale.ticks() == [0.92, 0.93, 0.94, 0.95, 0.96]
    assert tick_text(scale)(scale.ticks()[0]) == "0.92"
    assert Scale(1.7, 120.0, 0, 400, logarithmic=True).ticks()[0] == 3


def test_a_quality_that_stands_still_has_ticks_of_few_decimals() -> None:
    chart = lines([Line("student", "student", [(20, 60.0), (40, 60.0)])], "accuracy (%)", "", from_zero=False,
                  limits=(0.0, 100.0))
    assert "60.000" not in chart
    assert ">60.0<" in chart


def test_models_of_the_same_cost_have_ticks_of_few_decimals() -> None:
    points = [Point(0.153868, 63.3, 50.0, 75.0, Style("teacher", "square"), ""),
              Point(0.153868, 33.3, 21.7, 45.0, Style("student", "circle"), "")]
    ticks = re.findall(r'class="tick[^>]*>([^<]+)<', scatter(points, Axis("megabytes"), Axis("accuracy (%)"), ""))
    assert max(len(tick) for tick in ticks) <= 5, ticks


def test_a_scale_of_equal_values_is_not_empty() -> None:
    for scale in (padded([0.5, 0.5], 0, 100), padded([0.0], 0, 100), padded_log([3.0, 3.0], 0, 100),
                  padded([100.0], 0, 100, limits=(0.0, 100.0))):
        assert scale.low < scale.high
        assert scale.ticks()


def test_models_of_the_same_cost_do_not_hide_each_other() -> None:
    assert side_by_side([100.0, 300.0, 301.0]) == [0.0, -5.0, 5.0]


def test_labels_do_not_cover_each_other() -> None:
    anchors = [(200.0, 150.0, "student"), (204.0, 152.0, "ONNX"), (198.0, 160.0, "labels alone")]
    boxes = [place.box for place in place_labels(anchors, [])]
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_attributes_and_children_are_escaped() -> None:
    assert tag("text", "<b>", data_tip='"&') == '<text data-tip="&#34;&amp;">&lt;b&gt;</text>'


def test_a_line_in_which_a_digit_has_changed_is_left_out(tmp_path: Path) -> None:
    line = line_of({"stage": "student", "step": 10, "loss": 0.51})
    (tmp_path / "log.jsonl").write_text(line + line.replace("0.51", "0.41").replace('"step": 10', '"step": 20'))
    training, unread = read_log(tmp_path / "log.jsonl")
    assert unread == 1
    assert list(training.stages[0].losses["total"]) == [(10.0, 0.51)]
