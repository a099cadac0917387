"""The commands of `%agent`. Each is a function in one of these files, in the table by its name.

    @command("branch [RUN]", "go on after an earlier run; without RUN, list them")
    def branch(notebook: Notebook, run_id: str | None = None) -> None: ...

The words after the name are its positional arguments; what takes options has a `parser`. A command prints, or displays,
what it has to say; a mistake is a UsageError and changes nothing.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from turncell.errors import UsageError
from turncell.notebook.notebook import Notebook

_FILES = ("about", "sessions", "conversation", "requests", "tables", "files", "mcp")
"""The modules of this folder that hold commands, in the order in which help tells of them."""


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand. `usage` begins with its name; `does` says in one line what it does."""

    usage: str
    does: str
    do: Callable[..., Any]

    @property
    def name(self) -> str:
        return self.usage.split(" ", 1)[0]


_commands: dict[str, Command] = {}


def command(usage: str, does: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(do: Callable[..., Any]) -> Callable[..., Any]:
        made = Command(usage, does, do)
        _commands[made.name] = made
        return do

    return add


def commands() -> dict[str, Command]:
    """All of them, by name."""
    for name in _FILES:
        importlib.import_module(f"{__name__}.{name}")
    return _commands


def run(notebook: Notebook, line: str) -> Any:
    """Do what a line says. UsageError for what cannot be understood."""
    name, *words = words_of(line) or ["status"]
    found = commands().get(name)
    if found is None:
        near = difflib.get_close_matches(name, commands(), 1)
        use = (
            f"did you mean %agent {near[0]}?"
            if near
            else f"use one of {', '.join(sorted(commands()))}, or %%agent for a turn"
        )
        raise UsageError(f"%agent {name}: there is no such command; {use}")
    try:
        inspect.signature(found.do).bind(notebook, *words)
    except TypeError as error:
        raise UsageError(f"%agent {line}: {error}; write %agent {found.usage}") from None
    return found.do(notebook, *words)


class Parser(argparse.ArgumentParser):
    """Of the words after a command; a mistake is one line and not the end of the program."""

    def __init__(self, name: str) -> None:
        super().__init__(prog=f"%agent {name}", add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        usage = _commands[self.prog.split()[1]].usage
        raise UsageError(f"{self.prog}: {message}; write %agent {usage}")


def words_of(line: str) -> list[str]:
    """
    >>> words_of("rename it's mine"), words_of("export 'a b.md'"), words_of("--help")
    (['rename', "it's mine"], ['export', 'a b.md'], ['help'])
    """
    from turncell.notebook.magics import split

    command, _, rest = line.strip().partition(" ")
    title = rest.strip()
    if command != "rename":
        words = split(line, "%agent")
        return ["help"] if words in (["--help"], ["-h"]) else words
    if len(title) > 1 and title[0] == title[-1] and title[0] in "'\"" and title[0] not in title[1:-1]:
        title = title[1:-1]
    return [command, title] if title else [command]


def say(text: str) -> None:
    print(text)  # noqa: T201  (a magic answers by printing)
