"""Answers of no one shape go through all of evaluation and onto a page; it knows of none."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from stilla.errors import StillaError
from stilla.evaluate import Asked, Examined, chance, examine, is_weak, make_scores, slices_of
from stilla.evaluate.quality import Asked as Measured
from stilla.evaluate.quality import Resampling, bootstrap
from stilla.report import write_report
from stilla.scores import Cost, Scores
from stilla.signals import Side
from stilla.tasks.answers import Answers
from stilla.tasks.base import Prepared
from stilla.views import Mark, Text
from tests.evaluate.boxes import AVERAGE_PRECISION, NAMES, RECALL, BoxExam, Finder, Guess, prepared, split, truth_of
from tests.report import fakes
from tests.report.markup import Page

NUMBERS = [2, 0, 5, 1, 3, 3, 4, 2, 6, 1, 2]
SEEDS = {"teacher": 0.7, "student": 0.4, "onnx": 2.9}


def answered(numbers: list[int] = NUMBERS, *, batch_size: int = 3, together: bool = False) -> dict[str, Answers]:
    sides = {"teacher": Side.TEACHER}
    subjects = {name: Asked(Finder(seed), sides.get(name, Side.STUDENT)) for name, seed in SEEDS.items()}
    return examine(BoxExam(), subjects, prepared(numbers), batch_size=batch_size, together=together)


def scores() -> Scores:
    found = answered()
    answers = {name: {"test": [one]} for name, one in found.items()}
    return make_scores("boxes", {"test": split(NUMBERS)}, [Examined(BoxExam(), answers)], dict.fromkeys(found, Cost(1, 4)),
                       resamples=50)


def test_lists_are_sliced_and_exchanged_as_sums_are() -> None:
    found = answered()
    answers = {name: {"test": [one]} for name, one in {**found, "baseline": found["onnx"]}.items()}
    data = split(NUMBERS).add_column("many", [number > 2 for number in NUMBERS])
    made = make_scores("boxes", {"test": data}, [Examined(BoxExam(), answers)], dict.fromkeys(answers, Cost(1, 4)),
                       slices=slices_of(data, ["many"]), metric=AVERAGE_PRECISION.name, resamples=50)
    for part in made.slices:
        inside = [place for place, number in enumerate(NUMBERS) if str(number > 2).lower() == part.name]
        assert part.examples == len(inside)
        for name, (one,) in ((name, splits["test"]) for name, splits in answers.items()):
            given, references = ([many[place] for place in inside] for many in (one.given, one.references))
            assert part.quality[name].value == pytest.approx(AVERAGE_PRECISION.compute(given, references))
    assert made.tests["examples"].pairs == len(NUMBERS)


def named(guesses: list[Guess], number: int) -> list[str]:
    said = {thing: name for thing, name, _ in guesses}
    return [said.get(thing, "nothing") for thing in range(number)]


def test_every_example_has_its_own_list_whatever_the_batches() -> None:
    found = answered()
    for name, one in found.items():
        assert one.keys.tolist() == list(range(len(NUMBERS)))
        assert one.references == [truth_of(key, number) for key, number in enumerate(NUMBERS)]
        for key, number in enumerate(NUMBERS):
            (alone,) = examine(BoxExam(), {name: Asked(Finder(SEEDS[name]))}, _only(key, number)).values()
            assert [(thing, said, pytest.approx(score)) for thing, said, score in one.given[key]] == alone.given[0]
    assert len({len(one) for one in found["student"].given}) > 2
    for size in (1, 4, 50):
        again = answered(batch_size=size)
        assert [one.given for one in again.values()] == [
            [[(thing, name, pytest.approx(score)) for thing, name, score in guesses] for guesses in one.given]
            for one in found.values()]


def _only(key: int, number: int) -> Prepared:
    data = prepared([0] * key + [number])
    return replace(data, examples=torch.utils.data.Subset(data.examples, [key]), keys=data.keys[key:], lengths=[number],
                   references=data.references[key:])


def test_every_number_of_the_scores_is_that_of_the_lists() -> None:
    found, measured = answered(), scores()
    truth = [truth_of(key, number) for key, number in enumerate(NUMBERS)]
    said = {name: [named(guesses, number) for guesses, number in zip(one.given, NUMBERS)] for name, one in found.items()}
    for name, one in found.items():
        hits = sum(a == b for ours, names in zip(said[name], truth) for a, b in zip(ours, names))
        assert measured.subjects[name]["recall"] == pytest.approx(hits / sum(NUMBERS))
        ranked = [(score, truth[key][thing] == says) for key, guesses in enumerate(one.given)
                  for thing, says, score in guesses]
        ranked.sort(key=lambda guess: -guess[0])
        precisions = [sum(hit for _, hit in ranked[: rank + 1]) / (rank + 1) for rank, (_, hit) in enumerate(ranked) if hit]
        assert measured.subjects[name]["average_precision"] == pytest.approx(sum(precisions) / sum(NUMBERS))
    assert (measured.metric, measured.units, measured.decided) == ("average_precision", "boxes", sum(NUMBERS))
    assert measured.examples == {"test": len(NUMBERS)}
    same = [a == b for ours, theirs in zip(said["student"], said["teacher"]) for a, b in zip(ours, theirs)]
    assert measured.student.agreement["test"].value == pytest.approx(np.mean(same))
    assert measured.student.kl == {}
    assert sum(bar.count for bar in measured.student.calibration["test"].bins) == sum(NUMBERS)
    flips = [(f"{key}.{thing}", right, theirs, ours)
             for key, names in enumerate(truth)
             for thing, (right, theirs, ours) in enumerate(zip(names, said["teacher"][key], said["student"][key]))
             if theirs != ours]
    assert flips
    assert sorted((one.key, one.label, one.predictions["teacher"], one.predictions["student"]) for one in measured.flips) == \
        sorted(flips)
    assert measured.flipped["lost"] == sum(theirs == right for _, right, theirs, _ in flips)
    assert [one.name for one in measured.classes] == list(NAMES)
    assert measured.class_metric == "average_precision"


def test_a_flip_shows_the_thing_it_is_about(tmp_path: Path) -> None:
    measured = scores()
    for flip in measured.flips:
        key, _, thing = flip.key.partition(".")
        assert flip.shown == Text(" ".join(f"<thing{one}>" for one in range(NUMBERS[int(key)])),
                                  (Mark(9 * int(thing), 9 * int(thing) + 8, "here"),))
    measured.dump(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == measured


def test_a_page_shows_them_without_knowing_the_task(tmp_path: Path) -> None:
    measured = scores()
    found = Page(write_report(fakes.write_run(tmp_path / "run", measured)).read_text(encoding="utf-8"))
    assert f"of {sum(NUMBERS)} boxes" in found.text
    assert "average precision falls in" in found.text
    assert len(found.all("mark")) == len(measured.flips)
    assert all(f"<thing{flip.key.partition('.')[2]}>" in found.text for flip in measured.flips)


def test_the_bootstrap_of_a_list_recomputes_the_metric_on_repeated_examples() -> None:
    """Paired: both models are resampled together, and their difference is that of the same examples."""
    found, resampling = answered(), Resampling(len(NUMBERS), 40, seed=3)
    asked = {(name, metric.name): Measured(metric, [metric.statistics(found[name].given, found[name].references)])
             for name in ("teacher", "student") for metric in (AVERAGE_PRECISION, RECALL)}
    sampled = bootstrap(asked, resampling)
    difference = sampled["student", "average_precision"] - sampled["teacher", "average_precision"]
    for draw, weights in enumerate(np.concatenate(list(resampling.weights())).astype(int)):
        drawn = np.repeat(np.arange(len(NUMBERS)), weights)
        values = {}
        for name in ("teacher", "student"):
            repeated = [found[name].given[one] for one in drawn], [found[name].references[one] for one in drawn]
            values[name] = AVERAGE_PRECISION.compute(*repeated)
            assert sampled[name, "average_precision"].resamples[0, draw] == pytest.approx(values[name])
            assert sampled[name, "recall"].resamples[0, draw] == pytest.approx(RECALL.compute(*repeated))
        assert difference.resamples[0, draw] == pytest.approx(values["student"] - values["teacher"])
    assert len(set(difference.resamples[0])) > 10


def test_chance_is_what_lists_of_other_examples_reach() -> None:
    guesses = [[[(0, NAMES[key % 3], 0.9)] for key in range(60)], [[NAMES[key % 3]] for key in range(60)]]
    perfect = Answers(np.arange(60), *guesses)
    assert 0.2 < chance(BoxExam(), perfect, RECALL) < 0.5
    assert not is_weak(BoxExam(), perfect, resamples=100)


@pytest.mark.parametrize("answer", [[(0, "cat", float("nan"))], {"score": np.float32("inf")}, [np.array([1.0, np.nan])]])
def test_a_number_that_is_not_finite_is_found_in_any_answer(answer: object) -> None:
    good = [(0, "cat", 0.5), (1, "dog", 1)]
    with pytest.raises(StillaError, match=r"it: 1 of 3 predictions are NaN or infinite, first for examples 8\."):
        Answers(np.arange(7, 10), [good, answer, "text"], [[], [], []]).check_finite("it")


def _shared(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found = answered(together=True)
    plain = {name: {"keys": one.keys.tolist(), "given": one.given, "references": one.references}
             for name, one in found.items()}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(plain))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_that_share_the_work_all_get_every_list(tmp_path: Path) -> None:
    multiprocessing.spawn(_shared, args=(3, str(tmp_path)), nprocs=3)
    alone = {name: {"keys": one.keys.tolist(), "given": [[list(guess) for guess in guesses] for guesses in one.given],
                    "references": one.references} for name, one in answered().items()}
    for rank in range(3):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
