"""One request to a server that speaks OpenAI's chat completions: an answer, or in what way there is none.

The key is sent, and cut out of everything that comes back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

import httpx2 as httpx

from stilla.api.keys import is_local
from stilla.api.questions import Question
from stilla.api.store import Reply
from stilla.errors import CompatibilityError, brief
from stilla.recipe.api import Api
from stilla.secrets import HIDDEN, however_written

BUSY = frozenset({408, 409, 425, 429})
"""Beside those from 500 on: the same request may be answered later."""
GATEWAYS = frozenset({502, 504, 520, 522, 524})
"""Said by what stands before the server, which may be answering still or have answered; from 520 on, Cloudflare."""
OF_THE_QUESTION = frozenset({400, 413, 422})
"""This question cannot be answered; another may be."""
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NEVER = -9999.0
"""As some servers write the logarithm of 0."""
_MOST_TOKENS = 10**12
"""Of one request: what is more is no count."""
LONGEST_REST = 600.0
"""Seconds that a server is obeyed for at a time."""


class PassingError(Exception):
    """No answer this time. `after`: seconds that the server asks for. `paid`: the server may have worked for it."""

    def __init__(self, said: str, *, after: float | None = None, paid: bool = False) -> None:
        super().__init__(said)
        self.after = after
        self.paid = paid


class RejectedError(Exception):
    """The server does not answer this question."""


class Client:
    """Connections to the server, as long as it is entered."""

    def __init__(self, api: Api, key: str) -> None:
        self._api = api
        self._key = key
        self._written = however_written(key) if key else None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # certificates take a tenth of a second to read, and nobody asks for them without TLS; redirects are not followed.
        # A proxy (HTTP_PROXY) would read what goes to this machine unencrypted, the key with it
        self._http = httpx.AsyncClient(headers=headers, timeout=api.timeout, verify=api.url.startswith("https:"),
                                       limits=httpx.Limits(max_connections=api.concurrency), trust_env=not is_local(api.url))

    async def __aenter__(self) -> Client:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def ask(self, question: Question) -> Reply:
        """Raises:
            PassingError: no answer this time.
            RejectedError: none to this question.
            CompatibilityError: the server will answer none.
        """
        try:
            answer = await self._http.post(f"{self._api.url}/chat/completions", json=question.body)
        except httpx.InvalidURL as error:
            raise CompatibilityError(f"teacher.api.url: {self._clean(error)}") from None
        except httpx.RequestError as error:
            # not `from error`: what libraries remember of a request has the key in it
            said = f"{type(error).__name__}: {self._clean(error)}"
            raise PassingError(said, paid=not isinstance(error, NOT_SENT)) from None
        said = self._clean(answer.text)
        status = answer.status_code
        if status != 200:
            told = f"{status}: {self._clean(_message(said))}"
            if status in BUSY or status >= 500:
                raise PassingError(told, after=_seconds(answer.headers), paid=status in GATEWAYS)
            if status in OF_THE_QUESTION:
                raise RejectedError(told)
            if 300 <= status < 400:
                place = self._clean(answer.headers.get("location", "another place"))
                raise CompatibilityError(f"{self._api.url}: {status}: it sends on to {place}, and nothing is sent there, the "
                                         "key least of all. If that is where the model is, say so in teacher.api.url")
            raise CompatibilityError(f"{self._api.url}: the server refuses: {told}. {_what_to_do(status)}")
        reply = _reply(said)
        # once more: JSON may have held it in other characters, and the tokens of an answer hold it in pieces
        spelled = "".join(token for token, _ in reply.likely or ())
        return replace(reply, text=self._clean(reply.text), why=self._clean(reply.why), refusal=self._clean(reply.refusal),
                       likely=reply.likely if self._clean(spelled) == spelled else None)

    def _clean(self, said: object) -> str:
        """Without the key, in whatever way its characters are written."""
        return str(said) if self._written is None else self._written.sub(HIDDEN, str(said))


def _reply(said: str) -> Reply:
    """What stands in the body of an answer.

    Raises:
        PassingError: it is no chat completion.
    """
    try:
        body = json.loads(said)
        choice = body["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content") or "", message.get("refusal") or ""
        why = choice.get("finish_reason") or "stop"
        if not all(isinstance(one, str) for one in (text, refusal, why)):
            raise TypeError(type(text).__name__)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise PassingError(f"the answer is no chat completion ({type(error).__name__}): {brief(said, 300)}",
                           paid=True) from None
    usage = body.get("usage")
    asked, answered = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    if why == "content_filter":
        refusal = refusal or text or why
    text, why, refusal = (_whole(one) for one in (text, why, refusal))
    return Reply(text, why, refusal, asked, answered, likely=_likely(choice.get("logprobs")))


def _whole(text: str) -> str:
    """Without half characters, which no file of texts can hold; servers that cut an answer at a token leave some."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _likely(said: object) -> list[tuple[str, Mapping[str, float]]] | None:
    """The tokens of an answer with what could have stood in their places; None where the server gives none, or what is no
    such thing."""
    try:
        found: list[tuple[str, Mapping[str, float]]] = [
            (one["token"], {**{other["token"]: _log(other) for other in one["top_logprobs"]}, one["token"]: _log(one)})
            for one in said["content"]]  # type: ignore[index]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return found if found and all(isinstance(name, str) for token, others in found for name in (token, *others)) else None


def _log(one: Mapping[str, Any]) -> float:
    """Raises:
        ValueError: it is the logarithm of no probability.
    """
    found = float(one["logprob"])
    if not found <= 1e-6:  # servers round; NaN is neither
        raise ValueError(f"got {found} as a log-probability")
    return max(min(found, 0.0), _NEVER)


def _count(usage: object, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _MOST_TOKENS else None


def _message(said: str) -> str:
    """Of an error, what it says for people."""
    try:
        found: Any = json.loads(said)
        found = found["error"]
        said = found["message"] if isinstance(found, Mapping) else str(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return brief(str(said), 300)


def _seconds(headers: Mapping[str, str]) -> float | None:
    """`Retry-After`, in seconds or as a date."""
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_REST) if seconds == seconds else None


def _what_to_do(status: int) -> str:
    if status in (401, 403):
        return "Is the key the right one, and may it use this model (teacher.api.key_env)?"
    if status == 404:
        return ("Is this its address up to the version (https://api.openai.com/v1), and does it have the model "
                "(teacher.model)?")
    return "What it says of payment, model and address is for teacher.api and teacher.model"
