from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stilla.evaluate.energy import RaplMeter, estimated, find_meter, measured, stated

CPU = torch.device("cpu")


def _zone(folder: Path, number: int, name: str, joules: float) -> Path:
    zone = folder / f"intel-rapl:{number}"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")
    (zone / "max_energy_range_uj").write_text("999999999\n")
    return zone


def test_packages_are_summed_and_other_zones_left_out(tmp_path: Path) -> None:
    """`psys` holds the packages again."""
    for number, name in enumerate(("package-0", "package-1", "psys")):
        _zone(tmp_path, number, name, 5.0)
    meter = find_meter(CPU, tmp_path)
    assert meter is not None
    for number, name in enumerate(("package-0", "package-1", "psys")):
        _zone(tmp_path, number, name, 8.0)
    assert meter.read() == pytest.approx(6.0)


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    zone = _zone(tmp_path, 0, "package-0", 999.0)
    meter = RaplMeter([zone])
    _zone(tmp_path, 0, "package-0", 2.0)
    assert meter.read() == pytest.approx(3.0)
    _zone(tmp_path, 0, "package-0", 4.0)
    assert meter.read() == pytest.approx(5.0)


def test_measured_energy_is_per_thousand_examples_and_says_how(tmp_path: Path) -> None:
    meter = RaplMeter([_zone(tmp_path, 0, "package-0", 1.0)])

    def work() -> int:
        _zone(tmp_path, 0, "package-0", 11.0)
        return 500

    found = measured(meter, work)
    assert found.joules == pytest.approx(20.0)
    assert "measured" in found.method
    assert "RAPL" in found.method


def test_without_a_counter_there_is_no_meter(tmp_path: Path) -> None:
    assert find_meter(CPU, tmp_path / "missing") is None
    assert find_meter(torch.device("mps"), tmp_path) is None


def test_an_estimate_names_its_assumption_and_other_devices_have_none() -> None:
    found = estimated(2e9, CPU)
    assert found is not None
    assert found.joules == pytest.approx(1000 * 2e9 / 10e9)
    assert found.method == "estimated, not measured: FLOPs at an assumed 10 GFLOP per joule"
    assert estimated(2e9, torch.device("mps")) is None


def test_stated_power_counts_for_as_long_as_an_example_takes() -> None:
    found = stated(50.0, 0.002)  # 50 W for 2 ms, a thousand times
    assert found.joules == pytest.approx(100.0)
    assert found.method == "stated, not measured: 50 W while it works"
