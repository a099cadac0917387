"""`agent.map`: rows in, a DataFrame out. What runs them is `runtime/batch.py`."""

from __future__ import annotations

import string
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from turncell.errors import UsageError, say
from turncell.frames.words import dollars
from turncell.runtime.batch import Progress, Row, map_rows
from turncell.runtime.output_type import OutputType

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent

_TEXT = "text"
"""The column of a list of texts, and of a Series without a name."""
_REDRAWN_S = 0.1
"""At most so often: there may be thousands of rows."""


def map_frame(
    agent: Agent,
    rows: Any,
    prompt: str | Callable[[dict[str, Any]], Any] | None = None,
    *,
    output: Any = None,
    budget: Any = None,
    concurrency: int | None = None,
    timeout_s: float | None = None,
    resume: str | None = None,
    executor: Any = None,
    progress: bool | Callable[[Progress], Any] | None = None,
) -> pd.DataFrame:
    """See `Agent.map`."""
    frame = _frame(rows)
    wanted = agent.output if output is None else OutputType(output)
    prompts = _prompts(frame, prompt)
    tell, close = _progress(progress)
    try:
        done, batch = map_rows(
            agent, prompts, output=output, budget=budget, concurrency=concurrency, timeout_s=timeout_s, name=resume,
            executor=executor, tell=tell,
        )  # fmt: skip
    finally:
        close()
    result = frame.copy()
    taken = {*map(str, frame.columns), *map(str, frame.columns.get_level_values(0))}
    below = [""] * (frame.columns.nlevels - 1)
    for wish, values in _columns(done, wanted):
        name = _free(wish, taken)
        taken.add(name)
        result[(name, *below) if below else name] = pd.Series(values.array, index=result.index)
    result.attrs |= {"batch": batch.name, "is_interrupted": batch.is_stopped}
    return result


def _frame(rows: Any) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        names = pd.Index([str(name) for name in rows.columns])  # as a prompt has them: 1 and "1" are one
        twice = sorted(set(names[names.duplicated()]))
        if twice:
            raise UsageError(f"the DataFrame has more than one column called {', '.join(twice)}; rename them")
        return rows
    if isinstance(rows, pd.Series):
        return rows.to_frame(rows.name if rows.name is not None else _TEXT)
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise UsageError(f"map takes a DataFrame, a Series, a list of mappings or of texts; found {rows!r}")
    found = list(rows)
    if all(isinstance(row, Mapping) for row in found) and found:
        return pd.DataFrame([dict(row) for row in found])
    if all(isinstance(row, str) for row in found):
        return pd.DataFrame({_TEXT: pd.Series(found, dtype="object")})
    odd = next(row for row in found if not isinstance(row, str))
    raise UsageError(f"map takes a list of mappings or of texts, and not of both; found {odd!r}")


def _prompts(frame: pd.DataFrame, prompt: Any) -> list[Any]:
    """A prompt for each row, or the exception that is its error."""
    names = [str(name) for name in frame.columns]
    rows = [dict(zip(names, values, strict=True)) for values in frame.itertuples(index=False, name=None)]
    if prompt is None:
        if len(names) != 1:
            raise UsageError(f"which column is the prompt? There are {names}; write map(rows, 'Classify: {{text}}')")
        return [_only(name, value) for row in rows for name, value in row.items()]
    if callable(prompt):
        return [_tried(prompt, row) for row in rows]
    if not isinstance(prompt, str):
        raise UsageError(f"prompt is {prompt!r}; use a text such as 'Classify: {{text}}', or a function of the row")
    try:
        used = [field for _, field, _, _ in _Template().parse(prompt) if field is not None]
    except ValueError as error:
        raise UsageError(f"prompt is {prompt!r}: {error}; write {{{{ and }}}} for braces that are meant") from error
    missing = [field for field in used if field not in names]
    if missing:
        raise UsageError(f"the prompt wants {', '.join(map(repr, missing))}; the columns are {names}")
    return [_tried(lambda row: _Template().vformat(prompt, (), row), row) for row in rows]


