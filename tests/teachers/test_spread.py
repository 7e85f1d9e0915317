"""Workers of a Ray cluster fill one cache, as one process would have."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from tests.equivalence.setting import bert, examples, pad

from stilla.cache import Store
from stilla.cache.care import verify
from stilla.plain import prepared_from, task_of
from stilla.teachers import CachedTeacher, Keep, LiveTeacher
from stilla.teachers.spread import capture_with_ray

pytestmark = [
    pytest.mark.slow, pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


def test_two_workers_fill_one_cache_and_a_second_capture_adds_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        root = str(Path(__file__).parents[2])
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False,
                 runtime_env={"env_vars": {"PYTHONPATH": f"{root}/src:{root}", "OMP_NUM_THREADS": "1"}})
    try:
        torch.manual_seed(0)
        model = bert(32, 4)
        task = task_of(model, None)
        prepared = prepared_from(examples(100), pad, None, task)
        assert prepared is not None
        options = {"workers": 2, "batch_size": 2}
        done = list(capture_with_ray(model, task, prepared, str(tmp_path), Keep("dense"), {"teacher": "a"}, **options))
        assert sum(done) == 100
        files = sorted(path.name for path in tmp_path.glob("*.arrow"))
        assert all(problem is None for _, problem in verify(tmp_path))
        list(capture_with_ray(model, task, prepared, str(tmp_path), Keep("dense"), {"teacher": "a"}, **options))
        assert sorted(path.name for path in tmp_path.glob("*.arrow")) == files
    finally:
        ray.shutdown()
    assert all(name.startswith("ray.") for name in files)  # a part of each worker that captured something
    batch = prepared.collate([prepared.examples[index] for index in range(100)])
    found = CachedTeacher(tmp_path, task)(batch).logits.logits
    torch.testing.assert_close(found, LiveTeacher(model, task)(batch).logits.logits, atol=1e-5, rtol=1e-5)
    assert 90 <= len(Store(tmp_path)) <= 100
