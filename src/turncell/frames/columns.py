"""Rows to a DataFrame of a documented schema: the same dtypes whatever the rows, also when there are none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from turncell.errors import UsageError
from turncell.frames.schemas import SCHEMAS, Column, Table, otel_name

if TYPE_CHECKING:
    import pyarrow as pa

Backend: TypeAlias = Literal["numpy_nullable", "pyarrow"]


def frame_of(
    table: Table, columns: Iterable[Sequence[Any]], backend: Backend = "numpy_nullable", otel: bool = False
) -> pd.DataFrame:
    """`columns` has the values of each column of the table, in its order; nothing at all stands for no rows."""
    if backend not in ("numpy_nullable", "pyarrow"):
        raise ValueError(f"backend is {backend!r}; use 'numpy_nullable' or 'pyarrow'")
    schema = SCHEMAS[table]
    names = [otel_name(table, column.name) if otel else column.name for column in schema]
    values = list(columns) or [()] * len(schema)
    arrays = [array_of(column, some, backend) for column, some in zip(schema, values, strict=True)]
    return pd.DataFrame(dict(zip(names, arrays, strict=True)), copy=False)


def array_of(column: Column, values: Sequence[Any], backend: Backend) -> Any:
    try:
        return _built(column, values, backend)
    except (TypeError, ValueError):
        # A record of another hand: one odd value is unknown, and costs no other row.
        return _built(column, tuple(v if _is_fit(column, v, backend) else None for v in values), backend)


def _is_fit(column: Column, value: Any, backend: Backend) -> bool:
    try:
        _built(column, (value,), backend)
    except (TypeError, ValueError):
        return False
    return True


def _built(column: Column, values: Sequence[Any], backend: Backend) -> Any:
    if column.dtype == "category":
        unknown = (v for v in dict.fromkeys(values) if v is not None and v not in column.categories)
        return pd.Categorical(values, categories=[*column.categories, *unknown])
    if column.dtype == "datetime64[us, UTC]":
        array: Any = _times(values)
    elif column.dtype == "string":
        try:
            array = pd.array(values, dtype="string")
        except UnicodeEncodeError:  # Arrow's strings are UTF-8, which has no lone surrogates; models write them.
            array = pd.array(
                [v if v is None else v.encode("utf-8", "backslashreplace").decode() for v in values],
                dtype="string",
            )
    else:
        array = pd.array(values, dtype=column.dtype)
    return array if backend == "numpy_nullable" else pd.array(array, dtype=_arrow_dtype(column))


def _times(values: Sequence[float | None]) -> Any:
    seconds = np.array(values, dtype="float64")
    is_known = np.isfinite(seconds)
    microseconds = np.full(len(seconds), np.iinfo("int64").min)
    microseconds[is_known] = np.rint(seconds[is_known] * 1e6)
    return pd.DatetimeIndex(microseconds.view("M8[us]")).tz_localize("UTC").array


def arrow_table(table: Table, frame: pd.DataFrame) -> pa.Table:
    """A frame of a documented schema as Arrow: the same types whatever its rows, categories as dictionaries of strings."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError("Arrow needs pyarrow, which is not installed; pip install 'turncell[arrow]'") from error
    fields = [pa.field(column.name, _arrow_type(column)) for column in SCHEMAS[table]]
    return pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False).replace_schema_metadata(None)


def _arrow_dtype(column: Column) -> pd.ArrowDtype:
    return pd.ArrowDtype(_arrow_type(column))


def _arrow_type(column: Column) -> Any:
    import pyarrow as pa

    return {
        "category": pa.dictionary(pa.int32(), pa.string()),
        "string": pa.string(),
        "Int64": pa.int64(),
        "Float64": pa.float64(),
        "boolean": pa.bool_(),
        "datetime64[us, UTC]": pa.timestamp("us", tz="UTC"),
    }[column.dtype]
