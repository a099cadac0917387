"""Tab completion of `%%agent` and `%agent`: options, commands, and the names that stand for something.

It reads the notebook and the store; it never fails, for a completion that raises would stand in the person's way.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, get_args

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from turncell.core.policy import MODES

if TYPE_CHECKING:
    from turncell.notebook.notebook import Notebook

log = logging.getLogger("turncell")
_MAGICS = (["%agent"], ["%%agent"])
_LIST_LIMIT = 200
_WITH_WORDS = ("mcp", "trust", "rules", "sessions")
"""Commands with words of their own, such as `accept`."""


def install(shell: Any, notebook: Callable[[], Notebook], parser: Any) -> Callable[[], None]:
    """Complete in this shell; the returned function takes that back."""

    @context_matcher(
        identifier="turncell"
    )  # a completer of one command would stand behind what is Python's, such as `and`
    def complete(context: CompletionContext) -> SimpleMatcherResult:
        found: list[str] = []
        try:
            line = context.text_until_cursor
            if line.split(None, 1)[:1] in _MAGICS:
                found = completions(notebook(), parser, line, context.token)
        except Exception:
            log.debug("no completion", exc_info=True)
        return {
            "completions": [SimpleCompletion(one, type="text") for one in found],
            "suppress": bool(found),
            "ordered": True,
        }

    matchers = shell.Completer.custom_matchers
    matchers.append(complete)

    def remove() -> None:
        if complete in matchers:
            matchers.remove(complete)

    return remove


def completions(notebook: Notebook, parser: Any, line: str, symbol: str) -> list[str]:
    """What can stand where the line ends; `symbol` is the beginning of it that is there already."""
    magic, *words = line.split()
    if symbol and words and words[-1].endswith(symbol):
        words = words[:-1]
    is_turn = magic == "%%agent" or words[:1] == ["fix"]
    found = _of_cell(notebook, parser, words) if is_turn else _of_line(notebook, words)
    return sorted(one for one in found if one.startswith(symbol))


def _of_cell(notebook: Notebook, parser: Any, words: list[str]) -> Iterable[str]:
    options = {option: action for action in parser._actions for option in action.option_strings}
    last = next((word for word in reversed(words) if word.startswith("-")), None)
    action = options.get(last or "")
    # -t takes many names; the others are complete after one.
    if action is not None and action.nargs != 0 and (words[-1] == last or action.nargs == "+"):
        values = action.choices or _values(notebook, action.dest)
        return [*values, *options] if action.nargs == "+" and words[-1] != last else values
    return [option for option in options if option.startswith("--")]


def _words(name: str) -> Iterable[str]:
    """What may stand after a command, as its usage says it: options, and words of its own."""
    from turncell.notebook.commands import commands

    usage = commands()[name].usage.partition(" ")[2]
    found = re.findall(r"(?<![\w-])--?[a-z]+(?![\w-])", usage)
    if name in _WITH_WORDS:
        found += re.findall(r"(?<![\w-])[a-z]+(?![\w-])", usage)
    return found


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
    if dest in ("vars", "map"):
        return named(lambda value: not callable(value) and not inspect.ismodule(value))
    return ()


def _of_line(notebook: Notebook, words: list[str]) -> Iterable[str]:
    from turncell.adapters.mcp_config import mcp_servers
    from turncell.frames.costs import By
    from turncell.notebook.commands import commands

    if not words:
        return commands()
    name, session = words[0], notebook.session
    if name not in commands():
        return ()
    options = list(_words(name))
    if words[-1] in ("-a", "--agent"):
        return _values(notebook, "agent")
    if words[-1] == "--scope":
        return ("once", "session", "always")
    if name in ("resume", "takeover", "delete"):
        return [*_sessions(), *options]
    if name in ("branch", "show", "retry", "compare"):
        return [*([run.run_id for run in session.all_runs] if session else ()), *options]
    if words == ["rules", "revoke"]:
        return _rules(notebook)
    if name == "mcp" and len(words) == 2 and words[1] in ("remove", "tools", "restart"):
        return mcp_servers().servers
    if words[-1] == "--by":
        return get_args(By)
    if name in ("approve", "deny", "answer"):
        return [*(call.call_id for run in notebook.runs for call in run.requests), *options]
    if name == "stop":
        return [run.id for run in notebook.runs]
    if name == "tools":
        return [*_values(notebook, "tools"), "--none"]
    if name == "model":
        return _models()
    if name == "models":
        return {model.partition("/")[0] for model in _models()}
    if name == "mode":
        return MODES
    return options


def _rules(notebook: Notebook) -> list[str]:
    from turncell.runtime.rulebook import rule_id, rulebook

    mine = notebook.session.rules if notebook.session else ()
    return [*map(rule_id, mine), *(one.rule_id for one in rulebook().rules())]


def _models() -> list[str]:
    from turncell.adapters.price_list import listed_models

    return ["embedded", *listed_models()]


def _sessions() -> list[str]:
    from turncell.runtime.session import Session

    return [info.session_id for info in Session.list() if not info.is_row][:_LIST_LIMIT]
