"""Quotation marks in TSV: characters of the text, unless a program evidently wrote them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from logging import INFO, WARNING
from pathlib import Path

from stilla.data.kept import Notes
from stilla.data.opened import long_fields, read_text


def written_with_quotes(path: Path, separator: str, notes: Notes) -> bool:
    """Whether a program wrote the file as a CSV with tabs: it would write the same characters again.

    Programs put between quotation marks what needs it (Python, pandas), all fields, or all texts (R). Where a mark stands
    otherwise, a person or a program without quoting wrote it, and it is part of the text.
    """
    with read_text(path, "") as lines:
        first = next((number for number, line in enumerate(lines, 1)
                      if line.startswith('"') or f'{separator}"' in line), None)
    if first is None:
        return False
    styles = {"needed", "all", "texts"}
    try:
        with long_fields(), read_text(path, "") as lines:
            raw: list[str] = []
            for row in csv.reader(_noting(lines, raw), delimiter=separator, strict=True):
                written = "".join(raw).rstrip("\r\n")
                raw.clear()
                styles = {style for style in styles if not row or written == separator.join(_write(row, style, separator))}
                if not styles:
                    break
    except csv.Error:
        styles = set()
    if styles:
        notes.append((INFO, f"{path.name}: written with quotation marks around fields, and read so"))
        return True
    notes.append((WARNING, f"{path.name}: fields that begin with a quotation mark (line {first}) are read as they stand, "
                           "marks and all, as TSV has no quoting. Save it as .csv if they were put there by a program"))
    return False


def _noting(lines: Iterator[str], raw: list[str]) -> Iterator[str]:
    for line in lines:
        raw.append(line)
        yield line


def _write(row: Sequence[str], style: str, separator: str) -> list[str]:
    def marked(field: str) -> bool:
        if style == "needed":
            return any(one in field for one in (separator, '"', "\r", "\n"))
        return style == "all" or not (field in ("", "NA") or field.lstrip("+-").replace(".", "", 1).isdigit())

    return ['"' + field.replace('"', '""') + '"' if marked(field) else field for field in row]
