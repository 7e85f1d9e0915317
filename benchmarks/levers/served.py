"""The same teacher as a file, behind an address that gives the names of classes, and with how likely each is."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from benchmarks.levers.setting import Setting, table
from benchmarks.serving import JsonAnswer, JsonServer, running

PORT = 8123
STEPS = 300


def show(setting: Setting) -> str:
    """Few labels; the teacher is asked about everything else, by its logits or in words."""
    start, distill = small(setting), {**setting.recipe()["distill"][0], "epochs": None, "max_steps": STEPS}
    plain = setting.run("logits", student={"model": str(start)}, distill=distill)
    runs = {"its logits": plain}
    with running(Server(Path(setting.teacher))) as server:
        for name, more in (("its log-probabilities, served", {"logprobs": 20}), ("its words, served", {})):
            api = {"url": server.url, "template": "{source}", "max_tokens": 8, **more}
            runs[name] = setting.run(name.replace(",", ""), student={"model": str(start)}, distill=distill,
                                     teacher={"model": "docstrings", "api": api})
    return f"{table(runs)}\n\nteacher {100 * plain.scores.teacher['accuracy']:.1f}"


def small(setting: Setting) -> Path:
    """A student of its own, as one of such a teacher has to be: what the demo's recipe would make, with random weights."""
    made = setting.folder / "small"
    if not made.is_dir():
        torch.manual_seed(0)
        teacher = AutoModelForSequenceClassification.from_pretrained(setting.teacher)
        config = teacher.config
        config.update(setting.recipe()["student"]["config"])
        type(teacher)(config).save_pretrained(made)
        AutoTokenizer.from_pretrained(setting.teacher).save_pretrained(made)
    return made


class Server(JsonServer):
    """Speaks chat completions with this model's answers."""

    def __init__(self, folder: Path) -> None:
        # always at the same place: answers are known by their address, and asked for once
        super().__init__(("127.0.0.1", PORT), Answer)
        self.model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.lock = threading.Lock()

    @torch.no_grad()
    def probabilities(self, text: str) -> dict[str, float]:
        """Log-probability of every class, the likeliest first."""
        with self.lock:
            found = self.model(**self.tokenizer(text, return_tensors="pt", truncation=True)).logits[0].log_softmax(-1)
        names = self.model.config.id2label
        return {names[number]: float(found[number]) for number in found.argsort(descending=True).tolist()}


class Answer(JsonAnswer):
    server: Server

    def do_POST(self) -> None:  # noqa: N802 (the name that the server calls)
        body = self.asked()
        likely = self.server.probabilities(body["messages"][-1]["content"])
        tokens = [{"token": name, "logprob": value} for name, value in likely.items()]
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": tokens[0]["token"]},
                                  "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{**tokens[0], "top_logprobs": tokens[:body["top_logprobs"]]}]}
        said = {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        self.send(200, json.dumps(said).encode())
