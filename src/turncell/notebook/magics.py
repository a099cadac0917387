"""`%%agent` and `%agent`. `%%agent?` is the manual of the first, `%agent help` lists the commands of the second."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import traitlets
from IPython.core.error import UsageError as ShellUsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from traitlets.config import Config

from turncell import settings
from turncell.core.policy import MODES
from turncell.errors import RunError, SessionInDoubt, SettingError, TurncellError, UsageError

if TYPE_CHECKING:  # the runtime is imported by the first cell that needs it: %load_ext should cost nothing
    from turncell.notebook.notebook import Notebook
    from turncell.runtime.session import Session

_BRACKETS = re.compile(r"""(\[(?:[^\[\]'"]|'[^'\n]*'|"[^"\n]*")*\])|"(?:\\.|[^"\\])*"|'[^']*'""")
"""Brackets, or a quoted word, in which brackets are nothing of ours."""
_ABOVE = re.compile(r"\s*#")
_configured: WeakSet[Any] = WeakSet()
"""Shells whose configuration has counted. A later load leaves the settings as they are: `%config` has put there what was set
long ago, even what was refused."""
_SETTINGS = ("model", "mode", "max_steps", "unattended", "request_timeout_s", "context", "echo")


@magics_class
class TurncellMagics(Magics):
    """The settings of turncell for this kernel, by `%config` or in IPython's own configuration."""

    model = traitlets.Unicode(help="the model of cells that name none: 'embedded', or provider/model").tag(config=True)
    mode = traitlets.Enum(MODES, help="what happens to calls that no rule decides").tag(config=True)
    max_steps = traitlets.Int(help="the most model calls of a turn").tag(config=True)
    unattended = traitlets.Enum(("deny", "allow"), help="what happens to calls that ask when nobody is there").tag(
        config=True
    )
    request_timeout_s = traitlets.Float(help="how long a request waits for a person, in seconds").tag(config=True)
    context = traitlets.Enum(("none", "cells", "all"), help="what a cell tells of its notebook").tag(config=True)
    echo = traitlets.Unicode(help="a file that gets each turn as plain text").tag(config=True)

    def __init__(self, shell: Any) -> None:
        try:
            super().__init__(shell, **({"config": Config()} if shell in _configured else {}))
        except traitlets.TraitError:
            shell.configurables.remove(self)
            raise
        _configured.add(shell)
        self._shell = shell
        # A trait that was never read is compared to its static default, and one that is set to that is not validated.
        self.take_settings()

    def take_settings(self) -> None:
        """Say of each setting what it is now: `%agent mode`, a project and code set them too."""
        current = settings.current()
        for name in _SETTINGS:
            # Past the traits, whose validation and observers are for what people set by them.
            self._trait_values[name] = getattr(current, name)

    def update_config(self, config: Any) -> None:
        """What `%config` calls: against the settings as they are now, or the value that is set would seem to be there."""
        self.take_settings()
        super().update_config(config)

    @cached_property
    def notebook(self) -> Notebook:
        """What the cells of this notebook share."""
        from turncell.notebook.notebook import Notebook

        return Notebook(self._shell)

    @traitlets.validate(*_SETTINGS)
    def _fits(self, proposal: Any) -> Any:
        try:
            dataclasses.replace(settings.current(), **{proposal["trait"].name: proposal["value"]})
        except SettingError as error:
            raise traitlets.TraitError(str(error)) from None
        return proposal["value"]

    @traitlets.observe(*_SETTINGS)
    def _set(self, change: Any) -> None:
        settings.use(dataclasses.replace(settings.current(), **{change["name"]: change["new"]}))

    @property
    def session(self) -> Session | None:
        """The session that the next cell goes on with."""
        return self.notebook.session

    @no_var_expand
    @magic_arguments("%agent")  # IPython puts the other % before it
    @argument("-m", "--model", help="the model: 'embedded', or provider/model as LiteLLM names it")
    @argument("-a", "--agent", help="an Agent of this notebook, with its model, tools and rules")
    @argument(
        "-t",
        "--tools",
        nargs="+",
        action="extend",
        help="functions or Tools of this notebook, separated by commas; 'notebook': run Python here, look at variables",
    )
    @argument("-i", "--instructions", help="the system instructions, in quotes")
    @argument(
        "--context",
        choices=("none", "cells", "all"),
        help="what the model is told of the notebook: cells: the code of the cells above (the default); all: also tables, figures and the last error",
    )
    @argument("--vars", nargs="+", action="extend", help="variables whose values the model is told")
    @argument(
        "--raw",
        action="store_true",
        help="leave braces as typed; without it, {name} becomes the value of that variable",
    )
    @argument(
        "--schema", metavar="TYPE", help="a type of this notebook: the turn ends with a value of it, in run.output"
    )
    @argument("-o", "--out", help="a variable that gets the Run")
    @argument("--mode", choices=MODES, help="what happens to calls that no rule decides")
    @argument("--max-steps", type=int, help="the most model calls of this turn")
    @argument("--budget", help="the most it may spend: 0.50 (US dollars), or usd=0.5,tokens=20000,calls=10,seconds=60")
    @argument("--timeout", type=float, metavar="SECONDS", help="how long the turn may take")
    @argument("--new", action="store_true", help="begin a new session")
    @argument("--continue", dest="goes_on", action="store_true", help="go on with the newest session of this folder")
    @argument("--session", metavar="ID", help="go on with this session; %%agent sessions lists them")
    @argument("--fork", action="store_true", help="go on in a copy of the session")
    @argument("--retry", action="store_true", help="replace the last turn of the conversation")
    @argument(
        "--cached",
        nargs="?",
        const="",
        metavar="PATH",
        help="answer from a cassette, and record what it does not have",
    )
    @argument(
        "--map", metavar="ROWS", help="one turn for each row of this DataFrame; {column} in the text is its value"
    )
    @argument(
        "--resume",
        metavar="NAME",
        help="with --map: a name for the batch; rows that have completed under it are not asked again",
    )
    @argument("--detach", action="store_true", help="do not wait: the turn goes on while other cells run")
    @argument(
        "--view",
        choices=("live", "keep", "text", "none"),
        default="live",
        help="how the turn is shown; keep leaves the live view in place",
    )
    @cell_magic("agent")
    def cell(self, line: str, cell: str) -> None:
        """Have an agent answer the text of this cell, live.

        A tool call that needs your approval stands on a card with Approve, Deny and Edit. The interrupt button stops
        the turn. The cell waits for the turn, so Run All keeps its order.
        """
        from turncell.notebook.cell import run_cell

        with _in_one_line():
            run_cell(self.notebook, options_in(self.cell.parser, split(line)), cell)

    @no_var_expand
    @line_magic("agent")
    def line(self, line: str) -> Any:
        """The commands of the agent: `%agent help` lists them."""
        from turncell.notebook import commands

        with _in_one_line():
            try:
                return commands.run(self.notebook, line)
            except (OSError, ValueError) as error:
                if isinstance(error, TurncellError):
                    raise
                raise ShellUsageError(f"%agent {line}: {_reason(error)}") from None
            finally:
                self.take_settings()


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Mistakes and turns that fail are told in one line, without a traceback."""
    try:
        yield
    except RunError:
        raise
    except TurncellError as error:
        from turncell.notebook.notebook import TurnFailed, in_cells

        if isinstance(error, SessionInDoubt):
            raise TurnFailed("in_doubt", "in_doubt", in_cells(error)) from None
        raise ShellUsageError(in_cells(error)) from None


def options_in(parser: Any, words: list[str], magic: str = "%%agent") -> Any:
    """The options of a turn. UsageError with the way to the manual."""
    try:
        return parser.parse_args(words)
    except ShellUsageError as error:
        from turncell.notebook.commands import commands

        hint = f"%agent {words[0]} is a command, in a cell of its own" if words and words[0] in commands() else ""
        raise UsageError(f"{magic}: {error}; {hint or '%%agent? lists the options'}") from None


def split(line: str, magic: str = "%%agent") -> list[str]:
    """The words of a line as a shell reads them; quotes in brackets, as in `df['c']`, stay as they are typed."""
    try:
        return shlex.split(_BRACKETS.sub(_kept, line))
    except ValueError as error:
        raise UsageError(f'{magic} {line}: {error}; close each quote, and put text with a \' between " and "') from None


def _kept(found: re.Match[str]) -> str:
    has_quotes = found[1] is not None and not {"'", '"'}.isdisjoint(found[1])
    return shlex.quote(found[1]) if has_quotes else found[0]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {str(error.filename)!r}"
    return str(error)


def without_comments_above(lines: list[str]) -> list[str]:
    r"""For IPython, to which `%%agent` is a cell magic in the first line only.

    >>> without_comments_above(["# the weather\n", "%%agent\n", "# Oslo?\n"])
    ['%%agent\n', '# Oslo?\n']
    """
    for number, line in enumerate(lines):
        if re.match(r"%%agent\b", line):
            return lines[number:]
        if line.strip() and not _ABOVE.match(line):
            break
    return lines
