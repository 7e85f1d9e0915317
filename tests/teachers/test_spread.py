"""Workers of a Ray cluster fill one cache, as one process would have."""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from stilla.cache import Store
from stilla.cache.care import verify
from stilla.teachers import CachedTeacher, Keep, LiveTeacher
from stilla.teachers.spread import capture_with_ray
from stilla.training.plain import task_of
from stilla.training.reading import Reading
from tests.equivalence.setting import bert, examples, pad

pytestmark = [
    pytest.mark.slow, pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


COUNT = 192
"""Twelve groups of batches: more than what waits in line for a worker that comes first."""


def test_two_workers_fill_one_cache_and_a_second_capture_adds_nothing(tmp_path: Path) -> None:
    cache, present = tmp_path / "cache", tmp_path / "present"
    present.mkdir()

    def wait_for_the_other(module: Any, given: Any) -> None:
        (present / str(os.getpid())).touch()
        late = time.monotonic() + 120
        while len(list(present.iterdir())) < 2:
            if time.monotonic() > late:
                raise TimeoutError("one worker has been alone for two minutes")
            time.sleep(0.05)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        root = str(Path(__file__).parents[2])
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False,
                 runtime_env={"env_vars": {"PYTHONPATH": f"{root}/src:{root}", "OMP_NUM_THREADS": "1"}})
    try:
        torch.manual_seed(0)
        model = bert(32, 4)
        hook = model.register_forward_pre_hook(wait_for_the_other)
        task = task_of(model, None)
        reading = Reading.of(task, model, None, collator=pad, processor=None, unused=False, seed=0)
        prepared = reading.prepared(examples(COUNT))
        assert prepared is not None
        options, places = {"workers": 2, "batch_size": 1}, {"": str(cache)}
        done = list(capture_with_ray(model, task, prepared, places, Keep("dense"), {"": {"teacher": "a"}}, **options))
        assert sum(done) == COUNT
        files = sorted(path.name for path in cache.glob("*.arrow"))
        assert all(problem is None for _, problem in verify(cache))
        list(capture_with_ray(model, task, prepared, places, Keep("dense"), {"": {"teacher": "a"}}, **options))
        assert sorted(path.name for path in cache.glob("*.arrow")) == files
    finally:
        ray.shutdown()
    hook.remove()
    parts = {name.split("-")[0] for name in files}
    assert len(parts) == 2  # each worker has written one of its own
    assert all(part.startswith("ray.") for part in parts)
    batch = prepared.collate([prepared.examples[index] for index in range(COUNT)])
    found = CachedTeacher(cache, task)(batch).logits.logits
    torch.testing.assert_close(found, LiveTeacher(model, task)(batch).logits.logits, atol=1e-5, rtol=1e-5)
    assert len(Store(cache)) == len({tuple(row["input_ids"]) for row in examples(COUNT)})
