"""The history of a run, a session, a store or files, as DataFrames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from turncell.errors import UsageError
from turncell.frames import costs, tables
from turncell.frames.columns import Backend, arrow_table
from turncell.frames.rows import Rows, read
from turncell.frames.schemas import SCHEMAS, Table, schema_text
from turncell.frames.sources import Filters, Scope, progress, read_all, wanted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from turncell.frames.plots import Plots
    from turncell.runtime.budget import Budget

FORMATS = ("numpy_nullable", "pyarrow")


class History:
    """What was recorded, as five tables, costs and plots. Made by `turncell.history`.

    Each method reads the store anew, so a run that is still going on is shown as it is now. `tables()` gives all five
    tables from one reading.
    """

    def __init__(self, of: Scope = None, *, has_copies: bool = False, **filters: Unpack[Filters]) -> None:
        self._of = of
        self._has_copies = has_copies
        self._filters = filters
        self._wanted = wanted(filters)

    def runs(self, *, backend: Backend = "numpy_nullable", otel: bool = False) -> pd.DataFrame:
        """One row per run: what was asked and answered, status, tokens, cost (`<NA>` where unknown), times."""
        return self._table("runs", backend, otel)

    def steps(self, *, backend: Backend = "numpy_nullable", otel: bool = False) -> pd.DataFrame:
        """One row per model call: the usage table."""
        return self._table("steps", backend, otel)

    def messages(self, *, backend: Backend = "numpy_nullable", otel: bool = False) -> pd.DataFrame:
        """One row per message: prompts, answers, results of tools, what was said in between."""
        return self._table("messages", backend, otel)

    def calls(self, *, backend: Backend = "numpy_nullable", otel: bool = False) -> pd.DataFrame:
        """One row per tool call, with what was decided about it, by whom, and what came of it."""
        return self._table("calls", backend, otel)

    def events(self, *, backend: Backend = "numpy_nullable", otel: bool = False) -> pd.DataFrame:
        """One row per recorded event."""
        return self._table("events", backend, otel)

    def tables(self, *, backend: Backend = "numpy_nullable", otel: bool = False) -> tables.Tables:
        """All five, from one reading."""
        found = read_all(self._of, self._wanted)
        return tables.tables(
            found.records, backend=backend, otel=otel, alive=found.alive, elsewhere=found.elsewhere,
            has_copies=self._has_copies, keeps=self._wanted.holds,
        )  # fmt: skip

    def arrow(self, table: Table) -> pa.Table:
        """A table for Arrow, with `__arrow_c_stream__`: `polars.DataFrame(history.arrow("runs"))`. Needs pyarrow."""
        if table not in SCHEMAS:
            raise UsageError(f"there is no table {table!r}; use {', '.join(SCHEMAS)}")
        return arrow_table(table, self._table(table, "numpy_nullable", False))

    def to_parquet(self, folder: str | Path) -> list[Path]:
        """Write `runs.parquet`, `steps.parquet` ... into a folder, which is made; returns their paths. Needs pyarrow."""
        pq = _parquet()
        folder = Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        found = self.tables()
        with progress(len(SCHEMAS), "tables", "writing Parquet") as advance:
            for name, frame in zip(found._fields, found, strict=True):
                written.append(folder / f"{name}.parquet")
                pq.write_table(arrow_table(name, frame), written[-1])  # type: ignore[arg-type]
                advance(1)
        return written

    def cost_by(self, by: costs.By) -> pd.DataFrame:
        """See `turncell.cost_by`."""
        return costs.cost_by(self, by)

    def cache_savings(
        self, by: costs.By = "model", prices: Mapping[str, costs.CachePrice] | None = None
    ) -> pd.DataFrame:
        """See `turncell.frames.costs.cache_savings`."""
        return costs.cache_savings(self, by, prices)

    def what_if(self, budget: Budget | Mapping[str, Any]) -> pd.DataFrame:
        """What this budget for each run would have stopped. See `turncell.frames.costs.what_if`."""
        return costs.what_if(self, budget)

    @property
    def plot(self) -> Plots:
        """`plot.tokens()`, `plot.cost()`, `plot.timeline(run)`, `plot.tools()`: matplotlib axes. Needs matplotlib."""
        from turncell.frames.plots import Plots

        return Plots(self)

    def rows(self) -> Rows:
        """What the tables are made of."""
        found = read_all(self._of, self._wanted)
        return read(
            found.records, alive=found.alive, elsewhere=found.elsewhere, has_copies=self._has_copies,
            keeps=self._wanted.holds,
        )  # fmt: skip

    def _table(self, name: Table, backend: Backend, otel: bool) -> pd.DataFrame:
        if backend not in FORMATS:
            raise UsageError(f"backend is {backend!r}; use {' or '.join(map(repr, FORMATS))}")
        found = read_all(self._of, self._wanted)
        return tables.table(
            name, found.records, backend=backend, otel=otel, alive=found.alive, elsewhere=found.elsewhere,
            has_copies=self._has_copies, keeps=self._wanted.holds,
        )  # fmt: skip

    def __repr__(self) -> str:
        from turncell.frames.reprs import history_text

        return history_text(self)

    def _repr_html_(self) -> str:
        from turncell.frames.reprs import history_html

        return history_html(self)

    @property
    def what(self) -> str:
        """Whose history, and which part of it, in words."""
        given = ", ".join(f"{name}={value!r}" for name, value in self._filters.items())
        of = "the store" if self._of is None else repr(self._of) if isinstance(self._of, str) else str(self._of)
        return f"{of} ({given})" if given else of


def history(of: Scope = None, *, has_copies: bool = False, **filters: Unpack[Filters]) -> History:
    """What was recorded of a run, a session, a Journal, files, or (None) the whole store.

    A file is an exported session (.jsonl, .md), a store (.sqlite), or a folder of exported sessions; a list of them is
    one history. Runs that a fork copied are left out, unless `has_copies`: their originals count.

    Filters:

    session       a Session or its id, or several
    project       the folder that the session was begun in
    model         a name; `*` stands for anything. Or several
    status        one, or several, such as ["failed", "cancelled"]
    since, until  a datetime, a text ("2026-11-21 08:00", UTC unless it has a zone), or how long ago ("7 days", "3 h", a timedelta)

    None is no filter; an empty list holds for no run.

    >>> from turncell import Agent
    >>> from turncell.testing import ScriptedModel
    >>> run = Agent(ScriptedModel(["Fine."])).run_sync("How are you?")
    >>> history(run).runs()["text"].tolist()
    ['Fine.']
    """
    return History(of, has_copies=has_copies, **filters)


def runs_df(
    of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable", otel: bool = False,
    **filters: Unpack[Filters],
) -> pd.DataFrame:  # fmt: skip
    """One row per run: prompt and answer, status, tokens, cost (`<NA>` if unknown), times."""
    return History(of, has_copies=has_copies, **filters).runs(backend=backend, otel=otel)


def steps_df(
    of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable", otel: bool = False,
    **filters: Unpack[Filters],
) -> pd.DataFrame:  # fmt: skip
    """One row per model call: tokens, cost, times."""
    return History(of, has_copies=has_copies, **filters).steps(backend=backend, otel=otel)


def messages_df(
    of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable", otel: bool = False,
    **filters: Unpack[Filters],
) -> pd.DataFrame:  # fmt: skip
    """One row per message, in order: prompts, answers, results of tools, steered messages."""
    return History(of, has_copies=has_copies, **filters).messages(backend=backend, otel=otel)


def calls_df(
    of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable", otel: bool = False,
    **filters: Unpack[Filters],
) -> pd.DataFrame:  # fmt: skip
    """One row per tool call: arguments, who decided what, result, times."""
    return History(of, has_copies=has_copies, **filters).calls(backend=backend, otel=otel)


def events_df(
    of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable", otel: bool = False,
    **filters: Unpack[Filters],
) -> pd.DataFrame:  # fmt: skip
    """One row per recorded event, with its JSON."""
    return History(of, has_copies=has_copies, **filters).events(backend=backend, otel=otel)


for _name, _function in (
    ("runs", runs_df),
    ("steps", steps_df),
    ("messages", messages_df),
    ("calls", calls_df),
    ("events", events_df),
):
    _function.__doc__ = (
        f'{_function.__doc__}\n\n`of`, `has_copies` and filters are those of `history`. With `backend="pyarrow"` columns are '
        "Arrow-backed,\nwith `otel=True` they have OpenTelemetry's names.\n\n"
        f"{schema_text(_name)}\n"  # type: ignore[arg-type]
    )


def _parquet() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow, which is not installed; pip install 'turncell[arrow]'") from error
    return pq
