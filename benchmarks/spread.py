"""Would the spread of a teacher's mean answer choose how texts are changed, as it is said to do for pictures?

    python -m benchmarks.gap --cases sib200 --seeds 1           # whose data and teacher are taken
    python -m benchmarks.spread runs/benchmarks/gap/sib200 --masked google-bert/bert-base-uncased

"T-stddev" of Wang et al. 2020 (arXiv:2012.02909): the lower the standard deviation of the teacher's mean answer, the better
the augmentation. Words drawn at random stand beside similar and proposed ones as a control: they must not win. No training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.tables import markdown
from stilla import data
from stilla.recipe import ModelSource
from stilla.runtime.quiet import quiet_libraries
from stilla.stages.proposing import TEXTS, Proposing
from stilla.tasks.base import Loaded
from stilla.tasks.text.perturbation import RATE, Draws, Perturbation
from stilla.tasks.text.proposals import SCHEMA, Proposals
from stilla.tasks.text.sections import Contextual, TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.text.tokens import Tokens, tokenise

LONGEST, AT_ONCE = 512, 32
Answers = Float[NDArray[np.float64], "texts classes"]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="a folder of benchmarks.gap, with data/ and a teacher")
    parser.add_argument("--masked", help="a masked language model; without it none proposes words")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--views", type=int, default=4, help="changed forms of each text")
    options = parser.parse_args(arguments)
    quiet_libraries()
    splits = data.load(TextClassificationData(train=str(options.case / "data")), seed=0)
    task = TextClassification.understand(TextClassificationData(train=str(options.case / "data")), splits)
    teacher = task.load(ModelSource(model=str(options.case / "teacher" / "teacher")), labelled=True)
    task = task.adapted_to(teacher)
    assert task.embedding is not None  # a Hugging Face model's
    chosen = np.random.default_rng(0).permutation(len(splits["train"]))[: options.texts]
    some = splits["train"].select(chosen)
    texts, whole = list(some[task.text[0]]), list(splits["train"][task.text[0]])
    labels, clean = task.problem.encode(some), _answers(teacher.model, tokenise(teacher.processor, [texts], LONGEST)[0])
    draws = Draws(0, share=1.0)
    rows = [["none", *_measured(np.stack([clean] * 2), clean, labels)]]
    for name, changed in _ways(teacher, task.embedding.detach(), whole, texts, draws, options.masked).items():
        said = []
        for view in range(options.views):
            draws.turns.set_epoch(view)
            said.append(changed())
        rows.append([name, *_measured(np.stack(said), clean, labels)])
    head = ("changed by", "spread, one view", "spread, mean of views", "still its label", "KL to the text itself")
    print(markdown(head, rows))


def _ways(
    teacher: Loaded, embedding: Tensor, whole: list[str], texts: list[str], draws: Draws, masked: str | None
) -> dict[str, Callable[[], Answers]]:
    """What is said of the texts, changed in each way as `draws` say. `whole`: all texts, whose tokens replace others."""
    model, tokenizer = teacher.model, teacher.processor
    plain, words = (tokenise(tokenizer, [column], LONGEST)[0] for column in (texts, whole))
    similar, random = (Perturbation(words, tokenizer.all_special_ids, embedding, draws) for _ in range(2))
    random.similar = np.random.default_rng(1).integers(len(random.words), size=random.similar.shape)
    ways = {"similar words (`light`)": lambda: _answers(model, plain, similar),
            "random words": lambda: _answers(model, plain, random)}
    if masked:
        known = _proposed(masked, texts)
        ways["proposed words (`contextual`)"] = lambda: _answers(model, tokenise(tokenizer, [[
            text if (draw := draws.of(key)) is None else known.reworded(text, RATE, draw)
            for key, text in enumerate(texts)]], LONGEST)[0])
    return ways


def _proposed(masked: str, texts: list[str]) -> Proposals:
    asked = Proposing.of(Contextual(kind="contextual", model=masked))
    rows = [row for start in range(0, len(texts), TEXTS)
            for row in asked.rows(texts, range(start, min(start + TEXTS, len(texts))))]
    return Proposals.of(pa.Table.from_pylist(rows, SCHEMA), asked.words[1])


def _answers(model: nn.Module, tokens: Tokens, change: Perturbation | None = None) -> Answers:
    """The teacher's probabilities for every text, changed in this way."""
    found, order = list[Answers](), np.argsort(tokens.lengths, kind="stable")
    for rows in (order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)):
        inputs = tokens.batch(rows.tolist())
        if change is not None:
            change(inputs, rows)
        with torch.no_grad():
            found.append(model(**inputs).logits.double().softmax(-1).numpy())
    return np.concatenate(found)[np.argsort(order)]


def _measured(
    said: Float[NDArray[np.float64], "views texts classes"], clean: Answers, labels: NDArray[np.int64]
) -> list[str]:
    """Standard deviations of the mean answer over other samples of as many texts, with one view of each and with the mean of
    very many, as means over the classes; how often the likeliest class is still the label; and how far answers move."""
    views, texts = said.shape[:2]
    within = said.var(0, ddof=1).mean(0)
    between = np.maximum(said.mean(0).var(0, ddof=1) - within / views, 0)
    moved = (clean * (np.log(clean + 1e-12) - np.log(said + 1e-12))).sum(-1).mean()
    return [f"{np.sqrt((between + within) / texts).mean():.4f}", f"{np.sqrt(between / texts).mean():.4f}",
            f"{(said.argmax(-1) == labels).mean():.3f}", f"{moved:.2f}"]


if __name__ == "__main__":
    main(sys.argv[1:])
