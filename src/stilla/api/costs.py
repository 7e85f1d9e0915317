"""What questions will cost, before they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stilla.api.questions import Question
from stilla.api.store import Reply, Store
from stilla.errors import counted
from stilla.recipe.api import Api

BYTES_PER_TOKEN = 4
"""Of English prose, about; other languages and code take more tokens."""


@dataclass(frozen=True)
class Forecast:
    """`requests`: still to be sent, of so many in `all`. Tokens likely, and at most; costs likewise, None without a price.
    `spent`: so far, beside `unknown` answers of which nobody knows what they cost."""

    requests: int
    all: int
    asked: int
    answered: int
    most_asked: int
    most_answered: int
    likely: float | None
    most: float | None
    spent: float = 0.0
    unknown: int = 0

    def __str__(self) -> str:
        stored = self.all - self.requests
        said = counted(self.requests, "request") + (f" ({stored:,} more are answered already)" if stored else "")
        said += f", about {counted(self.asked, 'token')} asked and {self.answered:,} answered"
        said += f" (at most {self.most_answered:,})"
        if self.likely is None or self.most is None:
            return f"{said}; what that costs is not known without teacher.api.price"
        before = f", beside {self.spent:.4g} spent before" if self.spent else ""
        if self.unknown:
            before += f"; what {counted(self.unknown, 'stored answer')} cost is not known, and in no ceiling"
        return f"{said}: about {self.likely:.4g}, at most {self.most:.4g}{before}"


def likely_tokens(question: Question) -> int:
    """Of what is asked."""
    return question.bytes // BYTES_PER_TOKEN + 4 * len(question.messages)


def forecast(api: Api, questions: Sequence[Question], store: Store) -> Forecast:
    """Of those that are not stored. Answers are taken to be as long as the stored ones, or as `max_tokens` where there are
    none."""
    questions = list({one.key: one for one in questions}.values())  # the same is asked once
    left = [one for one in questions if one.key not in store.replies]
    asked, most_asked = sum(map(likely_tokens, left)), sum(one.most for one in left)
    answered, most_answered = round(_length(api, list(store.replies.values())) * len(left)), api.max_tokens * len(left)
    price = api.price
    return Forecast(len(left), len(questions), asked, answered, most_asked, most_answered,
                    None if price is None else price.of(asked, answered),
                    None if price is None else price.of(most_asked, most_answered), store.spent, store.unknown)


def _length(api: Api, replies: Sequence[Reply]) -> float:
    known = [one.answered for one in replies if one.answered is not None]
    return sum(known) / len(known) if known else api.max_tokens
