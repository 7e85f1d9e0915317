"""Pictures of every depth and colour as people mean them; none that takes the machine's memory, or its files."""

from __future__ import annotations

import os
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, Features, Image, Value

from stilla.tasks.vision import deep_pictures, pictures
from stilla.tasks.vision.pictures import Pictures, as_rgb

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


@pytest.fixture(autouse=True)
def _nothing_was_said() -> None:
    deep_pictures._say.cache_clear()


def written(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def column(stored: list[Any]) -> Pictures:
    features = Features({"image": Image()})
    rows = [{"bytes": one, "path": None} if isinstance(one, bytes) else one for one in stored]
    return Pictures.of(Dataset.from_dict({"image": rows}, features=features), "image")


def seen(stored: bytes) -> np.ndarray[Any, Any]:
    found = column([stored])
    assert found.broken() == {}
    return np.asarray(found.rgb(0), np.float64)


@pytest.mark.parametrize(("kind", "values"), [
    ("TIFF", (RAMP * 65535).astype(np.uint16)), ("PNG", (RAMP * 65535).astype(np.uint16)),
    ("TIFF", (RAMP * 65535).astype(np.int32)), ("TIFF", RAMP.astype(np.float32)),
    ("TIFF", (RAMP * 255).astype(np.int32)), ("TIFF", (RAMP * (2**31 - 1)).astype(np.int32)),
    ("TIFF", (RAMP * 65535).astype(np.float32)), ("TIFF", (RAMP * 3 - 1).astype(np.float32)),
    ("TIFF", (RAMP * 60000 - 30000).astype(np.int32)), ("TIFF", (RAMP * 1.1).astype(np.float32)),
    ("PPM", (RAMP * 65535).astype(np.uint16)),
])
def test_an_even_ramp_is_seen_as_one_whatever_its_numbers(kind: str, values: np.ndarray[Any, Any]) -> None:
    found = seen(written(PIL.Image.fromarray(values), kind))
    np.testing.assert_allclose(found, np.repeat((RAMP * 255)[..., None], 3, -1), atol=1.01)


def test_dark_pictures_stay_dark_where_their_range_is_known() -> None:
    dark = (RAMP * 6553).astype(np.uint16)  # a tenth
    assert 24 <= seen(written(PIL.Image.fromarray(dark), "PNG")).max() <= 26
    assert 24 <= seen(written(PIL.Image.fromarray((RAMP / 10).astype(np.float32)), "TIFF")).max() <= 26


def test_a_guess_is_said(caplog: pytest.LogCaptureFixture) -> None:
    seen(written(PIL.Image.fromarray((RAMP * 65535).astype(np.int32)), "TIFF"))
    seen(written(PIL.Image.fromarray((RAMP * 9).astype(np.float32)), "TIFF"))
    assert "scaled by the smallest range of 8, 16 or 32 bits that holds them: 0 to 65535" in caplog.text
    assert "scaled by their own least and largest value" in caplog.text


def test_numbers_that_are_none_make_a_broken_picture() -> None:
    values = RAMP.astype(np.float32).copy()
    values[3, 3] = np.nan
    assert column([written(PIL.Image.fromarray(values), "TIFF")]).broken() == {0: "it holds values that are no numbers"}


def test_twelve_bits_and_white_as_zero_are_read_as_a_tiff_says() -> None:
    values = PIL.Image.fromarray((RAMP * 4095).astype(np.uint16))
    twelve = np.asarray(deep_pictures.as_grey(values, 12, False), np.float64)
    np.testing.assert_allclose(twelve, RAMP * 255, atol=1.01)
    np.testing.assert_allclose(np.asarray(deep_pictures.as_grey(values, 12, True), np.float64), 255 - RAMP * 255, atol=1.01)
    file = PIL.Image.open(BytesIO(written(values, "TIFF", tiffinfo={262: 0})))
    assert (deep_pictures.bits(file), deep_pictures.white_is_zero(file)) == (16, True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_usual_mode_is_seen_in_its_colours(mode: str) -> None:
    picture = PIL.Image.new("RGB", (8, 8), "white").convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    assert (seen(written(picture, kind)) > 250).all()


def test_colours_that_pil_does_not_convert_are_said_to_be_so() -> None:
    lab = written(PIL.Image.new("LAB", (8, 8)), "TIFF")
    assert column([lab]).broken() == {0: "its colours are stored as LAB; save it as RGB"}


def test_a_damaged_note_of_how_to_turn_a_picture_is_no_damage_of_the_picture() -> None:
    picture = PIL.Image.new("RGB", (8, 4), "white")
    stored = written(picture, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        assert seen(stored).shape == (4, 8, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    bomb = written(PIL.Image.new("1", (13_000, 13_000)), "PNG")
    assert len(bomb) < 200_000
    tracemalloc.start()
    found = column([bomb]).broken()
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert found == {0: "13000 x 13000 pixels are more than the 100,000,000 that are decoded; make it smaller"}


def test_pictures_that_are_no_regular_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    stored = [{"bytes": None, "path": path} for path in (str(tmp_path / "pipe.png"), "/dev/zero", "http://example.com/a.png")]
    assert column(stored).broken() == dict.fromkeys(range(3), "there is no such file")


def test_formats_that_start_programs_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    assert column([script]).broken() == {0: "not a picture"}
    assert "EPS" not in pictures._formats()
    assert {"JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"} <= set(pictures._formats())


def test_as_rgb_leaves_rgb_as_it_is() -> None:
    picture = PIL.Image.fromarray((np.stack([RAMP] * 3, -1) * 255).astype(np.uint8))
    assert np.array_equal(np.asarray(as_rgb(picture)), np.asarray(picture))


def test_binary_columns_are_pictures_too() -> None:
    rows = Dataset.from_dict({"image": [b"no"]}, features=Features({"image": Value("binary")}))
    assert Pictures.of(rows, "image").broken() == {0: "not a picture"}
