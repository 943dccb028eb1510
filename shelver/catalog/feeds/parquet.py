"""Parquet. One record is one row of the table; its line is its row number, from 1.

A damaged file is a FeedError as a whole: Parquet's pages are compressed columns, so there is no row after the
damage that could be trusted. A single cell that cannot be read (text that is not UTF-8) costs one row.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from shelver.catalog.feeds.delimited import column_names
from shelver.catalog.feeds.stream import BLOCK_BYTES, ByteStream, StreamDamageError
from shelver.catalog.rows import BadRow, Cell, Code, Header, Limits, Row, bad_row
from shelver.errors import FeedError

MAGIC = b"PAR1"
_BATCH_ROWS = 128  # pictures stand in the rows: 128 of 20 kB are 2.5 MB
# What pyarrow raises on damaged files, beside its own family.
_DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError, KeyError, IndexError, TypeError)


def read_parquet(path: Path, limits: Limits) -> Iterator[Header | Row | BadRow]:
    """Reads a Parquet file, plain or gzipped.

    Raises:
        FeedError: the file is not whole Parquet, or is a decompression bomb.
    """
    with ByteStream(path, limits) as stream, tempfile.TemporaryFile() as unpacked:
        try:
            opened: IO[bytes] | str = str(path)
            n_packed = path.stat().st_size
            if stream.gzipped:
                while block := stream.read(BLOCK_BYTES):
                    unpacked.write(block)
                n_packed = unpacked.tell()  # the gzip around it has been held to the same ratio
                unpacked.seek(0)
                opened = unpacked
            yield from _read(opened, n_packed, limits, path.name)
        except (*_DAMAGE, StreamDamageError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise FeedError(
                f"{path.name} is damaged or no Parquet: {reason}",
                allowed="a whole Parquet file",
                remedy="Write or download the file again.",
            ) from error


def _read(opened: IO[bytes] | str, n_packed: int, limits: Limits, name: str) -> Iterator[Header | Row | BadRow]:
    with pq.ParquetFile(opened, page_checksum_verification=True) as file:
        _refuse_bomb(file.metadata, n_packed, limits, name)
        schema: pa.Schema = file.schema_arrow
        header = column_names([str(name) for name in schema.names])
        yield header
        number = 0
        # Threads off: they read ahead, and memory must stay that of one batch.
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            columns = [_cells(batch.column(i)) for i in range(batch.num_columns)]
            for row in range(batch.num_rows):
                number += 1
                yield _row(number, header.columns, [column[row] for column in columns], limits)


def _refuse_bomb(metadata: pq.FileMetaData, n_packed: int, limits: Limits, name: str) -> None:
    n_unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if n_unpacked > limits.bomb_bytes and n_unpacked > limits.bomb_ratio * n_packed:
        raise FeedError(
            f"{name}: {n_packed:,} packed bytes unpack to {n_unpacked:,}",
            allowed=f"Parquet that unpacks to at most {limits.bomb_ratio} times its size",
            remedy="This is what a decompression bomb looks like; write it again uncompressed if you trust it.",
        )


class _Broken:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _cells(column: pa.Array) -> list[Any]:
    """Python values of a column; a `_Broken` stands where a cell cannot be read."""
    try:
        if pa.types.is_temporal(column.type):  # Python has no nanoseconds, and no year 10,000
            column = column.cast(pa.string())
        return column.to_pylist()  # type: ignore[no-any-return]
    except _DAMAGE:
        values: list[Any] = []
        for scalar in column:
            try:
                values.append(scalar.as_py())
            except _DAMAGE as error:
                values.append(_Broken(str(error)[:120]))
        return values


def _row(number: int, names: tuple[str, ...], raw: list[Any], limits: Limits) -> Row | BadRow:
    values: dict[str, Cell] = {}
    for name, value in zip(names, raw, strict=True):
        if type(value) is str:
            if len(value) > limits.cell_bytes:
                message = f"{len(value):,} characters; at most {limits.cell_bytes:,} are allowed"
                return bad_row(number, Code.cell_too_large, message, field=name, raw=value[:200])
            values[name] = value
        elif isinstance(value, _Broken):
            message = f"the cell cannot be read: {value.reason}"
            return bad_row(number, Code.bad_encoding, message, field=name)
        else:
            values[name] = as_cell(value)
    return Row(number, values)


def as_cell(value: object) -> Cell:
    """Any Python value as a cell: numbers, dates and truth values become text, a typed NaN is None."""
    if value is None or isinstance(value, str | bytes):
        return value
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        # A column of whole numbers with gaps is stored as floats by many tools: 12.0 is the id 12.
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list | tuple):
        return [as_cell(item) for item in value]
    if isinstance(value, dict):
        return {str(key): as_cell(item) for key, item in value.items()}
    return str(value)
