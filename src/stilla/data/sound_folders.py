"""Folders of sounds that are known by how they are laid out: metadata files, LibriSpeech, LJSpeech, Common Voice, Kaldi."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from logging import INFO, WARNING
from pathlib import Path

import pyarrow as pa
from datasets import Audio, Dataset

from stilla.data import picture_folders
from stilla.data.kept import Notes, kept
from stilla.data.named_files import Media, NamedFiles, named_files
from stilla.data.opened import read_text
from stilla.data.picture_folders import METADATA
from stilla.data.stored_files import resolved
from stilla.errors import DataError, all_of, quoted

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".caf", ".w64", ".au", ".sph"})
SOUNDS = Media(
    SUFFIXES, "audio", Audio(decode=False), "sounds", "sound",
    ("audio", "sound", "speech", "audio_filepath", "audio_file", "audio_path", "audio_filename", "wav", "wav_filename",
     "wav_file", "wav_path", "clip", "recording", "file_name", "filename", "file_path", "filepath", "file", "path"))
CLIPS = "clips"
"""The folder beside Common Voice's tables in which their files lie."""
WAVES = "wavs"
"""The folder beside LJSpeech's list in which its files lie."""
_LJ_SPEECH = "metadata.csv"
_COMMON_VOICE = {"train": "train", "dev": "validation", "test": "test"}

Reader = Callable[[Path, Notes], Iterator[pa.Table]]


def read(
    folder: Path, inside: Sequence[Path], splits: Mapping[str, str], split_in: Callable[[str], str | None], table: Reader
) -> dict[str, Dataset] | None:
    """The splits of a folder in which sounds lie; None where it is laid out in none of the ways that are known by name.

    Args:
        inside: all its files. splits: folders of its first level that are called like a split, by split. split_in: the split
            that a name speaks of. table: the rows of a table.

    Raises:
        DataError: it leaves open what is what; names of what is no file within the folder.
    """
    names = {path.name for path in inside}
    if (folder / WAVES).is_dir() and _is_lj_speech(folder / _LJ_SPEECH):
        return _lj_speech(folder, inside)
    if names & set(METADATA):
        return picture_folders.with_metadata(folder, splits, table, SOUNDS)
    if any(name.endswith(".trans.txt") for name in names):
        return _libri_speech(folder, inside, split_in)
    if "wav.scp" in names:
        return _kaldi(folder, inside, split_in)
    if (folder / CLIPS).is_dir() and any(path.suffix == ".tsv" and path.parent == folder for path in inside):
        return _common_voice(folder, table)
    return None


# --- layouts ---


def _by_split(folder: Path, files: Sequence[Path], split_in: Callable[[str], str | None]) -> dict[str, list[Path]]:
    """Files by the split that a folder of the first level speaks of (`dev-clean`); all are train if none does."""
    said = {path: (split_in(path.relative_to(folder).parts[0]) if path.parent != folder else None) for path in files}
    if not any(said.values()):
        return {"train": list(files)}
    silent = sorted({path.relative_to(folder).parts[0] for path, split in said.items() if split is None})
    if silent:
        raise DataError(f"{str(folder)!r}: which split is {all_of([quoted(one) for one in silent[:5]])}? Other folders are "
                        "called train, dev or test. Rename it, or move it away.")
    found: dict[str, list[Path]] = {}
    for path, split in said.items():
        found.setdefault(str(split), []).append(path)
    return found


Rows = Callable[[Path], Iterator[tuple[dict[str, object], str]]]
"""Of a list: for each row the other columns, and the sound's whole path."""


def _rows(rows: Rows, files: Sequence[Path], folder: Path, kind: str, beside: Sequence[Path] = ()) -> Dataset:
    """The rows of lists. `beside`: what is read with them, so that they are read anew when it changes."""
    def tables(notes: Notes) -> Iterator[pa.Table]:
        for path in files:
            found = list(rows(path))
            if not found:
                notes.append((INFO, f"{str(path)!r}: names no sounds"))
                continue
            columns = {name: [others[name] for others, _ in found] for name in found[0][0]}
            table = pa.table({"audio": [place for _, place in found], **columns})
            yield named_files(table, "audio", "audio", str, SOUNDS.feature)

    return kept(tables, [*files, *beside], [kind, str(folder)])


def _libri_speech(folder: Path, inside: Sequence[Path], split_in: Callable[[str], str | None]) -> dict[str, Dataset]:
    """`<split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt` with a line `<utterance> WORDS` for every
    sound beside it."""
    transcripts = [path for path in inside if path.name.endswith(".trans.txt")]
    beside = {path.with_suffix(""): path for path in inside if path.suffix.lower() in SUFFIXES}

    def rows(path: Path) -> Iterator[tuple[dict[str, object], str]]:
        with read_text(path, None) as lines:
            for number, line in enumerate(lines, 1):
                name, _, text = line.strip().partition(" ")
                if not name:
                    continue
                sound = beside.get(path.parent / name)
                if sound is None:
                    raise DataError(f"{str(path)!r}, line {number}: names {quoted(name)}, and no sound beside it is "
                                    "called so.")
                place = resolved(sound.name, sound.parent, folder, path)
                yield {"text": text, "speaker": name.partition("-")[0], "id": name}, place

    return {split: _rows(rows, files, folder, "librispeech")
            for split, files in _by_split(folder, transcripts, split_in).items()}


