"""A small server that speaks OpenAI's chat completions, with the faults that such servers have."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serving import JsonAnswer, JsonServer, running

Body = Mapping[str, Any]


@dataclass
class Script:
    """What the server does. `answer`: of a request's body. `faults`: taken one by one, each by one request."""

    answer: Callable[[Body], str] = lambda body: "an answer"
    faults: list[str] = field(default_factory=list)
    finish: str = "stop"
    likely: Callable[[Body], Any] | None = None
    """Of a request's body, what stands in `logprobs` of the choice."""
    refusal: str | None = None
    usage: Mapping[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5})
    delay: float = 0.0
    escape: bool = False
    """Whether hyphens come as numbers, as JSON allows."""
    asked: list[Body] = field(default_factory=list)
    """Bodies of all requests that came whole."""
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def times(self) -> Counter[str]:
        """How often each question came, by what the user says last."""
        return Counter(body["messages"][-1]["content"] for body in self.asked)


class Server(JsonServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.script = Script()
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no fault of ours."""


class Answer(JsonAnswer):
    server: Server

    def do_POST(self) -> None:
        body = self.asked()
        script = self.server.script
        with self.server.lock:
            script.asked.append(body)
            script.keys.append(self.headers.get("Authorization"))
            script.at_once += 1
            script.most_at_once = max(script.most_at_once, script.at_once)
            fault = script.faults.pop(0) if script.faults else ""
        try:
            self._do(script, body, fault)
        finally:
            with self.server.lock:
                script.at_once -= 1

    def _do(self, script: Script, body: Body, fault: str) -> None:
        time.sleep(script.delay)
        if fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
            return None
        if fault == "slow":
            time.sleep(0.6)
        if fault == "wrong json":
            return self.send(200, b"<html>a gateway speaks</html>")
        if fault == "no choices":
            return self.send(200, b'{"choices": []}')
        if fault == "escaped":
            key = (self.headers.get("Authorization") or "").removeprefix("Bearer ").replace("-", "\\u002d")
            return self.send(200, f'{{"choices": [], "asked by": "{key}"}}'.encode())
        if fault.startswith("elsewhere "):
            return self.send(307, b"", {"Location": fault.partition(" ")[2]})
        if fault == "later":
            return self.send(429, b"{}", {"Retry-After": "0.3"})
        if fault == "echo":
            said = {"error": {"message": f"bad key {self.headers.get('Authorization')}"}}
            return self.send(401, json.dumps(said).encode())
        if fault.isdigit():
            said = {"error": {"message": f"fault {fault}, {self.headers.get('Authorization')}"}}
            return self.send(int(fault), json.dumps(said).encode(), {"Retry-After": "0"} if fault == "429" else {})
        message = {"role": "assistant", "content": None if script.refusal else script.answer(body), "refusal": script.refusal}
        choice = {"index": 0, "message": message, "finish_reason": script.finish}
        if script.likely is not None:
            choice["logprobs"] = script.likely(body)
        content = json.dumps({"choices": [choice], "usage": script.usage})
        return self.send(200, (content.replace("-", "\\u002d") if script.escape else content).encode())


def served() -> AbstractContextManager[Server]:
    """The server, in a thread of this process."""
    return running(Server())
