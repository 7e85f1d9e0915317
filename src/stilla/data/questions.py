"""SQuAD's JSON, version 1 or 2: questions within paragraphs within articles, as a row for every question.

XQuAD, MLQA and many others have the same form (Rajpurkar et al. 2016, arXiv:1606.05250; 2018, arXiv:1806.03822).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def is_one(whole: Mapping[str, Any]) -> bool:
    """Whether a file's value has this form: an object whose `data` is a list of articles with paragraphs."""
    articles = whole.get("data")
    return isinstance(articles, list) and bool(articles) and all(
        isinstance(one, dict) and isinstance(one.get("paragraphs"), list) for one in articles)


def rows(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`id`, `title`, `context`, `question` and `answers` (`text`, `answer_start`) of every question, as Hugging Face's SQuAD
    has them. A question that is said to be impossible has no answers; plausible ones are none.

    Raises:
        ValueError: a part is missing or of another kind, with where it stands.
    """
    for number, article in enumerate(whole["data"]):
        for place, paragraph in enumerate(article["paragraphs"]):
            where = f"data[{number}].paragraphs[{place}]"
            context, questions = _of(paragraph, "context", str, where), _of(paragraph, "qas", list, where)
            for index, asked in enumerate(questions):
                inside = f"{where}.qas[{index}]"
                question = _of(asked, "question", str, inside)
                yield {"id": str(_of(asked, "id", str | int, inside)), "title": str(article.get("title") or ""),
                       "context": context, "question": question, "answers": _answers(asked, inside)}


def _answers(asked: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    said = asked.get("answers") or []
    if not isinstance(said, list):
        raise ValueError(f"{where}.answers is no list")
    if asked.get("is_impossible") and said:
        raise ValueError(f"{where} is_impossible and has answers; expected none (plausible_answers are not read)")
    return {"text": [_of(one, "text", str, f"{where}.answers[{index}]") for index, one in enumerate(said)],
            "answer_start": [_of(one, "answer_start", int, f"{where}.answers[{index}]") for index, one in enumerate(said)]}


def _of(value: Any, name: str, kind: Any, where: str) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get(name), kind) or isinstance(value.get(name), bool):
        raise ValueError(f"{where} has no {name!r}, or one of another kind; expected SQuAD's form")
    return value[name]
