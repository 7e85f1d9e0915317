"""What the arms reached, as ratios of the gap between the best labels alone and the teacher, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.gap.arms import LABELS
from benchmarks.gap.runs import JUDGED, Kept
from benchmarks.tables import markdown
from stilla.evaluate.quality import Asked, Resampling, Sampled, bootstrap
from stilla.scores import Interval
from stilla.tasks.answers import Metric

MISSING = "–"


def sampled(metric: Metric, seeds: Sequence[Kept], split: str) -> Sampled:
    """The metric of every seed, and of every seed on the same resamples of the examples."""
    statistics = [one.statistics[split] for one in seeds]
    return bootstrap({"": Asked(metric, statistics)}, Resampling(len(statistics[0])))[""]


def best_baseline(metric: Metric, arms: Mapping[str, Sequence[Kept]]) -> str | None:
    """By validation data, the mean of its seeds."""
    found = {name: float(np.mean([metric.of(one.statistics["validation"]) for one in seeds]))
             for name, seeds in arms.items() if name in LABELS}
    if not found:
        return None
    return max(found, key=lambda name: found[name] if metric.higher_is_better else -found[name])


def gap_table(metric: Metric, teacher: Kept, arms: Mapping[str, Sequence[Kept]]) -> str:
    """A line an arm: validation, test, what it is above the best baseline, and the ratio."""
    best = best_baseline(metric, arms)
    theirs = sampled(metric, [teacher], "test")
    floor = sampled(metric, arms[best], "test") if best is not None else None
    rows = [["teacher", f"{teacher.parameters / 1e6:.1f} M", "", *_both(metric, [teacher]), MISSING, MISSING, ""]]
    for name, seeds in arms.items():
        ours = sampled(metric, seeds, "test")
        above = ratio = MISSING
        if floor is not None and name != best:
            above = _signed(metric, (ours - floor).interval())
            ratio = _ratio(metric, ours, floor, theirs)
        rows.append([f"**{name}**" if name == best else name, f"{seeds[0].parameters / 1e6:.1f} M", str(len(seeds)),
                     *_both(metric, seeds), above, ratio, f"{np.mean([one.seconds for one in seeds]):.0f}"])
    return markdown(["", "parameters", "seeds", *JUDGED, "above the best labels", "ratio", "s of processor"], rows)


def _ratio(metric: Metric, ours: Sampled, floor: Sampled, theirs: Sampled) -> str:
    gap = theirs - floor
    between = gap.interval()
    if not (between.low > 0 or between.high < 0):
        return "not measurable"
    if (gap.value > 0) is not metric.higher_is_better:
        return "the teacher is behind labels alone"
    share = ours - floor
    drawn = share.resamples.mean(0) / np.where(gap.resamples.mean(0) == 0, np.nan, gap.resamples.mean(0))
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return f"{share.value / gap.value:.2f} [{low:.2f}, {high:.2f}]"


def _both(metric: Metric, seeds: Sequence[Kept]) -> list[str]:
    return [f"{np.mean([metric.of(one.statistics[split]) for one in seeds]) * _factor(metric):.2f}" for split in JUDGED]


def _signed(metric: Metric, found: Interval) -> str:
    return " ".join([f"{_factor(metric) * found.value:+.2f}",
                     f"[{_factor(metric) * found.low:+.2f}, {_factor(metric) * found.high:+.2f}]"])


def _factor(metric: Metric) -> int:
    """Shares are shown in points."""
    return 100 if metric.bounded else 1
