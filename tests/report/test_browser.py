"""The pages work in a real browser: at a phone's width, in the dark, on paper, and without any script."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stilla.report import write_comparison, write_report

from . import fakes
from .markup import Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
         "--virtual-time-budget=20000", "--window-size=1280,900")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


def browse(address: Path, profile: Path, *flags: str) -> str:
    """What the browser prints; fails on anything that the page writes to the console."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, address.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout


Measured = tuple[str, dict[str, dict[str, Any]]]
"""The colour scheme, and by page and width what browser.js found."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    runs = {
        "intents": fakes.write_run(folder / "intents", fakes.intents()),
        "digits": fakes.write_run(folder / "digits", fakes.digits(), seeds=3),
        "sts": fakes.write_run(folder / "sts", fakes.regression()),
        "other": fakes.write_run(folder / "a-run-with-a-rather-long-name-for-a-phone", fakes.intents(12),
                                 noise=3, recipe=fakes.RECIPE.replace("layers: 3", "layers: 1")),
    }
    comparison = write_comparison([runs["intents"], runs["other"]], folder / "comparison.html")
    return {name: write_report(run) for name, run in runs.items()} | {"comparison": comparison}


def harness(folder: Path, pages: Mapping[str, Path]) -> Path:
    sources = json.dumps({name: path.read_text(encoding="utf-8") for name, path in pages.items()})
    script = (Path(__file__).parent / "browser.js").read_text(encoding="utf-8")
    path = folder / "harness.html"
    # `<` would let the pages' own tags end this script.
    path.write_text(f"<!doctype html><meta charset=utf-8><body><script>const pages = "
                    f"{sources.replace('<', chr(92) + 'u003c')};\n{script}</script>", encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["light", "dark"])
def measured(
    request: pytest.FixtureRequest, pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory,
) -> Measured:
    folder = tmp_path_factory.mktemp(request.param)
    scheme = f"--blink-settings=preferredColorScheme={0 if request.param == 'dark' else 1}"
    printed = browse(harness(folder, pages), folder / "profile", scheme, "--dump-dom")
    found = re.search(r'<script type="application/json" id="results">(.*?)</script>', printed, re.DOTALL)
    assert found is not None, printed[:2000]
    return request.param, json.loads(found.group(1))


def test_pages_fit_phone_and_desk_in_light_and_dark(measured: Measured) -> None:
    scheme, results = measured
    assert len(results) == 10
    for name, found in results.items():
        assert found["ready"] == "true", name
        assert found["overflow"] <= 0, name
        assert found["overflowOpen"] <= 0, name
        assert not found["cut"], name
        assert found["small"] > 9, name
        assert found["background"] == ("rgb(20, 23, 26)" if scheme == "dark" else "rgb(253, 253, 251)"), name


def test_everything_that_can_be_used_works(measured: Measured) -> None:
    _, results = measured
    for width in (390, 1200):
        found = results[f"intents {width}"]
        assert found["sections"] == [
            "Scores", "Notes", "Slices", "Shifted data", "Quality against cost", "Training", "Calibration", "Classes",
            "Decisions that changed", "Recipe", "Environment"]
        assert found["charts"] == 9
        assert (found["rows"], found["rowsOpen"], found["rowsFound"]) == (14, 150, 1)
        assert found["sortedFirst"]
        assert found["sortedThen"]
        assert found["kinds"] == ["lost"]
        assert found["hiddenCurves"] == 1
        assert found["tip"].startswith("teacher\n95.1 % [94.5, 95.7]")
        assert found["tipInside"]
        assert re.match(r"step 1,[34]\d0\n", found["cursor"])
        assert "Spread over seeds" in results[f"digits {width}"]["sections"]
        assert results[f"sts {width}"]["charts"] == 5
        assert results[f"comparison {width}"]["charts"] == 4


def test_a_page_can_be_printed(pages: dict[str, Path], tmp_path: Path) -> None:
    paper = tmp_path / "paper.pdf"
    browse(pages["intents"], tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")


def test_without_scripts_everything_is_there(pages: dict[str, Path], tmp_path: Path) -> None:
    source = pages["intents"].read_text(encoding="utf-8")
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r"<script>.*?</script>", "", source, flags=re.DOTALL), encoding="utf-8")
    page = Page(browse(bare, tmp_path / "profile", "--dump-dom"))
    assert len(page.all("tr")) > 150
    assert [one.get("class") for one in page.all("li")].count("decision") == 60
    hidden = {one.get("class") for _, one in page.elements if "hidden" in one}
    assert hidden == {"tip", "more", "tools", "copy"}
