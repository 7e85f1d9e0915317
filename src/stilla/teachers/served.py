"""A teacher behind HTTP: vLLM's prompt log-probabilities, through its OpenAI-compatible completions.

    vllm serve MODEL --max-logprobs 50 --no-enable-prefix-caching

The server is sent token ids, so both sides have the same tokens or it says so. What it gives is top-k at temperature 1, so
objectives have to use temperature 1; the mass outside follows from what is inside, in double precision.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from stilla.api.keys import is_local
from stilla.errors import CompatibilityError
from stilla.secrets import HIDDEN, however_written
from stilla.signals import Batch, Dims, Signals, TopK
from stilla.tasks.base import Segment, Task

Likely = list[tuple[int, float]]
"""(token, log-probability) of one position, the likeliest first."""


class ServedTeacher:
    """Answers the rows of a causal language model's batches from a server.

    Raises:
        CompatibilityError: the server cannot be reached, refuses, or its answer does not fit the question.
    """

    def __init__(
        self, url: str, model: str, task: Task, *, k: int = 50, workers: int = 8, timeout: float = 120.0, key: str = ""
    ) -> None:
        """`url`: of the API (http://localhost:8000/v1). `k`: at most the server's --max-logprobs. `key`: what the server
        wants as a bearer token."""
        self.url = f"{url.rstrip('/')}/completions"
        self.model = model
        self.task = task
        self.k = k
        self.timeout = timeout
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._written = however_written(key) if key else None
        # a proxy would read what goes to this machine; elsewhere the environment's are used
        self._opener = urllib.request.build_opener(_Nowhere, *([urllib.request.ProxyHandler({})] if is_local(url) else []))
        self._workers = workers
        self._device = torch.device("cpu")

    def __call__(self, batch: Batch) -> Signals:
        asked = [_question(segment, batch, self.task) for segment in self.task.segments(batch)]
        with ThreadPoolExecutor(self._workers) as pool:
            answers = list(pool.map(lambda one: self._answer(one[0]), asked))
        rows = [answer[position] for (_, positions), answer in zip(asked, answers, strict=True) for position in positions]
        return Signals(logits=self._form(rows))

    def to(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def dims(self, batch: Batch | None = None) -> Dims:
        return Dims(self.task.row_classes())

    def _answer(self, prompt: Sequence[int]) -> list[Likely]:
        """For every position but the first, what the teacher expected there before it saw it; None becomes []."""
        said = self._post({"model": self.model, "prompt": list(prompt), "max_tokens": 1, "temperature": 1.0,
                           "prompt_logprobs": self.k})
        try:
            given = said["choices"][0]["prompt_logprobs"]
        except (KeyError, IndexError, TypeError):
            given = None
        if given is None:
            raise CompatibilityError(f"{self.url}: the answer has no prompt_logprobs; it takes vLLM's completions, served "
                                     f"with --max-logprobs {self.k}")
        missing = sum(one is None for one in given[1:])
        if len(given) != len(prompt) or missing or given[0] is not None:
            raise CompatibilityError(
                f"{self.url}: asked about {len(prompt)} tokens, got {len(given)} rows, {missing} of them empty. Rows vanish "
                "with prefix caching: serve with --no-enable-prefix-caching")
        return [[], *(self._likely(one, token, place) for place, (one, token) in enumerate(zip(given[1:], prompt[1:]), 1))]

    def _likely(self, given: Mapping[str, Mapping[str, Any]], token: int, place: int) -> Likely:
        found = {int(number): (one.get("rank"), float(one["logprob"])) for number, one in given.items()}
        if token not in found:
            raise CompatibilityError(f"{self.url}: at position {place} the answer has no log-probability of token {token}, "
                                     "which was asked about: the server reads other tokens. Serve the model with its own "
                                     "tokenizer")
        # the token itself comes along also where it is not among the likeliest
        likely = sorted(((number, logprob) for number, (_, logprob) in found.items()), key=lambda one: (-one[1], one[0]))
        if len(likely) < self.k:
            raise CompatibilityError(f"{self.url}: asked for the {self.k} likeliest tokens, got {len(likely)}; serve with "
                                     f"--max-logprobs {self.k}")
        return likely[: self.k]

    def _form(self, rows: Sequence[Likely]) -> TopK:
        ids = torch.tensor([[number for number, _ in row] for row in rows], dtype=torch.int64).reshape(-1, self.k)
        inside = torch.tensor([[logprob for _, logprob in row] for row in rows], dtype=torch.float64).reshape(-1, self.k)
        ids, order = ids.sort(-1)
        inside = inside.gather(-1, order)
        mass = inside.exp().sum(-1)
        if (mass > 1 + 1e-3).any():
            raise CompatibilityError(f"{self.url}: the probabilities of a row add up to {mass.max():.3f}: these are not "
                                     "log-probabilities. Serve with --logprobs-mode raw_logprobs")
        # rounding may leave nothing, or less: then as little as float32 can tell from 1
        tail = torch.log1p(-mass.clamp_max(1 - 2.0**-24))
        if self.k >= self.task.teacher_classes():
            tail = torch.full_like(tail, -math.inf)
        return TopK(ids.to(self._device), inside.float().to(self._device), tail.float().to(self._device), 1.0)

    def _clean(self, said: str) -> str:
        """Without the key."""
        return said if self._written is None else self._written.sub(HIDDEN, said)

    def _post(self, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(self.url, json.dumps(body).encode(), self._headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = self._clean(error.headers.get("location") or error.read().decode(errors="replace"))[:300]
            does = "sends on, and is not followed" if 300 <= error.code < 400 else "refuses"
            raise CompatibilityError(f"{self.url}: the server {does} ({error.code}): {said}") from None
        except (urllib.error.URLError, TimeoutError, ConnectionError, json.JSONDecodeError) as error:
            raise CompatibilityError(f"{self.url}: no answer from the server ({error}). Is it running, and is this its "
                                     "address (http://host:8000/v1)?") from error


class _Nowhere(urllib.request.HTTPRedirectHandler):
    """What is sent on goes nowhere: the key would go along."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _question(segment: Segment, batch: Batch, task: Task) -> tuple[list[int], list[int]]:
    """The tokens of a piece, and for each of its rows the position in them that it predicts."""
    assert batch.labels is not None
    labels = task.teacher_labels(batch.labels[segment.example])
    here = segment.positions
    positions = (range(len(labels))[here] if here is not None
                 else batch.teacher["attention_mask"][segment.example].nonzero().squeeze(1).tolist())
    tokens = [int(batch.teacher["input_ids"][segment.example, position]) for position in positions]
    rows = [place for place, position in enumerate(positions) if int(labels[position]) != -100]
    last = int(labels[positions[-1]])
    # a text that was cut before its last token: the label is that token
    return tokens + ([last] if last != -100 else []), [place + 1 for place in rows]
