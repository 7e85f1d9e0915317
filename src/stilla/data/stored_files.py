"""Paths that stand in data: they lead to files beside the data, and nowhere else.

A table of somebody else's may name any file of this machine. Only what lies in the data's own folder is opened: no absolute
path to elsewhere, no way out by `..` or a link, no pipe, no device, no address.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stilla.errors import DataError, quoted


def resolved(name: str, beside: Path, folder: Path, where: Path) -> str:
    """The absolute path of a file that data name, relative to `beside`, somewhere in `folder`. Where nothing is there it is
    named all the same: whoever opens it says so of its row, and leaves it out where the recipe asks for that.

    Raises:
        DataError: `where` names an address, something outside of the folder, or what is there and no regular file.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", name) or "::" in name:
        raise DataError(f"{str(where)!r}: names {quoted(name, 200)}; nothing is fetched from addresses: expected files "
                        "beside it.")
    if "\0" in name:
        raise DataError(f"{str(where)!r}: names {quoted(name, 200)}, which is no name of a file.")
    if "\\" in name and not os.path.lexists(beside / name):  # a table written on Windows
        name = name.replace("\\", "/")
    path, inside = os.path.realpath(beside / name), os.path.realpath(folder)
    if os.path.commonpath([path, inside]) != inside:
        raise DataError(f"{str(where)!r}: names {quoted(name, 200)}, which lies outside of {str(folder)!r}; only files "
                        "within are opened. Move the files there, or store their bytes.")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise DataError(f"{str(where)!r}: names {quoted(name, 200)}, which is no file in {str(folder)!r}.")
    return path


def with_own_files(table: pa.Table, where: Path, *, absolute: bool = False) -> pa.Table:
    """The same rows, where pictures (and other files) without bytes lie within the folder of the table's file.

    `absolute`: names must be, as they are used as they stand.

    Raises:
        DataError: they do not.
    """
    for place, field in enumerate(table.schema):
        if not stores_files(field.type):
            if may_store_files(field.type):
                _refuse_within(table.column(place), where)
            continue
        column = pa.concat_arrays(table.column(place).chunks)
        paths, known = column.field("path"), column.field("bytes")
        outside = pc.and_(pc.is_valid(column), pc.and_(pc.is_null(known), pc.is_valid(paths)))
        if not pc.any(outside).as_py():
            continue
        if absolute and (loose := [name for name in paths.filter(outside).to_pylist() if not os.path.isabs(name)]):
            raise DataError(f"{str(where)!r}: names {quoted(loose[0], 200)}, which is no file: not a whole path. Store "
                            "the bytes.")
        names = [resolved(name, where.parent, where.parent, where) if here else name
                 for name, here in zip(paths.to_pylist(), outside.to_pylist())]
        fields = [pa.array(names, inner.type) if inner.name == "path" else column.field(inner.name) for inner in field.type]
        changed = pa.StructArray.from_arrays(fields, fields=list(field.type), mask=pc.is_null(column))
        table = table.set_column(place, field, changed)
    return table


def may_store_files(kind: pa.DataType) -> bool:
    """Whether values of this type, or within it, can name files."""
    return stores_files(kind) or any(may_store_files(kind.field(place).type) for place in range(kind.num_fields))


def holds_files(schema: pa.Schema) -> bool:
    """Whether rows of a table hold files, or what can be some: bytes."""
    return any(may_store_files(field.type) or pa.types.is_binary(field.type) for field in schema)


def _refuse_within(column: pa.ChunkedArray, where: Path) -> None:
    """Files that are named within lists or other objects: nobody here reads those, and nothing else shall."""
    arrays = list(column.chunks)
    while arrays:
        array = arrays.pop()
        if pa.types.is_struct(array.type):
            fields = dict(zip((field.name for field in array.type), array.flatten()))
            named = stores_files(array.type) and pc.and_(pc.is_null(fields["bytes"]), pc.is_valid(fields["path"]))
            if named is not False and pc.any(named).as_py():
                raise DataError(f"{str(where)!r}: names files within lists or objects; store their bytes.")
            arrays += fields.values()
        elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
            arrays.append(array.flatten())


def stores_files(kind: pa.DataType) -> bool:
    """Whether values of this type are files: their bytes, or where they lie."""
    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {field.name for field in kind}
