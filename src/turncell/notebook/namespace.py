"""The notebook's own tools: run Python in the person's namespace, look at a variable, list the variables.

They touch what the person's cells touch, so they run on the kernel's main thread (`KernelBridge.on_main`): while a cell
waits for the run, or between the cells where none does. Code does not run as a cell: it counts no `In [n]`, leaves
`Out` and `_` alone, and what it prints and shows goes to the model and to the card, not into a cell.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import functools
import inspect
import io
import linecache
import operator
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

from turncell.core.parts import SEEN, Json
from turncell.errors import CallFailed, UsageError
from turncell.notebook.bridge import JobInterrupted, KernelBridge, TookTooLong, running_shell
from turncell.notebook.failures import trimmed
from turncell.notebook.interpolation import value_at
from turncell.notebook.objects import as_text, in_a_line, is_table, picture_of
from turncell.runtime.options import number
from turncell.runtime.output import TABLE, Output, to_output
from turncell.runtime.tools import Tool

LIMIT_S = 120.0
PRINTED_CHARS = 20_000
"""Of what code prints: the first three quarters of it and the last."""
MOST_DISPLAYS = 20
MOST_VARIABLES = 200
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TURN = re.compile(r"^\s*%{1,2}agent\b", re.M)
_FUTURE = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
_numbers = count(1)


def notebook_tools(*, limit_s: float = LIMIT_S, shell: Any = None) -> list[Tool]:
    """Tools to work in this notebook: `run_python`, `inspect_variable` and `list_variables`.

    `run_python` is a write, so it asks, with the code on the card; the other two only read. Code runs where your cells
    run, for at most `limit_s` seconds per call. UsageError outside of IPython.
    """
    shell = running_shell() if shell is None else shell
    if shell is None:
        raise UsageError("there is no notebook here; notebook_tools() is for IPython: a notebook or its terminal")
    namespace = _Namespace(shell, number("limit_s", limit_s) or LIMIT_S)
    return [
        Tool(namespace.run_python, effect="write"),
        Tool(namespace.inspect_variable, effect="read"),
        Tool(namespace.list_variables, effect="read"),
    ]


class _Namespace:
    def __init__(self, shell: Any, limit_s: float) -> None:
        self._shell, self._limit_s = shell, limit_s
        self._bridge = KernelBridge.current()

    async def run_python(self, code: str) -> Output:
        """Run Python code in the notebook's namespace. Variables stay; the value of the last line is returned.

        Code may use top-level await, %magics and !shell commands. What it prints, its figures and tables come back.

        Args:
            code: The code, as it would stand in a cell.
        """
        if _TURN.search(code):
            raise CallFailed("%agent and %%agent do not run inside of an agent's code; call the tools directly")
        execution = _Execution(self._shell, code)
        try:
            await self._bridge.on_main(execution.run, limit_s=self._limit_s)
        except JobInterrupted:
            return execution.output("[interrupted by the person; what it had done until then has happened]")
        except TookTooLong:
            raise CallFailed(
                execution.text(f"[interrupted after its time limit of {self._limit_s:g} s; it may have had effects]")
            ) from None
        if execution.error is not None:
            raise CallFailed(execution.text(trimmed(execution.error, self._shell))) from None
        return execution.output()

    async def inspect_variable(self, name: str) -> Output:
        """Look at a variable of the notebook, or at a part of one: `df`, `df['price']`, `model.weights`.

        Args:
            name: Its name, with attributes and items if need be. Nothing is called.
        """

        def look() -> Output:
            found, value = value_at(name, self._shell.user_ns)
            if not found:
                raise LookupError(f"there is no {name!r} in the notebook; list_variables says what there is")
            if picture_of(value) is not None:
                return to_output(value)
            if is_table(value):
                return Output(as_text(value), display=to_output(value).display)
            return Output(f"{type(value).__name__}: {as_text(value)}")

        return await self._bridge.on_main(look, limit_s=self._limit_s)

    async def list_variables(self) -> str:
        """List the variables of the notebook with their types."""
        return await self._bridge.on_main(lambda: listed(self._shell), limit_s=self._limit_s)


def listed(shell: Any) -> str:
    """The variables that the person's cells have made, one a line."""
    lines = [f"{name}: {in_a_line(value)}" for name, value in variables(shell).items()]
    if len(lines) > MOST_VARIABLES:
        lines[MOST_VARIABLES:] = [f"[left out: {len(lines) - MOST_VARIABLES:,} more]"]
    return "\n".join(lines) or "The notebook has no variables yet."


