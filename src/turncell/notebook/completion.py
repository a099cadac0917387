"""Tab completion of `%%agent` and `%agent`: options, commands, and the names that stand for something.

It reads the notebook and the store; it never fails, for a completion that raises would stand in the person's way.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from turncell.core.policy import MODES

if TYPE_CHECKING:
    from turncell.notebook.notebook import Notebook

log = logging.getLogger("turncell")
_KEYS = ("%agent", "%%agent")
_LIST_LIMIT = 200


def install(shell: Any, notebook: Callable[[], Notebook], parser: Any) -> Callable[[], None]:
    """Complete in this shell; the returned function takes that back."""

    def complete(_: Any, event: Any) -> list[str]:
        try:
            return completions(notebook(), parser, event.line, event.symbol)
        except Exception:
            log.debug("no completion", exc_info=True)
            return []

    for key in _KEYS:
        shell.set_hook("complete_command", complete, str_key=key)

    def remove() -> None:
        known = getattr(shell.strdispatchers.get("complete_command"), "strs", {})
        for key in _KEYS:
            known.pop(key, None)

    return remove


def completions(notebook: Notebook, parser: Any, line: str, symbol: str) -> list[str]:
    """What can stand where the line ends; `symbol` is the beginning of it that is there already."""
    magic, *words = line.split()
    if symbol and words and words[-1].endswith(symbol):
        words = words[:-1]
    found = _of_cell(notebook, parser, words) if magic == "%%agent" else _of_line(notebook, words)
    return sorted(one for one in found if one.startswith(symbol))


def _of_cell(notebook: Notebook, parser: Any, words: list[str]) -> Iterable[str]:
    options = {option: action for action in parser._actions for option in action.option_strings}
    last = next((word for word in reversed(words) if word.startswith("-")), None)
    action = options.get(last or "")
    # -t takes many names; the others are complete after one.
    if action is not None and action.nargs != 0 and (words[-1] == last or action.nargs == "+"):
        values = _values(notebook, action.dest)
        return [*values, *options] if action.nargs == "+" and words[-1] != last else values
    return [option for option in options if option.startswith("--")]


def _values(notebook: Notebook, dest: str) -> Iterable[str]:
    from turncell.runtime.agent import Agent
    from turncell.runtime.tools import Tool

    def named(fits: Callable[[Any], bool]) -> list[str]:
        return [name for name, value in notebook.names.items() if not name.startswith("_") and fits(value)]

    if dest == "model":
        return _models()
    if dest == "agent":
        return named(lambda value: isinstance(value, Agent))
    if dest == "tools":
        return named(lambda value: isinstance(value, Tool) or inspect.isfunction(value))
    if dest == "schema":
        return named(lambda value: isinstance(value, type))
    if dest == "session":
        return _sessions()
    if dest == "mode":
        return MODES
    if dest == "view":
        return ("live", "keep", "text", "none")
    return ()


def _of_line(notebook: Notebook, words: list[str]) -> Iterable[str]:
    from turncell.notebook.commands import commands

    if not words:
        return commands()
    name, session = words[0], notebook.session
    options = [word.strip("[]") for word in commands()[name].usage.split() if word.strip("[]").startswith("-")]
    if words[-1] in ("-a", "--agent"):
        return _values(notebook, "agent")
    if words[-1] == "--scope":
        return ("once", "session", "always")
    if name in ("resume", "takeover", "delete"):
        return [*_sessions(), *options]
    if name in ("branch", "show"):
        return [run.run_id for run in session.all_runs] if session else ()
    if name in ("approve", "deny", "answer"):
        return [*(call.call_id for call in (notebook.run.requests if notebook.run else ())), *options]
    if name == "tools":
        return [*_values(notebook, "tools"), "--none"]
    if name == "model":
        return _models()
    if name == "models":
        return {model.partition("/")[0] for model in _models()}
    if name == "mode":
        return MODES
    return options


def _models() -> list[str]:
    from turncell.adapters.price_list import listed_models

    return ["embedded", *listed_models()]


def _sessions() -> list[str]:
    from turncell.runtime.session import Session

    return [info.session_id for info in Session.list()[:_LIST_LIMIT]]
