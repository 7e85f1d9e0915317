"""A served teacher, asked over HTTP: the server here speaks vLLM's protocol, with its peculiarities and its faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import serving

from stilla.errors import CacheError, CompatibilityError
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep
from stilla.teachers.served import ServedTeacher
from tests.teachers.speakers import VOCABULARY, LanguageModel, language_batch

TEXTS = ([5, 6, 7, 8, 9], [30, 31, 32], [5, 6, 7, 40])


class Server(serving.JsonServer):
    """`fault`: what goes wrong. `keys`: what was sent as authorisation."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.speaker = LanguageModel()
        self.fault = ""
        self.keys: list[str | None] = []

    def logprobs(self, prompt: list[int], k: int) -> list[Any]:
        hidden = self.speaker.model.model(input_ids=torch.tensor([prompt])).last_hidden_state[0]
        log_p = torch.log_softmax(self.speaker.model.lm_head(hidden)[:, :VOCABULARY].double(), -1)
        rows: list[Any] = [None]
        for place, token in enumerate(prompt[1:]):
            ranked = log_p[place].argsort(descending=True).tolist()
            chosen = {*ranked[:k], token}
            rows.append({str(one): {"logprob": float(log_p[place, one]), "rank": ranked.index(one) + 1, "decoded_token": "x"}
                         for one in chosen})
        return rows


class Answer(serving.JsonAnswer):
    server: Server

    def do_POST(self) -> None:
        asked = self.asked()
        self.server.keys.append(self.headers["Authorization"])
        fault, prompt = self.server.fault, asked["prompt"]
        if fault.startswith("http"):
            self.send_response(302)
            self.send_header("Location", fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "echo":
            self._send(401, {"error": f"no such key: {self.headers['Authorization']}".replace("-", "\\u002d")})
            return
        if self.path != "/v1/completions" or fault == "refuses":
            self._send(400, {"error": {"message": "Requested prompt logprobs of 20, which is greater than max allowed: 5"}})
            return
        with torch.no_grad():
            rows = self.server.logprobs(prompt, 3 if fault == "fewer" else asked["prompt_logprobs"])
        if fault == "prefix caching":
            rows = rows[2:]
        elif fault == "empty rows":
            rows[2] = None
        elif fault == "other tokens":
            rows = [rows[0], *({str(int(one) + 1): value for one, value in row.items()} for row in rows[1:])]
        elif fault == "no rows":
            rows = None  # type: ignore[assignment]
        elif fault == "logits":
            rows = [rows[0], *({one: {**value, "logprob": value["logprob"] + 9} for one, value in row.items()}
                               for row in rows[1:])]
        self._send(200, {"choices": [{"text": "a", "prompt_logprobs": rows}]})

    def _send(self, code: int, body: Any) -> None:
        self.send(code, json.dumps(body).encode())


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving.running(Server()) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.fault = ""
    running.keys.clear()
    return running


def teacher(server: Server, k: int = 20, **options: Any) -> ServedTeacher:
    return ServedTeacher(server.url, "m", server.speaker.task, k=k, **options)


def test_what_is_served_is_what_the_model_says(server: Server) -> None:
    batch = language_batch(*TEXTS, prompt=2)
    said = teacher(server)(batch).logits
    log_p = torch.log_softmax(server.speaker(batch).logits.first(VOCABULARY).dense().logits.double(), -1)
    assert len(said) == 3 + 1 + 2
    assert torch.equal(said.ids, log_p.topk(20).indices.sort(-1).values)
    torch.testing.assert_close(said.log_probs.double(), log_p.gather(-1, said.ids), atol=1e-5, rtol=1e-5)
    outside = log_p.exp().scatter(-1, said.ids, 0).sum(-1).log()
    torch.testing.assert_close(said.log_tail.double(), outside, atol=1e-4, rtol=1e-4)
    assert said.temperature == 1.0


def test_what_is_served_can_be_captured(server: Server, tmp_path: Path) -> None:
    served, batch = teacher(server), language_batch(*TEXTS)
    capturing = CapturingTeacher(served, server.speaker.task, tmp_path, Keep("top_k", k=20), {"url": "m"})
    capturing(batch)
    capturing.close()
    read = CachedTeacher(tmp_path, server.speaker.task, check_alignment=False)(batch).logits
    said = served(batch).logits
    assert torch.equal(read.ids, said.ids)
    spread = said.log_probs.amax(-1, keepdim=True) - said.log_probs.amin(-1, keepdim=True)
    assert ((read.log_probs - said.log_probs).abs() <= spread / 254 + 1e-5).all()
    torch.testing.assert_close(read.log_tail, said.log_tail, atol=1e-4, rtol=1e-4)
    for keep in (Keep("top_k", k=10), Keep("top_k", k=20, temperatures=(2.0,)), Keep("samples")):
        with pytest.raises(CacheError, match="holds a part of a distribution"):
            CapturingTeacher(served, server.speaker.task, tmp_path / "other", keep, {})(batch)


def test_the_key_goes_to_that_server_alone_and_comes_back_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "a-key-that-nobody-may-see-4711"
    with serving.running(Server()) as other:
        place = f"http://127.0.0.1:{other.server_port}"
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, place)
        teacher(server, key=key)(language_batch([5, 6, 7]))
        server.fault = f"{place}/v1/completions"
        with pytest.raises(CompatibilityError, match="sends on, and is not followed"):
            teacher(server, key=key)(language_batch([5, 6, 7]))
    assert not other.keys
    server.fault = "echo"
    with pytest.raises(CompatibilityError, match="no such key") as caught:
        teacher(server, key=key)(language_batch([5, 6, 7]))
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_label_beyond_the_text_is_asked_about(server: Server) -> None:
    batch = language_batch([5, 6, 7, 8])
    whole = teacher(server)(batch).logits
    cut = language_batch([5, 6, 7])
    cut["labels"][0, 2] = 8
    said = teacher(server)(cut).logits
    assert torch.equal(said.ids, whole.ids)
    torch.testing.assert_close(said.log_probs, whole.log_probs)