def variables(shell: Any) -> dict[str, Any]:
    """What cells have defined, without modules and what IPython has put there."""
    hidden = getattr(shell, "user_ns_hidden", {})
    return {
        name: value
        for name, value in sorted(shell.user_ns.items())
        if not name.startswith("_") and not inspect.ismodule(value) and not (name in hidden and hidden[name] is value)
    }


class _Execution:
    """One piece of code, and what comes of it. `run` is for the main thread."""

    def __init__(self, shell: Any, code: str) -> None:
        self._shell, self._code = shell, code
        self.error: BaseException | None = None
        self._value: Any = None
        self._has_value = False
        self._printed = _Printed()
        self._shown: list[dict[str, Any]] = []

    def run(self) -> None:
        shell = self._shell
        figures = _open_figures()
        with shell.builtin_trap, self._capturing():
            try:
                self._execute()
            except (Exception, SystemExit, GeneratorExit, asyncio.CancelledError) as error:
                self.error = error  # of the code itself, also where it looks like somebody's wish
            self._take_figures(figures)

    def _execute(self) -> None:
        shell = self._shell
        name = f"<run_python {next(_numbers)}>"
        source = shell.transform_cell(self._code)
        # Tracebacks and `inspect` find the lines there; without a time it is not looked for on the disk.
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        tree = shell.transform_ast(ast.parse(source, name))
        flags = shell.compile.flags & _FUTURE | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        last = tree.body[-1] if tree.body else None
        value: ast.Expression | None = None
        if isinstance(last, ast.Expr) and not source.rstrip().endswith(";"):
            value = ast.Expression(tree.body.pop().value)
        for part, mode in ((tree, "exec"), (value, "eval")):
            if part is None or (mode == "exec" and not tree.body):
                continue
            code = compile(part, name, mode, flags, True)
            result = eval(code, shell.user_global_ns, shell.user_ns)
            if code.co_flags & inspect.CO_COROUTINE:
                result = self._awaited(result)
            if mode == "eval":
                self._value, self._has_value = result, result is not None

    def _awaited(self, coroutine: Any) -> Any:
        return KernelBridge.current().run_on_loop(coroutine)

    @contextmanager
    def _capturing(self) -> Iterator[None]:
        from IPython.core.displaypub import CapturingDisplayPublisher

        shell = self._shell
        before = (sys.stdout, sys.stderr, shell.display_pub, shell.system)
        formatters = shell.display_formatter.formatters
        publisher = CapturingDisplayPublisher()
        tees = _Tee(before[0], self._printed), _Tee(before[1], self._printed)
        try:
            sys.stdout, sys.stderr = tees
            shell.display_pub = publisher
            formatters[TABLE] = _table
            shell.system = shell.system_piped  # else a terminal's shell writes past us
            yield
        finally:
            for tee in tees:
                tee.is_over = True
            sys.stdout, sys.stderr, shell.display_pub = before[:3]
            formatters.pop(TABLE, None)
            if "system" in vars(shell):
                del shell.system
            if shell.system != before[3]:
                shell.system = before[3]
            self._take_displays(publisher.outputs)

    def _take_displays(self, outputs: list[dict[str, Any]]) -> None:
        places: dict[str, int] = {}
        for output in outputs:
            data = output.get("data") or {}
            name = (output.get("transient") or {}).get("display_id")
            if output.get("update") and name in places:
                self._shown[places[name]] = data
            else:
                if name:
                    places[name] = len(self._shown)
                self._shown.append(data)

    def _take_figures(self, before: set[int]) -> None:
        """Figures that the code has left open are its output, as they are in a cell."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for name in sorted(_open_figures() - before):
            figure = pyplot.figure(name)
            if not (self._has_value and getattr(self._value, "figure", self._value) is figure):
                with suppress(Exception):  # the code of a figure is the person's, and is drawn now
                    self._shown += [dict(bundle) for bundle in to_output(figure).display]
            if "inline" in pyplot.get_backend().lower():
                pyplot.close(figure)  # or the cell that waits would show it once more

    # -- what is said of it, on any thread

    def text(self, end: str = "") -> str:
        pieces = [self._printed.text().rstrip()]
        for data in self._shown:
            words = data.get("text/plain")
            kind = "an image" if any(kind.startswith("image/") for kind in data) else next(iter(data), "nothing")
            pieces.append(words if isinstance(words, str) else f"[{kind}, shown]")
        return "\n".join(filter(None, [*pieces, end]))

    def output(self, end: str = "") -> Output:
        value = to_output(self._value) if self._has_value else None
        display = [_for_people(data) for data in self._shown[:MOST_DISPLAYS]]
        if len(self._shown) > MOST_DISPLAYS:
            display.append({"text/plain": f"[left out: {len(self._shown) - MOST_DISPLAYS} more]"})
        said = end
        if value is not None:
            display += [dict(bundle) for bundle in value.display]
            is_picture = value.display and not is_table(self._value)
            said = "\n".join(filter(None, [value.content if is_picture else as_text(self._value), end]))
        return Output(self.text(said) or "Done. It printed nothing and its last line has no value.", display=display)


class _Printed:
    """What is printed, of any length: the first part and the last are kept."""

    def __init__(self) -> None:
        self._head, self._tail, self._length = "", "", 0

    def add(self, text: str) -> None:
        self._length += len(text)
        room = PRINTED_CHARS * 3 // 4 - len(self._head)
        self._head += text[: max(room, 0)]
        self._tail = (self._tail + text[max(room, 0) :])[-PRINTED_CHARS // 4 :]

    def text(self) -> str:
        left_out = self._length - len(self._head) - len(self._tail)
        mark = f"\n[left out: {left_out:,} characters of {self._length:,}]\n" if left_out else ""
        text = _ESCAPES.sub("", f"{self._head}{mark}{self._tail}")
        # A progress bar writes its line again and again; the last state counts.
        return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))


class _Tee(io.TextIOBase):
    """Takes what the code prints; what other threads print goes where it went.

    So does, once it is over, what is written by whoever has kept it: a logger that the code has set up.
    """

    def __init__(self, other: Any, printed: _Printed) -> None:
        self._other, self._printed, self._thread = other, printed, threading.get_ident()
        self.is_over = False

    def _is_ours(self) -> bool:
        return not self.is_over and threading.get_ident() == self._thread

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._is_ours():
            self._printed.add(str(text))
        else:
            self._other.write(text)
        return len(text)

    def flush(self) -> None:
        if not self._is_ours():
            self._other.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"


def _open_figures() -> set[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return set(pyplot.get_fignums()) if pyplot is not None else set()


def _table(value: Any) -> Json:
    """The formatter of tables, while code runs: what `display(df)` is for people."""
    if not is_table(value):
        return None
    for bundle in to_output(value).display:
        return dict(bundle).get(TABLE)
    return None


def _for_people(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a card can show of something displayed; images are for the model, too."""
    kept = {kind: data[kind] for kind in (TABLE, "image/png", "image/jpeg", "text/plain") if kind in data}
    if "image/png" in kept or "image/jpeg" in kept:
        kept[SEEN] = True
    return kept or {"text/plain": ", ".join(data)}
