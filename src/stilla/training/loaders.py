"""From prepared examples, or a stream, to batches as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.training.batches import EpochLoader, Examples, StepBatches
from stilla.training.reading import Reading
from stilla.training.streams import Source, Stream


def training_loader(
    data: Prepared | Source, reading: Reading, args: TrainingArguments, cut: Mapping[str, int],
    batches: Callable[[Prepared], StepBatches],
) -> DataLoader[Any]:
    """The micro-batches of one process. `cut`: into how many a step's examples are, and which are this process's; `batches`:
    which examples they are, of what is no stream."""
    # its own generator: drawing a worker seed from the global one would move dropout after a resume
    generator = torch.Generator().manual_seed(args.seed)
    if isinstance(data, Source):
        return DataLoader(Stream(data, reading, **cut), batch_size=None, pin_memory=args.dataloader_pin_memory,
                          generator=generator)
    examples = Examples(data)
    return EpochLoader(
        examples, batch_sampler=batches(data), collate_fn=examples.collate, num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor, pin_memory=args.dataloader_pin_memory, generator=generator)


def loader(prepared: Prepared, batch_size: int, places: Sequence[Sequence[int]] | None = None) -> DataLoader[Batch]:
    """Batches in the data's own order. A generator of its own: the loader would draw from the global one."""
    size = 1 if prepared.packed else batch_size  # of several, one row would be made
    there = range(len(prepared))
    cut = [there[start : start + size] for start in range(0, len(there), size)] if places is None else places
    return DataLoader(prepared.examples, batch_sampler=[list(part) for part in cut], collate_fn=prepared.collate,
                      generator=torch.Generator())