def test_all_classes_leave_nothing_outside(server: Server) -> None:
    assert (teacher(server, k=VOCABULARY)(language_batch([5, 6, 7])).logits.log_tail == -torch.inf).all()


def test_a_key_is_sent_where_one_is_given(server: Server) -> None:
    teacher(server, key="open-sesame")(language_batch([5, 6, 7]))
    teacher(server)(language_batch([5, 6, 7]))
    assert server.keys == ["Bearer open-sesame", None]


@pytest.mark.parametrize(("fault", "said"), [
    ("prefix caching", "asked about 5 tokens, got 3 rows.*--no-enable-prefix-caching"),
    ("empty rows", "got 5 rows, 1 of them empty.*--no-enable-prefix-caching"),
    ("fewer", "asked for the 20 likeliest tokens, got .*--max-logprobs 20"),
    ("other tokens", "has no log-probability of token .*its own tokenizer"),
    ("no rows", "no prompt_logprobs.*--max-logprobs 20"),
    ("logits", r"add up to .*raw_logprobs"),
    ("refuses", r"refuses \(400\).*greater than max allowed: 5"),
])
def test_an_answer_that_does_not_fit_is_refused(fault: str, said: str, server: Server) -> None:
    server.fault = fault
    with pytest.raises(CompatibilityError, match=said):
        teacher(server)(language_batch(TEXTS[0]))


def test_a_server_that_is_not_there_is_said(server: Server) -> None:
    away = ServedTeacher("http://127.0.0.1:9/v1", "m", server.speaker.task, timeout=2)
    with pytest.raises(CompatibilityError, match="no answer from the server"):
        away(language_batch(TEXTS[0]))
