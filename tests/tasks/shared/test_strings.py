"""Measures of texts against the libraries' own corpus scores."""

from __future__ import annotations

import importlib.util
import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from stilla.errors import RecipeError
from stilla.evaluate.quality import weighted
from stilla.recipe import TEXT_METRICS
from stilla.tasks.shared import strings

WORDS = ["the", "cat", "sat", "on", "a", "mat", ",", "and", "then", "it", "slept", ".", "Über", "café", "東京", "naïve"]


def corpus(size: int = 30, seed: int = 0) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(size)]
    texts = [" ".join(word if draw.random() < 0.8 else draw.choice(WORDS) for word in one.split()) for one in references]
    return np.array([*texts, "", references[0]]), np.array([*references, references[1], references[0]])


def found(name: str) -> Any:
    (metric,) = strings.find([name])
    return metric


def test_bleu_and_chrf_are_sacrebleus() -> None:
    texts, references = corpus()
    plain = [str(one) for one in texts], [[str(one) for one in references]]
    assert found("bleu").compute(texts, references) == pytest.approx(BLEU().corpus_score(*plain).score / 100, abs=1e-12)
    assert found("chrf").compute(texts, references) == pytest.approx(CHRF().corpus_score(*plain).score / 100, abs=1e-12)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_rouge_scores_on_english_and_knows_other_scripts(kind: str) -> None:
    texts, references = (np.array([one.encode("ascii", "ignore").decode() for one in side]) for side in corpus())
    scorer = RougeScorer([kind])
    expected = np.mean([scorer.score(str(b), str(a))[kind].fmeasure for a, b in zip(texts, references)])
    assert found(kind).compute(texts, references) == pytest.approx(expected, abs=1e-12)
    russian = np.array(["это очень хороший день"])
    assert found(kind).compute(russian, russian) == 1.0
    assert scorer.score(str(russian[0]), str(russian[0]))[kind].fmeasure == 0.0


def test_exact_match_ignores_spaces_around() -> None:
    assert found("exact_match").compute(np.array([" a b\n", "c"]), np.array(["a b", "d"])) == 0.5


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_resampling_by_sums_is_the_metric_of_the_drawn_texts(name: str) -> None:
    texts, references = corpus()
    metric = found(name)
    drawn = np.random.default_rng(0).integers(0, len(texts), (3, len(texts)))
    counts = np.stack([np.bincount(row, minlength=len(texts)) for row in drawn]).astype(np.float64)
    values = weighted(metric, metric.statistics(texts, references))(counts)
    expected = [metric.compute(texts[row], references[row]) for row in drawn]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def lengths_match(texts: list[str], references: list[str]) -> list[float]:
    return [float(len(text) == len(reference)) for text, reference in zip(texts, references)]


def one_number(texts: list[str], references: list[str]) -> float:
    return 1.0


def no_numbers(texts: list[str], references: list[str]) -> list[str]:
    return ["good"] * len(texts)


def failing(texts: list[str], references: list[str]) -> list[float]:
    raise ZeroDivisionError("no references")


NO_FUNCTION = 3


@pytest.mark.parametrize(("name", "said"), [
    ("no_numbers", r"no_numbers' gave what are no numbers \(.*\); expected one number per text"),
    ("failing", r"evaluate\.generation\.metrics: '.*:failing' raised ZeroDivisionError: no references"),
    ("NO_FUNCTION", r"NO_FUNCTION' is int; expected a function"),
])
def test_what_is_wrong_with_a_persons_function_is_said_as_theirs(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        found(f"{__name__}:{name}").compute(np.array(["ab", "abc"]), np.array(["cd", "c"]))


def test_a_persons_function_is_a_metric() -> None:
    metric = found(f"{__name__}:lengths_match")
    assert metric.name == "lengths_match"
    assert metric.compute(np.array(["ab", "abc"]), np.array(["cd", "c"])) == 0.5
    with pytest.raises(RecipeError, match=r"one_number' gave values of shape \(\) for 2 texts; expected one number per"):
        found(f"{__name__}:one_number").compute(np.array(["ab", "abc"]), np.array(["cd", "c"]))
    with pytest.raises(RecipeError, match="has no 'missing'"):
        found(f"{__name__}:missing")


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *rest: None if name == "sacrebleu" else real(name, *rest))
    with pytest.raises(RecipeError, match=r'bleu and chrf need sacrebleu, which is not installed: pip install "stilla\[met'):
        strings.find(["bleu", "chrf", "rougeL"])
    assert strings.missing_packages(["rougeL", "exact_match"]) == ""
