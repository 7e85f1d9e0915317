"""Arrow's newer ways of storing texts, lists and categories, as those that `datasets` knows."""

from __future__ import annotations

import pyarrow as pa


def plain_table(table: pa.Table) -> pa.Table:
    """The same values in types that `datasets` knows: views, dictionaries and run lengths are only ways of storing."""
    columns = [plain_column(column) for column in table.columns]
    if all(new.type == old.type for new, old in zip(columns, table.columns)):
        return table
    fields = [field.with_type(column.type) for field, column in zip(table.schema, columns)]
    return pa.table(columns, schema=pa.schema(fields, table.schema.metadata))


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    wanted = plain_type(column.type)
    if wanted == column.type:
        return column
    return pa.chunked_array([_plain(chunk, wanted) for chunk in column.chunks], wanted)


def _plain(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if array.type == wanted:
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):  # Arrow takes nothing out of views
        array = pa.DictionaryArray.from_arrays(array.indices, _plain(array.dictionary, wanted)).dictionary_decode()
    if _views_lists(array.type) or _lists_nulls(array.type):  # Arrow's cast leaves offsets out, or nulls within lists
        return pa.array(array.to_pylist(), wanted)
    try:
        return array.cast(wanted)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # no such cast (yet) of what lies within lists
        return pa.array(array.to_pylist(), wanted)


def _views_lists(kind: pa.DataType) -> bool:
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return True
    return any(_views_lists(kind.field(place).type) for place in range(kind.num_fields))


def _lists_nulls(kind: pa.DataType) -> bool:
    """Whether what lies within an item of a list is null by its type."""
    return any(_lists_nulls(part) or (_is_list(kind) and with_nulls_as_texts(part) != part)
               for part in (kind.field(place).type for place in range(kind.num_fields)))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def with_nulls_as_texts(item: pa.DataType) -> pa.DataType:
    """The type of a list's items, with texts in the place of what is null in all of them (`{"score": null}`): Arrow's casts,
    of which `datasets` makes some, lose such nulls."""

    def named(field: pa.Field) -> pa.Field:
        return field.with_type(pa.string() if pa.types.is_null(field.type) else with_nulls_as_texts(field.type))

    if pa.types.is_struct(item):
        return pa.struct([named(field) for field in item])
    return pa.list_(named(item.value_field)) if pa.types.is_list(item) else item


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of `datasets` for any of Arrow's; the type itself where they agree."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.JsonType | pa.ExtensionType):
        return kind  # of `datasets`, or somebody's own
    if isinstance(kind, pa.Bool8Type):
        return pa.bool_()
    if isinstance(kind, pa.BaseExtensionType):  # Arrow's: uuid, opaque, tensors
        return plain_type(kind.storage_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list_view(kind) or pa.types.is_list(kind):
        return pa.list_(_plain_item(kind.value_field))
    if pa.types.is_large_list_view(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_plain_item(kind.value_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_item(kind.value_field), kind.list_size)
    if pa.types.is_map(kind):
        return pa.list_(pa.struct([("key", plain_type(kind.key_type)), ("value", plain_type(kind.item_type))]))
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    wanted = plain_type(field.type)
    return field if wanted == field.type else field.with_type(wanted)


def _plain_item(field: pa.Field) -> pa.Field:
    return field.with_type(with_nulls_as_texts(plain_type(field.type)))