def _is_lj_speech(path: Path) -> bool:
    """Whether a list has no header and a bar between its columns, of which the first is a sound's name."""
    if not path.is_file():
        return False
    with read_text(path, None) as lines:
        first = next((line.strip() for line in lines if line.strip()), "")
    name, bar, _ = first.partition("|")
    return bool(bar) and (path.parent / WAVES / f"{name}.wav").is_file()


def _lj_speech(folder: Path, inside: Sequence[Path]) -> dict[str, Dataset]:
    """`metadata.csv` with a line `<utterance>|what is written` for every sound in `wavs`; behind it, after another bar, what
    is said, with numbers and abbreviations in words, which is the text where it is there."""
    beside = {path.name: path for path in inside if path.parent == folder / WAVES}

    def rows(path: Path) -> Iterator[tuple[dict[str, object], str]]:
        with read_text(path, None) as lines:
            for number, line in enumerate(lines, 1):
                name, *texts = line.strip("\n").split("|")
                if not line.strip():
                    continue
                if not 1 <= len(texts) <= 2:
                    raise DataError(f"{str(path)!r}, line {number}: has {len(texts) + 1} columns; expected "
                                    "utterance|text, or utterance|text|text in words.")
                if f"{name}.wav" not in beside:
                    raise DataError(f"{str(path)!r}, line {number}: names {quoted(name)}, and there is no "
                                    f"{WAVES}/{name}.wav.")
                place = resolved(f"{name}.wav", folder / WAVES, folder, path)
                yield {"text": texts[-1].strip(), "written": texts[0].strip(), "id": name}, place

    return {"train": _rows(rows, [folder / _LJ_SPEECH], folder, "ljspeech")}


def _kaldi(folder: Path, inside: Sequence[Path], split_in: Callable[[str], str | None]) -> dict[str, Dataset]:
    """`wav.scp` (`<recording> <file>`), `text` (`<utterance> WORDS`) and, if there, `segments` (`<utterance> <recording>
    <from> <to>`, seconds) in a folder, or in one for each split."""
    lists = [path for path in inside if path.name == "wav.scp"]

    def rows(path: Path) -> Iterator[tuple[dict[str, object], str]]:
        places: dict[str, str] = {}
        for number, (name, place) in enumerate(_pairs(path), 1):
            if place.endswith("|") or place.startswith("|"):
                raise DataError(f"{str(path)!r}, line {number}: is a command, {quoted(place)}; none is run. Expected a file.")
            places[name] = resolved(place, path.parent, folder, path)
        texts = dict(_pairs(path.parent / "text")) if (path.parent / "text").is_file() else {}
        segments = path.parent / "segments"
        cut = list(_pairs(segments)) if segments.is_file() else []
        for name, said in cut:
            parts = said.split()
            if len(parts) != 3 or parts[0] not in places or not all(_is_number(one) for one in parts[1:]):
                raise DataError(f"{str(segments)!r}: {quoted(f'{name} {said}')} is no `utterance recording from to` of a "
                                "recording in wav.scp.")
            start, end = float(parts[1]), float(parts[2])
            yield {"text": texts.get(name), "id": name, "offset": start, "duration": end - start}, places[parts[0]]
        for name, place in places.items() if not cut else ():
            yield {"text": texts.get(name), "id": name}, place

    def beside(files: Sequence[Path]) -> list[Path]:
        return [other for path in files for name in ("text", "segments") if (other := path.parent / name).is_file()]

    return {split: _rows(rows, files, folder, "kaldi", beside(files))
            for split, files in _by_split(folder, lists, split_in).items()}


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    with read_text(path, None) as lines:
        for line in lines:
            if line.strip():
                name, _, rest = line.strip().partition(" ")
                yield name, rest.strip()


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def _common_voice(folder: Path, table: Reader) -> dict[str, Dataset]:
    """`train.tsv`, `dev.tsv`, `test.tsv` with `path` and `sentence`, and the sounds in `clips`; `validated.tsv` where that is
    all."""
    named = {split: folder / f"{name}.tsv" for name, split in _COMMON_VOICE.items() if (folder / f"{name}.tsv").is_file()}
    whole = folder / "validated.tsv"
    if not named and whole.is_file():
        named = {"train": whole}
    if not named:
        raise DataError(f"{str(folder)!r}: has {CLIPS}/ beside tables of Common Voice, but neither train.tsv nor "
                        "validated.tsv; name the table in the recipe.")
    others = sorted(path.name for path in folder.glob("*.tsv") if path not in named.values())
    first = next(iter(named))

    def tables(split: str, notes: Notes) -> Iterator[pa.Table]:
        if others and split == first:
            notes.append((WARNING, f"{str(folder)!r}: {all_of(others[:6])} left out, as "
                                   f"{all_of([path.name for path in named.values()])} are the splits"))
        again = functools.partial(table, named[split], [])
        yield from map(NamedFiles(named[split], SOUNDS, again), table(named[split], notes))

    return {split: kept(functools.partial(tables, split), [path], ["common voice", str(others)])
            for split, path in named.items()}
