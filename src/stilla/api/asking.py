"""The way of a question: is it stored? else wait for its turn, set its cost aside, note it, send it, store the answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from stilla.api.client import Client, PassingError, RejectedError
from stilla.api.costs import likely_tokens
from stilla.api.keys import key_of
from stilla.api.pace import Pace
from stilla.api.purse import Purse
from stilla.api.questions import Question
from stilla.api.store import REJECTED, Reply, Store
from stilla.errors import CompatibilityError, counted
from stilla.recipe.api import Api
from stilla.runtime.narrate import progress, say

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a question is asked again, the first time and at most; doubled each time, and drawn from the upper half."""
WORTH_A_STOP = 5
"""Rejections before the first answer, after which the recipe is at fault and not the questions."""
ALIKE = 20
"""Rejections in the same words with no answer between them, after which it is not the questions either: some servers say so
that nothing is paid for any more."""


@dataclass
class Asked:
    """What was asked now. `failures`: by what the server said, how many requests brought no answer; `cost`: of all."""

    requests: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0


def ask(api: Api, questions: Sequence[Question], store: Store) -> Asked:
    """Have every question answered that is not, into a store that is entered.

    Raises:
        RecipeError: there is no key.
        CeilingError: that may cost more than is left.
        CompatibilityError: the server refuses, or gives no answer after so many attempts.
    """
    left = list({one.key: one for one in questions if one.key not in store.replies}.values())
    if not left:
        return Asked()
    asking = _Asking(api, store, key_of(api), left)
    there = sum(one.key in store.replies for one in questions)
    say(f"teacher: {counted(len(left), 'request')} to {api.url}" + (f"; {there:,} are answered already" if there else ""))
    return _run(asking.all())


def _run(work: Coroutine[Any, Any, Asked]) -> Asked:
    """Also where a loop runs in this thread already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, work).result()


class _Asking:
    def __init__(self, api: Api, store: Store, key: str, left: Sequence[Question]) -> None:
        self.api = api
        self.store = store
        self.key = key
        self.left = list(reversed(left))  # the last is taken first
        self.number = len(left)
        self.done = Asked()
        self.pace = Pace(api.requests_per_minute, api.tokens_per_minute)
        self.purse = Purse(api.ceiling, store.spent)
        self.surplus = 0
        """Tokens that the server counts beyond what a question was thought to have at most."""
        self.failure: Exception | None = None
        self.answered = any(one.why != REJECTED for one in store.replies.values())
        """Whether the server takes questions such as these: else the recipe is at fault where it does not."""
        self.rejected: list[tuple[Question, Reply]] = []
        """Since the last answer; once there was one, in the same words."""

    async def all(self) -> Asked:
        with progress("asking the teacher", self.number) as advance:
            async with Client(self.api, self.key) as client, asyncio.TaskGroup() as tasks:
                for _ in range(min(self.api.concurrency, self.number)):
                    tasks.create_task(self._work(client, advance))
        if self.failure is not None:
            raise self.failure
        if self.rejected and not self.answered:
            raise self._unanswerable()
        self._keep_rejected()
        return self.done

    async def _work(self, client: Client, advance: Callable[..., None]) -> None:
        """Question after question. After a failure what is under way is still waited for: it is paid for."""
        while self.left and self.failure is None:
            question = self.left.pop()
            try:
                await self._settled(client, question)
            except Exception as error:  # a full disk too: by itself, not in a group of what tasks have raised
                self.failure = self.failure or error
            advance(1)

    async def _settled(self, client: Client, question: Question) -> None:
        """Raises:
            StillaError: nothing can be asked any more, or this question was not answered after all attempts.
        """
        tries = AsyncRetrying(stop=stop_after_attempt(self.api.attempts), retry=retry_if_exception_type(PassingError),
                              wait=_pause, reraise=True)
        try:
            await tries(self._once, client, question)
        except PassingError as error:
            raise CompatibilityError(
                f"{self.api.url}: no answer after {counted(self.api.attempts, 'attempt')}, the last: {error}. All answers so "
                "far are stored: the same run goes on where it stopped. More teacher.api.attempts, fewer at a time "
                "(concurrency, requests_per_minute) or a longer timeout may help") from None

    async def _once(self, client: Client, question: Question) -> None:
        await self.pace.turn(likely_tokens(question) + self.api.max_tokens)
        if self._is_over():
            return
        price, tokens = self.api.price, question.most + self.surplus
        most = 0.0 if price is None else price.of(tokens, self.api.max_tokens)
        await self.purse.reserve(most)
        if self._is_over():  # since, while there was no room
            await self.purse.settle(most, 0.0)
            return
        spent = most  # whatever happens: it may have been paid for
        try:
            self.store.begin(question.key, most)
            self.done.requests += 1
            reply = await client.ask(question)
            spent = self._cost(reply, most)
            self.surplus = max(self.surplus, (reply.asked or 0) - question.most)
            self.store.end(question.key, replace(reply, cost=spent), question.messages)
            self.answered = True
            self._keep_rejected()
        except RejectedError as error:
            spent = 0.0
            self.store.fail(question.key, 0.0)
            if self.answered and self.rejected and self.rejected[-1][1].refusal != str(error):
                self._keep_rejected()
            self.rejected.append((question, Reply("", REJECTED, str(error))))
            if len(self.rejected) >= (ALIKE if self.answered else WORTH_A_STOP):
                raise self._unanswerable() from None
        except PassingError as error:
            spent = most if error.paid else 0.0
            self.store.fail(question.key, spent)
            kind = str(error).partition(":")[0]
            self.done.failures[kind] = self.done.failures.get(kind, 0) + 1
            if error.after is not None:
                self.pace.rest(asyncio.get_running_loop().time() + error.after)
            raise
        except CompatibilityError:
            spent = 0.0
            self.store.fail(question.key, 0.0)
            raise
        finally:
            self.done.cost += spent
            await self.purse.settle(most, spent)

    def _is_over(self) -> bool:
        """Whether something has failed after which nothing more is asked."""
        return self.failure is not None

    def _cost(self, reply: Reply, most: float) -> float:
        """What the server counts; the most that it can be, where it does not."""
        if self.api.price is None:
            return 0.0
        return most if reply.asked is None or reply.answered is None else self.api.price.of(reply.asked, reply.answered)

    def _keep_rejected(self) -> None:
        for question, reply in self.rejected:
            self.store.end(question.key, reply, question.messages)
        self.rejected = []

    def _unanswerable(self) -> CompatibilityError:
        said = self.rejected[-1][1].refusal
        if self.answered:
            return CompatibilityError(
                f"{self.api.url}: the server has answered, and rejects {len(self.rejected)} questions in a row in the same "
                f"words: {said}. They are not stored, and the same run asks them again: mend what it speaks of (payment, "
                "limits of the account); if it is right about these examples, leave them out of the data")
        return CompatibilityError(f"{self.api.url}: the server takes none of the questions: {said}. "
                                  "Look at teacher.api (template, max_tokens, limit_as, temperature, body) and teacher.model")


def _pause(state: RetryCallState) -> float:
    """What the server asks for, and twice as long each time at least: it may say a time that is over by its clock, or that is
    too short for all who wait."""
    error = None if state.outcome is None else state.outcome.exception()
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(state.attempt_number - 1, 30))
    after = error.after if isinstance(error, PassingError) else None
    return max(longest * random.uniform(0.5, 1.0), after or 0.0)