class _Template(string.Formatter):
    """What stands in braces is the whole name of a column: `{0}`, `{user.name}`, `{first name}`."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return kwargs[field_name], field_name


def _only(name: str, value: Any) -> str | Exception:
    if pd.api.types.is_scalar(value) and pd.isna(value):  # "nan" would be asked, and paid
        return UsageError(f"no prompt could be made of this row: its {name} is missing")
    return str(value)


def _tried(make: Callable[[dict[str, Any]], Any], row: dict[str, Any]) -> Any:
    try:
        return make(row)
    except Exception as error:
        return UsageError(f"no prompt could be made of this row: {say(error)}")


def _columns(rows: list[Row], wanted: OutputType | None) -> Iterator[tuple[str, pd.Series[Any]]]:
    """Those of the answer, then those of the run. A field of the answer may be called as one of the run."""
    if wanted is None:
        answers = [row.text if row.run_id else None for row in rows]
        yield "answer", pd.Series(answers, dtype="string")
    elif wanted.fields:
        for name in wanted.fields:
            yield name, pd.Series([_field(row.output, name) for row in rows], dtype="object").infer_objects()
    else:
        yield "output", pd.Series([row.output for row in rows], dtype="object").infer_objects()
    yield "status", pd.Series([row.status for row in rows], dtype="string")
    yield "error", pd.Series([row.error for row in rows], dtype="string")
    yield "tokens", pd.Series([row.tokens for row in rows], dtype="Int64")
    yield "cost_usd", pd.Series([row.cost_usd for row in rows], dtype="Float64")
    yield "run_id", pd.Series([row.run_id or None for row in rows], dtype="string")


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name)
    return getattr(value, name, None)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_run"
    return name


def _progress(wanted: Any) -> tuple[Callable[[Progress], Any] | None, Callable[[], None]]:
    """What is told of each row, and what ends it."""
    if wanted is None:
        wanted = sys.stderr.isatty() or "ipykernel" in sys.modules
    if not isinstance(wanted, bool):
        if not callable(wanted):
            raise UsageError(f"progress is {wanted!r}; use True, False or a function of a Progress")
        return wanted, lambda: None
    if not wanted:
        return None, lambda: None
    bar = _CellBar() if _is_in_a_cell() else _Bar()
    return bar.show, bar.close


def _is_in_a_cell() -> bool:
    if "ipykernel" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


class _CellBar:
    """An output of the cell that is written anew. A widget, such as Rich's bar is one, would be an error in a saved notebook."""

    def __init__(self) -> None:
        self._began_at, self._drawn_at = time.monotonic(), 0.0
        self._display: Any = None
        self._last: Progress | None = None
        self._is_drawn = False

    def show(self, progress: Progress) -> None:
        self._last, self._is_drawn = progress, False
        if time.monotonic() - self._drawn_at >= _REDRAWN_S:
            self.close()

    def close(self) -> None:
        """Draw what was said last."""
        from IPython.display import display

        if self._last is None or self._is_drawn:
            return
        self._is_drawn, self._drawn_at = True, time.monotonic()
        bundle = _bundle(self._last, self._drawn_at - self._began_at)
        if self._display is None:
            self._display = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._display.update(bundle, raw=True)


def _bundle(progress: Progress, elapsed_s: float) -> dict[str, str]:
    said = f"{progress.done} of {progress.total} rows"
    if progress.failed:
        said += f", {progress.failed} not completed"
    costs = [f"{progress.tokens} tokens", *([dollars(progress.cost_usd)] if progress.cost_usd else [])]
    minutes, seconds = divmod(int(elapsed_s), 60)
    bar = f'<progress max="{progress.total or 1}" value="{progress.done}"></progress>'
    # Only there: what text/plain says is compared (nbval), and is the same each time.
    return {"text/html": f"{bar} {said}, {', '.join(costs)}, {minutes}:{seconds:02} min", "text/plain": said}


class _Bar:
    """Rich's bar, in a terminal. Drawn when something was told, without a thread of its own."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Rich

        self._rich = Rich(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=Console(stderr=True), auto_refresh=False,
        )  # fmt: skip
        self._task = self._rich.add_task("", total=None)
        self._rich.start()

    def show(self, progress: Progress) -> None:
        said = [f"{progress.tokens} tokens"]
        if progress.cost_usd:
            said.append(dollars(progress.cost_usd))
        if progress.failed:
            said.append(f"{progress.failed} not completed")
        self._rich.update(self._task, completed=progress.done, total=progress.total, description=", ".join(said))
        self._rich.refresh()

    def close(self) -> None:
        self._rich.stop()
