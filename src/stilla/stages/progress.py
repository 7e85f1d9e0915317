"""Whether trainings were over when they ended: which were still getting better, and which ended early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from stilla.report.curves import StageLog, read_log
from stilla.scores import Best, Scores, metric_title
from stilla.training.converging import LATE, MUCH, Ending, late_progress


def still_growing(log: Path) -> Iterator[tuple[str, str]]:
    """Trainings, the teacher's among them, that made much of their progress in their last part: whose, and how much."""
    for stage in _first_seeds(log):
        if (ending := Ending.read(stage.extended)) is not None:
            if ending.verdict.why == "growing":
                yield stage.subject, f"{ending.said(metric_title(ending.measure))}; a higher limit (extend) may gain more"
            continue
        measure = "kl" if "kl" in stage.evaluations else next(iter(stage.evaluations), None)
        late = None if measure is None else late_progress(stage.evaluations[measure])
        if measure is not None and late is not None and late > MUCH:
            yield stage.subject, (f"made {late:.0%} of its progress in {metric_title(measure)} in its last {LATE:.0%}; a "
                                  "longer one may gain more")


def ended_early(log: Path) -> Iterator[tuple[str, str]]:
    """Trainings that patience ended before the steps that they were given: whose, and where."""
    for stage in _first_seeds(log):
        if stage.ended_at is not None and stage.ended_at < 1:
            yield stage.subject, f"ended after {stage.ended_at:.0%} of what it was given, as nothing became better"


def converged(log: Path) -> Iterator[tuple[str, str]]:
    """Trainings that might have gone on and ended before their limit: whose, after how much, and why."""
    for stage in _first_seeds(log):
        ending = Ending.read(stage.extended)
        if ending is not None and ending.verdict.why != "growing":
            yield stage.subject, ending.said(metric_title(ending.measure))


def best(log: Path) -> Iterator[tuple[str, Best]]:
    """Trainings that kept their best weights, and which these are: of several stages the last one's, if it kept them."""
    last = {(stage.subject, stage.seed): stage for stage in read_log(log)[0].stages}
    for (subject, seed), stage in last.items():
        try:
            if (which := stage.best) is not None:
                yield (f"{subject}-{seed}" if seed else subject), Best(
                    float(which["passes"]), float(which["of"]), str(which["metric"]), float(which["value"]))
        except (KeyError, TypeError, ValueError):
            continue  # of a log that somebody changed nobody knows


def said_in(scores: Scores, log: Path, ours: Sequence[str]) -> Scores:
    """The scores with why the trainings of these subjects ended, what that leaves open, and which weights were kept."""
    found = [f"training {'on labels alone' if subject == 'baseline' else f'of the {subject}'}: it {said}"
             for subject, said in (*ended_early(log), *converged(log), *still_growing(log)) if subject in ours]
    kept = {name: one for name, one in best(log) if name.partition("-")[0] in ours}
    return replace(scores, notes=(*scores.notes, *found), best=kept)


def _first_seeds(log: Path) -> Iterator[StageLog]:
    return (stage for stage in read_log(log)[0].stages if not stage.seed)
