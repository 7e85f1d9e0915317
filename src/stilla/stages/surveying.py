"""Which students stay below a recipe's limits: of what size, how fast on this machine, with how much of the texts' tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stilla.errors import CompatibilityError, all_of
from stilla.evaluate import Workload, medians
from stilla.export import export
from stilla.recipe import StudentSpec, VocabularySpec, Width
from stilla.recipe.fitting import Latency, Limits
from stilla.runtime.files import unsealed
from stilla.signals import Side
from stilla.stages import narrowing
from stilla.stages.starting import transformer
from stilla.stages.vocabulary import Counting
from stilla.students import by_width, first_units, with_layers
from stilla.students.candidates import Candidate, Vocabulary, candidates
from stilla.tasks.base import Loaded, Prepared, Task


def surveyed(limits: Limits, task: Task, teacher: Loaded, counting: Counting, prepared: Prepared) -> list[Candidate]:
    """Every candidate below the limits, the deepest first. `prepared`: some examples, on which latency is measured.

    Raises:
        CompatibilityError: nothing of the teacher can be cut.
    """
    most = limits.parameters(sum(one.numel() for one in teacher.model.parameters()))
    slowest, how = limits.max_latency_ms, limits.latency or Latency()

    def fast(one: Candidate) -> bool:
        return slowest is None or latency(one, task, teacher, how, prepared) <= slowest

    return candidates(teacher.model, most, vocabulary_of(teacher, counting), narrower=not narrowing.problems(task),
                      fast=fast, in_tokens=task.vocabulary)


def vocabulary_of(teacher: Loaded, counting: Counting) -> Vocabulary | None:
    """What the texts use of the teacher's tokens; None where it has none, or they cannot be cut."""
    try:
        used = counting.of(teacher)
    except CompatibilityError:
        return None
    whole = max(float(used.weights.sum()), 1e-12)

    def kept(tokens: int) -> float:
        numbers = used.kept(VocabularySpec(tokens=tokens)).numbers
        # there may be more rows than tokens
        return float(used.weights[numbers[numbers < len(used.weights)]].sum()) / whole

    always = used.kept(VocabularySpec(tokens=len(used.there))).always
    rows = int(teacher.model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    return Vocabulary(rows, always, kept)


def latency(one: Candidate, task: Task, teacher: Loaded, how: Latency, prepared: Prepared) -> float:
    """Milliseconds of a forward, the median: of a student with these layers; its tokens are no work."""
    model = transformer(with_layers(teacher.model, one.layers))
    if one.width:
        model = by_width(model, Width.model_validate({**one.width, "rounds": 1}), first_units).of(model)
    return latency_of(model, teacher.processor, task, how, prepared)


def latency_of(model: nn.Module, processor: Any, task: Task, how: Latency, prepared: Prepared) -> float:
    """Of any model that reads what `prepared` is for."""
    with _threads(how.threads), _run_by(how.runtime, model, processor, task, prepared) as forward:
        return 1e3 * medians({"": (forward, _load(prepared, how.batch))})[""]


def _load(prepared: Prepared, batch: int) -> Workload:
    """So many examples of about median length."""
    lengths = prepared.lengths
    order = sorted(range(len(prepared)), key=lambda place: 0 if lengths is None else lengths[place])
    first = max(0, (len(order) - batch) // 2)
    chosen = [order[(first + number) % len(order)] for number in range(batch)]
    inputs = dict(prepared.collate([prepared.examples[place] for place in chosen])[Side.STUDENT.value])
    return Workload(inputs, (inputs,), batch)


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if wanted is None else wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _run_by(runtime: str, student: nn.Module, processor: Any, task: Task, prepared: Prepared) -> Iterator[Any]:
    if runtime == "torch":
        yield student
        return
    with tempfile.TemporaryDirectory() as folder:
        from stilla.export.running import open_exported

        yield open_exported(export(runtime, student, processor, task, prepared, Path(folder) / runtime), task)


def with_choice(spec: StudentSpec, chosen: Mapping[str, Any]) -> StudentSpec:
    """What a recipe says of its student, with layers, width and vocabulary in place of the limits; where all layers stay,
    nothing chooses them."""
    without = {*Limits.model_fields, *([] if "layers" in chosen else ["layers_by"])}
    said = {name: value for name, value in spec.model_dump(mode="json", exclude_none=True).items() if name not in without}
    return StudentSpec.model_validate({**said, **chosen})


def chosen_before(output: Path, limits: StudentSpec) -> Mapping[str, Any] | None:
    """What a run in that folder has chosen below the same limits; None where there is none, or somebody has changed it."""
    try:
        known = unsealed((output / "plan" / "plan.json").read_text(encoding="utf-8"), needed=True)
    except (OSError, ValueError):
        return None
    if known.get("limits") != limits.model_dump(mode="json"):
        return None
    chosen: Mapping[str, Any] = known["chosen"]
    return chosen


def in_words(spec: Mapping[str, Any]) -> str:
    layers, tokens, width = spec.get("layers"), spec.get("vocabulary", {}).get("tokens"), spec.get("width", {})
    neurons, units = width.get("ffn", 1), "width" if "hidden" in width else "neurons"
    deep = f"{layers} layer{'s' if layers != 1 else ''}" if isinstance(layers, int) else f"layers {layers}"
    return all_of(["all layers" if layers is None else deep,
                   *([f"{neurons:.0%} of their {units}"] if neurons < 1 else []),
                   *([f"{tokens:,} tokens"] if tokens is not None else [])])
