"""A capture by many workers, with Ray Data: on this machine, or on the cluster that RAY_ADDRESS names.

The model and the prepared examples travel through Ray, so that workers need neither the data nor the recipe; the cache's
path has to be one that all of them reach (a URL, or a shared folder). Every worker writes a part of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from stilla.errors import CacheError
from stilla.tasks.base import Prepared, Task
from stilla.teachers.capture import asked_about, batch_of, capturing, refuse_random
from stilla.teachers.keeping import Keep
from stilla.teachers.live import LiveTeacher

GROUP = 16
"""Batches that a worker takes at a time; what it captured of them is written before it takes more."""


def capture_with_ray(
    teacher: nn.Module,
    task: Task,
    prepared: Prepared,
    places: Mapping[str, str],
    keep: Keep,
    made_from: Mapping[str, Mapping[str, Any]],
    *,
    workers: int,
    batch_size: int,
    halved: bool = False,
    gpus: float = 0.0,
) -> Iterator[int]:
    """Everything of a prepared split into a cache; gives how many examples are done, group by group.

    places, made_from: by the names of the tasks, as `capturing` takes them.
    halved: computed in bfloat16. gpus: of each worker.

    Raises:
        CacheError: Ray is missing; examples that change at random.
    """
    refuse_random(prepared)
    try:
        import ray
    except ImportError as error:
        raise CacheError('a capture by several workers needs Ray, which is not installed: pip install "stilla[ray]"'
                         ) from error

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    task_reference = ray.put((teacher, task, prepared, dict(places), keep, dict(made_from), batch_size, halved))
    groups = -(-len(list(asked_about(prepared, batch_size))) // GROUP)
    # items, not a range: reading a range takes a processor that the workers have
    items = ray.data.from_items([{"id": group} for group in range(groups)], override_num_blocks=groups)
    done = items.map_batches(
        _Worker, fn_constructor_args=(task_reference,), batch_size=1, num_gpus=gpus or None,
        compute=ray.data.ActorPoolStrategy(size=min(workers, groups)))
    for row in done.iter_rows():
        yield int(row["examples"])


class _Worker:
    """One process with the teacher in memory."""

    def __init__(self, reference: Any) -> None:
        import ray

        teacher, task, prepared, places, keep, made_from, batch_size, halved = ray.get(reference)
        self.prepared, self.halved = prepared, halved
        self.batches = list(asked_about(prepared, batch_size))
        self.device = torch.device("cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu")
        part = f"ray.{str(ray.get_runtime_context().get_actor_id())[:12]}"
        self.teacher = capturing(LiveTeacher(teacher, task, stacks=bool(keep.states)), task, places, keep, made_from,
                                 temperature=keep.temperatures[0], part=part, shared=True)
        self.teacher.to(self.device)

    def __call__(self, groups: Mapping[str, Any]) -> dict[str, list[int]]:
        counts = []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.halved):
            for group in groups["id"]:
                mine = self.batches[int(group) * GROUP : (int(group) + 1) * GROUP]
                for view, chosen in mine:
                    batch = batch_of(self.prepared, view, chosen)
                    if not self.teacher.holds(batch):
                        self.teacher(batch.to(self.device))
                self.teacher.flush()
                counts.append(sum(len(chosen) for _, chosen in mine))
        return {"examples": counts}
