"""What is made row by row into Parquet files of a folder, part by part: by several processes, and on after a kill.

Every file says what it depends on and carries a hash of its rows, so that a part of other settings, half a part and a
damaged one are made again, and nothing else is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stilla.errors import StillaError
from stilla.runtime.differences import fingerprint
from stilla.runtime.files import write_whole
from stilla.runtime.narrate import progress
from stilla.runtime.processes import on_main, processes

BATCHES = 8
"""Batches in a part: what a kill may lose."""

Batches = Sequence[Sequence[int]]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Parts:
    """The files of one folder. `schema`: of their rows, of which `key` puts them in order."""

    folder: Path
    schema: pa.Schema

    def make(
        self, batches: Batches, rows_of: Callable[[Sequence[int]], Rows], stamp: Mapping[str, Any], *, title: str,
        begin: Callable[[int], None] = lambda _: None, beside: Mapping[str, Any] | None = None,
    ) -> None:
        """Have every batch made into rows that is not there yet. Every process of a launched run calls this and makes its
        share; the bytes do not depend on how many there are.

        Args:
            stamp: what the rows depend on; stands in every file.
            begin: called with the number of examples that are missing, if some are.
            beside: what else is to be kept in the settings.
        """
        state, mark = processes(), fingerprint(stamp)
        parts = [batches[start : start + BATCHES] for start in range(0, len(batches), BATCHES)]
        on_main(lambda: self._settle(mark, {**stamp, **(beside or {})}, len(parts)))
        missing = [number for number in range(len(parts)) if not is_written(self.file(number), mark)]
        mine = missing[state.process_index :: state.num_processes]
        if missing:
            begin(sum(len(batch) for number in missing for batch in parts[number]))
        with progress(title, sum(len(batch) for number in mine for batch in parts[number]),
                      show=state.is_main_process) as advance:
            for number in mine:
                rows: Rows = []
                for batch in parts[number]:
                    rows += rows_of(batch)
                    advance(len(batch))
                self.save(rows, number, mark)
        state.wait_for_everyone()

    def rows(self) -> Rows:
        """All that was made, in the order of the keys.

        Raises:
            StillaError: parts are missing.
        """
        found: Rows = self.table().to_pylist()
        return found

    def table(self) -> pa.Table:
        """The same as one table.

        Raises:
            StillaError: parts are missing.
        """
        files = [self.file(number) for number in range(self.settings()["parts"])]
        if lacking := [file.name for file in files if not file.is_file()]:
            raise StillaError(f"{self.folder}: {lacking[0]} is missing; run again to have it written")
        return pa.concat_tables([pq.read_table(file) for file in files]).sort_by("key")

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
        return found

    def file(self, number: int) -> Path:
        return self.folder / f"part-{number:05}.parquet"

    def save(self, rows: Rows, number: int, mark: str) -> None:
        plain = pa.Table.from_pylist(rows, self.schema)
        table = plain.replace_schema_metadata({"stamp": mark, "content": fingerprint(plain.to_pylist())})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        write_whole(self.file(number), sink.getvalue().to_pybytes())

    def _settle(self, mark: str, stamp: Mapping[str, Any], parts: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.glob("part-*.parquet"):
            if not is_written(file, mark):
                file.unlink()
        plain = {"stamp": mark, "parts": parts, **stamp}
        write_whole(self.folder / "settings.json", json.dumps(plain, indent=1, ensure_ascii=False))


def is_written(file: Path, mark: str) -> bool:
    """Whether a part was written to its end, for these very settings, and is as it was written."""
    try:
        table = pq.read_table(file)
        content = fingerprint(table.to_pylist()).encode()
    except (OSError, ValueError, pa.ArrowException):
        return False
    metadata = table.schema.metadata or {}
    return bool(metadata.get(b"stamp") == mark.encode() and metadata.get(b"content") == content)
