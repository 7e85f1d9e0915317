"""Measures of written text against references, in sums over texts, so that resampling is a matrix product.

Answers and references of these metrics are (texts,) strings. All values lie in 0..1, sacreBLEU's a hundredth
of what it prints; tests compare them with the libraries' own corpus scores.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.errors import RecipeError, all_of
from stilla.recipe import TEXT_METRICS
from stilla.runtime.imports import own_function
from stilla.tasks.answers import Metric
from stilla.tasks.shared.transcripts import edits, normalised

Texts = Sequence[str] | NDArray[Any]
Numbers = NDArray[np.float64]

_ORDER = 4  # of BLEU's n-grams
_WORD = re.compile(r"[^\W_]+")


def find(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics by their names in a recipe, or `package.module:function`.

    Raises:
        RecipeError: packages are missing, or there is no such function.
    """
    if lacking := missing_packages(names):
        raise RecipeError(lacking)
    return tuple(_own(name) if name not in TEXT_METRICS else _MAKERS[name]() for name in names)


def missing_packages(names: Sequence[str]) -> str:
    """What these metrics need and this machine lacks, in words; nothing if they can be computed."""
    needed = {name: TEXT_METRICS.get(name) for name in names}
    lacking = {name: package for name, package in needed.items() if package and importlib.util.find_spec(package) is None}
    if not lacking:
        return ""
    packages = list(dict.fromkeys(package.replace("_", "-") for package in lacking.values()))
    return (f"evaluate.generation.metrics: {all_of(list(lacking))} need{'s' if len(lacking) == 1 else ''} "
            f"{all_of(packages)}, which {'is' if len(packages) == 1 else 'are'} not installed: "
            'pip install "stilla[metrics]"')


def _by_sums(name: str, statistics: Callable[[Texts, Texts], Numbers], from_sums: Callable[[Numbers], float],
             *, bounded: bool = True) -> Metric:
    return Metric(name, statistics, from_sums, bounded=bounded)


def _mean(sums: Numbers) -> float:
    """Of columns (value, 1)."""
    return float(sums[0] / sums[1])


def _counted(values: Sequence[Any]) -> Numbers:
    return np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)


# --- sacreBLEU ---


def _bleu() -> Metric:
    """Corpus BLEU (Papineni et al. 2002) as sacreBLEU computes it: 13a, case kept, exponential smoothing."""
    from sacrebleu.metrics import BLEU

    scorer = BLEU(effective_order=True)  # only silences a warning about single sentences; counts are the same

    def statistics(texts: Texts, references: Texts) -> Numbers:
        scores = [scorer.sentence_score(text, [reference]) for text, reference in zip(_plain(texts), _plain(references))]
        return np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in scores], np.float64)

    def from_sums(sums: Numbers) -> float:
        whole = [round(one) for one in sums]  # sums of counts, exact in float64
        said = BLEU.compute_bleu(whole[2:2 + _ORDER], whole[2 + _ORDER:], whole[0], whole[1], smooth_method="exp")
        return float(said.score) / 100

    return _by_sums("bleu", statistics, from_sums)


def _chrf() -> Metric:
    """chrF2 (Popovic 2015) as sacreBLEU computes it: n-grams of six characters, recall counts twice."""
    from sacrebleu.metrics import CHRF

    scorer = CHRF()

    # the class's protocol for its own significance tests; no public method gives a sentence's counts
    def statistics(texts: Texts, references: Texts) -> Numbers:
        return np.array(scorer._extract_corpus_statistics(_plain(texts), [_plain(references)]), np.float64)

    def from_sums(sums: Numbers) -> float:
        return float(scorer._compute_score_from_stats([round(one) for one in sums]).score) / 100

    return _by_sums("chrf", statistics, from_sums)


# --- ROUGE ---


class _Words:
    """rouge-score's own tokenizer drops every letter that is not English: other scripts would score 0."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def _rouge(kind: str) -> Metric:
    """F1 of one kind (Lin 2004) as rouge-score computes it, mean over texts."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], tokenizer=_Words())

    def statistics(texts: Texts, references: Texts) -> Numbers:
        pairs = zip(_plain(texts), _plain(references))
        return _counted([scorer.score(reference, text)[kind].fmeasure for text, reference in pairs])

    return _by_sums(kind, statistics, _mean)


# --- without packages ---


def _exact_match() -> Metric:
    def statistics(texts: Texts, references: Texts) -> Numbers:
        return _counted([text.strip() == reference.strip() for text, reference in zip(texts, references)])

    return _by_sums("exact_match", statistics, _mean)


def _wer() -> Metric:
    """Word error rate: edits of words by how many there are."""
    return _errors("wer", lambda text: text.split())


def _cer() -> Metric:
    """The same of characters."""
    return _errors("cer", lambda text: text)


def _errors(name: str, parts: Callable[[str], Sequence[str]]) -> Metric:
    """Of all texts together, so that a resample recomputes the ratio; of normalised texts (`transcripts.normalised`)."""
    def statistics(texts: Texts, references: Texts) -> Numbers:
        pairs = [(parts(normalised(text)), parts(normalised(right)))
                 for text, right in zip(_plain(texts), _plain(references), strict=True)]
        return np.array([(edits(ours, theirs), len(theirs)) for ours, theirs in pairs], np.float64).reshape(-1, 2)

    return Metric(name, statistics, lambda sums: float(sums[0] / sums[1]) if sums[1] else float("nan"),
                  higher_is_better=False, bounded=False, limits=(0.0, float("inf")))


def _own(path: str) -> Metric:
    """A person's function of all texts and references: one number per text, whose mean is the metric."""
    function = own_function(path, "evaluate.generation.metrics")

    def statistics(texts: Texts, references: Texts) -> Numbers:
        given = function(_plain(texts), _plain(references))
        try:
            values = np.asarray(given, np.float64)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"evaluate.generation.metrics: {path!r} gave what are no numbers ({error}); expected one "
                              "number per text") from error
        if values.shape != (len(texts),):
            raise RecipeError(f"evaluate.generation.metrics: {path!r} gave values of shape {values.shape} for "
                              f"{len(texts)} texts; expected one number per text")
        return _counted(values.tolist())

    return _by_sums(path.rpartition(":")[2], statistics, _mean, bounded=False)


def _plain(texts: Texts) -> list[str]:
    return [str(text) for text in texts]


_MAKERS: dict[str, Callable[[], Metric]] = {
    "bleu": _bleu,
    "chrf": _chrf,
    "rouge1": lambda: _rouge("rouge1"),
    "rouge2": lambda: _rouge("rouge2"),
    "rougeL": lambda: _rouge("rougeL"),
    "exact_match": _exact_match,
    "wer": _wer,
    "cer": _cer,
}
