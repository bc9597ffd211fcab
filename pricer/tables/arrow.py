"""Cells of a parquet file as Python values, whatever types and bytes it holds; and whether it is safe to unpack."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from pricer.errors import InputError
from pricer.tables import lines
from pricer.tables.cells import NO_UTF8

# Of a row group, unpacked: of each column at most as much as one page may hold; and, as no honest table packs this
# well, far less where it was packed to a two-hundredth.
PARQUET_BYTES, BOMB_BYTES, BOMB_RATIO = 2 * 2**30, 2**28, 200


def plain(scalar: pa.Scalar) -> Any:
    """The cell's value. Text that is not UTF-8 comes as bytes, and a time that Python lacks as its number in text."""
    try:
        return scalar.as_py()
    except Exception:  # dates out of range, unknown time zones, no UTF-8: pyarrow raises unrelated classes
        if isinstance(scalar, pa.DictionaryScalar):
            return plain(scalar.dictionary[scalar.index.as_py()])
        if isinstance(scalar, pa.StructScalar):
            return {name: plain(scalar[name]) for name in scalar.type.names}
        if isinstance(scalar, pa.ListScalar):
            return [plain(value) for value in scalar.values]
        if hasattr(scalar, "as_buffer"):
            return scalar.as_buffer().to_pybytes()
        zone = getattr(scalar.type, "tz", None)
        ways = [(scalar, "")]
        if zone:  # that nobody knows
            ways.append((scalar.cast(pa.timestamp(scalar.type.unit)), f" {zone}"))
        for way, behind in ways:
            with suppress(Exception):  # as above
                if not (written := way.cast(pa.string()).as_py()).startswith("<"):
                    return written + behind
        return str(getattr(scalar, "value", scalar))


def values(column: pa.Array | pa.ChunkedArray) -> list:
    """`plain` of every cell."""
    try:
        return column.to_pylist()
    except Exception:  # as in `plain`
        return [plain(scalar) for scalar in column]


def sound_schema(schema: pa.Schema, as_text: Collection[str] = ()) -> pa.Schema:
    """The schema that is passed on: a time in a zone that nobody knows becomes text, as do the columns `as_text`."""
    for at, field in enumerate(schema):
        if field.name in as_text or any(map(_is_lost, _leaves(field.type))):
            schema = schema.set(at, pa.field(field.name, pa.string()))
    return schema.remove_metadata()


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    """The kinds of single values that cells of this kind hold."""
    inner = kind.value_type if kinds.is_dictionary(kind) else kind
    if not kinds.is_nested(inner):
        yield inner
        return
    for at in range(inner.num_fields):
        yield from _leaves(inner.field(at).type)


def _is_lost(kind: pa.DataType) -> bool:
    if not (kinds.is_timestamp(kind) and kind.tz):
        return False
    try:
        pa.scalar(0, kind).as_py()
    except Exception:  # of the time zone library
        return True
    return False


def holds_dates(kind: pa.DataType) -> bool:
    """Whether cells of this kind are dates or times of day, or have some in them: pandas makes Python's of them."""
    return any(kinds.is_date(leaf) or kinds.is_time(leaf) for leaf in _leaves(kind))


def opens(column: pa.Array) -> bool:
    """Whether pandas opens a file with these cells: it lacks the year 29349, and nanoseconds of a day."""
    try:
        column.to_pandas()
    except Exception:  # as in `plain`
        return False
    return True


def sound_batch(batch: pa.RecordBatch, schema: pa.Schema) -> tuple[pa.RecordBatch, dict[int, str]]:
    """The batch in the types of `schema`, with bytes that are no UTF-8 written as escapes (`Caf\\xe9`), since readers
    of the result would fail on them; and the rows whose lists or records hold such bytes, with the reason."""
    columns, rejected = [], {}
    for field, column in zip(schema, batch.columns, strict=True):
        if column.type != field.type:
            exact = column.cast(field.type) if kinds.is_time(column.type) else column  # with its nanoseconds
            column = pa.array(map(as_text, values(exact)), field.type)
        elif not _is_sound(column):
            if kinds.is_nested(field.type):
                wrong = [at for at in range(len(column)) if not _is_sound(column.take(pa.array([at])))]
                rejected |= {at: f"column {field.name}: {NO_UTF8}" for at in wrong}
            else:
                column = pa.array(map(escaped, values(column)), pa.string()).cast(field.type)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema), rejected


def _is_sound(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowIndexError):
        return False
    return True


def escaped(value: Any) -> Any:
    """Bytes and broken text as text, with what is not UTF-8 written out."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def as_text(value: Any) -> str | None:
    """A cell's value in words; what JSON has of its own as JSON."""
    if isinstance(value, list | tuple | dict | bool | int | float):
        value = json.dumps(value, ensure_ascii=False, default=lambda inner: str(escaped(inner)))
    return value if value is None else str(escaped(value))


def check_unpacked(file: pq.ParquetFile, packed: int, name: str) -> None:
    """Raise InputError for a parquet file of `packed` bytes that would unpack to far more, before it is unpacked.

    By row groups: asked for one of its columns, pyarrow ends the whole process on some damaged files.
    """
    about = file.metadata
    for group in map(about.row_group, range(about.num_row_groups)):
        size, columns = group.total_byte_size, max(about.num_columns, 1)
        bomb = size > BOMB_BYTES and size > BOMB_RATIO * packed
        if (
            bomb
            or size > PARQUET_BYTES * columns
            or size > lines.ROW_BYTES * columns * max(group.num_rows, 1)
        ):
            raise InputError(
                f"{name} unpacks to {size / 2**30:,.1f} GB in one piece: leave out rows that are too long, or write it "
                "again with smaller row groups."
            )
