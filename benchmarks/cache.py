"""What a cached teacher costs beside none at all, what capturing costs beside asking, and how many bytes it takes.

    python -m benchmarks.cache --threads 1

A step is a whole forward and backward of the student through the same engine, on the same batches. The second epoch of a
cached run is set against plain fine-tuning on the labels; the first epoch, which captures, against one with the live
teacher that stores nothing. Both sides take turns batch by batch, so that whatever else the machine does meets both.
What a run pays once is not counted: opening the cache, and storing the head for the hidden states.
Data are random: neither speed nor bytes depend on what they say, but for the sampled
ids, whose number follows from how peaked the distribution is (it is shown).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from benchmarks.tables import markdown
from stilla.cache import SamplesCoder, TopKCoder
from stilla.objectives import Labels, Logits
from stilla.objectives.base import Term
from stilla.runtime.quiet import quiet_libraries
from stilla.signals import Batch
from stilla.tasks.base import Task
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.text.text_classification import TextClassification
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher
from stilla.teachers.keeping import drawn, ranked, uniforms_of
from stilla.training.distiller import Distiller
from stilla.training.plain import dims_of
from stilla.training.reduction import Step

QWEN = 151_936
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True)
class Case:
    """A student, its teacher and batches, the last of them to warm up with; what is kept, and at which temperature."""

    name: str
    task: Task
    student: nn.Module
    teacher: nn.Module
    batches: Sequence[Batch]
    keep: Keep
    temperature: float


def main() -> None:
    options = parse()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    print("\nBytes a token, vocabulary of 151,936:\n")
    print(markdown(["", "bytes a token", "bound"], sizes()))
    rows = []
    for case in cases(options):
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            rows.append(measured(case, Path(scratch), options.rounds, CLOCKS[options.clock]))
            print(*rows[-1], sep=" | ", file=sys.stderr)  # the table comes at the end
    print("\nTime, as a multiple (median and range over the rounds of batches):\n")
    print(markdown(["", "second epoch / fine-tuning", "first epoch / live epoch", "teacher capturing / asked", "bytes a row"],
                   rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="passes over the batches")
    parser.add_argument("--only", nargs="+", choices=("dense", "top_k", "samples", "hidden"))
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="on a busy machine: processor")
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--scratch", type=Path, help="a folder for what is written meanwhile")
    return parser.parse_args()


def sizes() -> list[list[str]]:
    """Top-50 and about 12 sampled ids of rows like a language model's: Zipf's law with noise, sharpened."""
    rows, found = 64, []
    generator = torch.Generator().manual_seed(0)
    zipf = -torch.log(torch.arange(1.0, QWEN + 1))[torch.randperm(QWEN, generator=generator)]
    for peak in (1.4, 1.75):
        logits = peak * (zipf + torch.randn(rows, QWEN, generator=generator))
        samples = drawn(logits, uniforms_of(b"benchmark.......", rows, 50, 0))
        unique = (samples.counts > 0).sum(-1).float().mean().item()
        of_samples = len(SamplesCoder(QWEN, 50).encode(samples, 0, rows)) / rows
        found.append([f"{unique:.1f} different ids of 50 samples, entropy", f"{of_samples:.1f}", "40" if unique < 13 else ""])
    for temperatures in ((1.0,), (1.0, 2.0)):
        kept = ranked(logits, 50, temperatures)
        of_top = len(TopKCoder(QWEN, 50, temperatures).encode(kept, 0, rows)) / rows
        found.append([f"top 50, {len(temperatures)} temperature{'s' * (len(temperatures) > 1)}", f"{of_top:.1f}",
                      "165" if len(temperatures) == 1 else ""])
    return [*found, ["hidden states of 2048 in bfloat16", "4096.0", ""], ["all logits in bfloat16", f"{2 * QWEN}.0", ""]]


def cases(options: argparse.Namespace) -> list[Case]:
    torch.manual_seed(0)
    wanted = options.only or ("dense", "top_k", "samples", "hidden")
    found = []
    if "dense" in wanted:
        found.append(classifier())
    student, teacher = llama(options.vocabulary, 256, 4), llama(options.vocabulary, 512, 6)
    task = CausalLM(classes=options.vocabulary)
    batches = [tokens(options.vocabulary, seed) for seed in range(3)]
    for form in ("top_k", "samples", "hidden"):
        if form in wanted:
            temperature = 1.0 if form == "samples" else 2.0
            keep = Keep(form, temperatures=(temperature,))
            name = {"top_k": "top 50", "samples": "50 samples", "hidden": "hidden states and head"}[form]
            found.append(Case(f"{name}, {options.vocabulary:,} tokens", task, student, teacher, batches, keep, temperature))
    return found


def classifier() -> Case:
    """Texts of 24 tokens and 150 classes, 6 layers teach 3, as in `benchmarks.overhead`."""
    def bert(layers: int) -> nn.Module:
        model: nn.Module = BertForSequenceClassification(BertConfig(
            vocab_size=30_522, hidden_size=384, num_hidden_layers=layers, num_attention_heads=12, intermediate_size=1536,
            num_labels=150))
        return model

    student, teacher = bert(3), bert(6)
    batches = []
    for seed in range(9):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(5, 30_000, (32, 24), generator=generator)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        batches.append(Batch(student=inputs, teacher=inputs, labels=torch.randint(0, 150, (32,), generator=generator)))
    task = TextClassification.of_model(teacher)
    return Case("all logits, 150 classes", task, student, teacher, batches, Keep("dense"), 2.0)


def llama(vocabulary: int, width: int, layers: int) -> nn.Module:
    model: nn.Module = LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, max_position_embeddings=512, tie_word_embeddings=False, initializer_range=0.05))
    return model


def tokens(vocabulary: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (1, 256), generator=generator)
    labels = torch.cat([ids[:, 1:], torch.full((1, 1), -100)], 1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Batch(student=inputs, teacher=inputs, labels=labels)


def measured(case: Case, folder: Path, rounds: int, clock: Callable[[], float]) -> list[str]:
    live = LiveTeacher(case.teacher, case.task)
    plain = stepper(case, [Term(Labels())])
    helped = stepper(case, [Term(Labels(), weight=0.3), Term(Logits(temperature=case.temperature), weight=0.7)])
    capturing = fresh(case, live, folder / "whole")
    for batch in case.batches:
        capturing(batch)
    capturing.close()
    cached = CachedTeacher(folder / "whole", case.task, temperature=case.temperature, check_alignment=False)
    second = ratio(case, rounds, clock, lambda batch, _: helped(batch, cached(batch)), lambda batch, _: plain(batch, None))
    first = ratio(case, rounds, clock, lambda batch, teacher: helped(batch, teacher(batch)),
                  lambda batch, _: helped(batch, live(batch)), lambda turn: fresh(case, live, folder / f"first-{turn}"))
    alone = ratio(case, rounds, clock, lambda batch, teacher: teacher(batch), lambda batch, _: live(batch),
                  lambda turn: fresh(case, live, folder / f"alone-{turn}"))
    from stilla.cache.care import contents

    return [case.name, second, first, alone, f"{contents(folder / 'whole').bytes_per_row:,.1f}"]


def fresh(case: Case, live: LiveTeacher, path: Path) -> CapturingTeacher:
    """A new cache, opened by the batch that is not timed."""
    made = CapturingTeacher(live, case.task, path, case.keep, {"teacher": "random"}, temperature=case.temperature)
    made(case.batches[-1])
    made.flush()
    return made


def stepper(case: Case, terms: list[Term]) -> Callable[[Batch, Any], None]:
    """A training step without the optimiser, which is the same for all."""
    distiller = Distiller(case.student, terms, case.task, student_dims=dims_of(case.student, case.task, None),
                          teacher_dims=dims_of(case.teacher, case.task, None))

    def step(batch: Batch, said: Any) -> None:
        counts = {"rows": 1.0, "labelled": 1.0, "tokens": 1.0, "examples": 1.0, **case.task.counts(batch)}
        distiller.zero_grad()
        distiller.loss(batch, said, Step(counts))["loss"].backward()

    return step


def ratio(
    case: Case, rounds: int, clock: Callable[[], float],
    ours: Callable[[Batch, Any], Any], theirs: Callable[[Batch, Any], Any],
    begin: Callable[[int], Any] = lambda turn: None,
) -> str:
    """How many times as long ours takes; one pass to warm up."""
    found = []
    for turn in range(rounds + 1):
        state, spent = begin(turn), [0.0, 0.0]
        for number, batch in enumerate(case.batches[:-1]):
            pair = [(0, ours), (1, theirs)]
            for side, call in pair if (number + turn) % 2 else pair[::-1]:
                before = clock()
                call(batch, state)
                spent[side] += clock() - before
        if isinstance(state, CapturingTeacher):
            before = clock()
            state.close()  # what waits for its shard is written
            spent[0] += clock() - before
        if turn:
            found.append(spent[0] / spent[1])
    assert all(math.isfinite(one) for one in found)
    return f"{statistics.median(found):.3f} [{min(found):.3f}, {max(found):.3f}]"


if __name__ == "__main__":
    main()
