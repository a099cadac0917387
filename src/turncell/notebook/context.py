"""The notebook as context: what a turn is told of the cells above it, and on request of their data and their errors.

By default the sources of the cells that have run in this session of the kernel, newest kept, and neither outputs nor
data. They reach the model as passages of a source (`runtime/sources.py`), in front of the prompt they were found for.
What an earlier turn of the conversation was told stands there still, so only what has come since is told: it is known
by its text in the passages of those turns, and not by a memory of ours that undo, fork or a new kernel would make wrong.

Sources of cells are the person's own words, and trusted. Data may come from anywhere, and is not.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import ChainMap
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from turncell.core.parts import Image
from turncell.errors import UsageError
from turncell.notebook.failures import trimmed
from turncell.notebook.interpolation import value_at
from turncell.notebook.namespace import variables
from turncell.notebook.objects import as_text, in_a_line, is_table, picture_of
from turncell.runtime.options import one_of
from turncell.runtime.output import shorten
from turncell.runtime.secrets import redactor
from turncell.runtime.sources import Source
from turncell.runtime.tokens import text_tokens

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent
    from turncell.runtime.session import Session

Choice: TypeAlias = Literal["none", "cells", "all"]
CHOICES: tuple[Choice, ...] = ("none", "cells", "all")
CELLS_TOKENS = 3_000
"""Of all sources of cells that one turn is told."""
CELL_CHARS = 6_000
OLDER = "[older cells are left out]"
MOST_IMAGES = 4
MOST_ERRORS = 50
SHARE = 0.5
"""Of the model's window: CELLS_TOKENS is the limit in windows that are not tiny."""
_TURN = re.compile(r"\s*%{1,2}agent\b")


class CellErrors(Mapping[int, str]):
    """`Err`: the tracebacks of cells that failed, by their number; the latest MOST_ERRORS of them."""

    _of_shell: ClassVar[tuple[Any, CellErrors] | None] = None

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._errors: dict[int, BaseException] = {}
        self.sources: dict[int, str] = {}
        """Of the cells that failed: a cell that is run without a history has its source nowhere else."""
        shell.events.register("post_run_cell", self._ran)

    @classmethod
    def of(cls, shell: Any) -> CellErrors:
        """Those of this shell, which are kept from the first time this is called."""
        if cls._of_shell is None or cls._of_shell[0] is not shell:
            cls._of_shell = (shell, cls(shell))
        return cls._of_shell[1]

    def close(self) -> None:
        with suppress(ValueError):
            self._shell.events.unregister("post_run_cell", self._ran)
        self._errors.clear()
        self.sources.clear()
        type(self)._of_shell = None

    @property
    def last(self) -> int | None:
        """The number of the last cell that failed, unless it has run well since."""
        return max(self._errors, default=None)

    def _ran(self, result: Any) -> None:
        error = result.error_before_exec or result.error_in_exec
        number = result.execution_count
        source = getattr(result.info, "raw_cell", None) or ""
        if number is None or _TURN.match(source):  # a turn that failed has told so itself
            return
        if error is None:
            # The same cell has run again, and well.
            self._forget(old for old, failed in self.sources.items() if failed.strip() == source.strip())
            return
        self._errors[number], self.sources[number] = error, source
        self._forget(list(self._errors)[:-MOST_ERRORS])

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            del self._errors[number], self.sources[number]

    def __getitem__(self, number: int) -> str:
        return trimmed(self._errors[number], self._shell)

    def __iter__(self) -> Any:
        return iter(self._errors)

    def __len__(self) -> int:
        return len(self._errors)


def names_of(shell: Any) -> Mapping[str, Any]:
    """The names that a prompt may use in braces: those of the notebook, `In` as it was typed, and `Err`."""
    own: dict[str, Any] = {}
    manager = getattr(shell, "history_manager", None)
    if manager is not None and shell.user_ns.get("In") is manager.input_hist_parsed:
        own["In"] = manager.input_hist_raw
    if "Err" not in shell.user_ns:
        own["Err"] = CellErrors.of(shell)
    return ChainMap(own, shell.user_ns)


@dataclass(frozen=True, slots=True)
class NotebookContext:
    """What a turn is told of the notebook: `sources` for its agent, `images` to stand in front of its prompt."""

    sources: tuple[Source, ...] = ()
    images: tuple[str | Image, ...] = ()

    def added_to(self, agent: Agent) -> Agent:
        """The same agent with these sources; the one that was given stays as it is."""
        if not self.sources:
            return agent
        made = copy.copy(agent)
        made.sources = (*agent.sources, *self.sources)
        return made

    def before(self, prompt: str | list[str | Image]) -> str | list[str | Image]:
        """The prompt with the images in front of it."""
        return [*self.images, *([prompt] if isinstance(prompt, str) else prompt)] if self.images else prompt


def notebook_context(
    shell: Any, choice: Choice = "cells", names: Iterable[str] = (), *, session: Session | None = None
) -> NotebookContext:
    """The notebook as it is now, for the next turn of this session (None: a new one). Call it on the main thread.

    "cells": the sources of the cells above; "all": those, the tables and figures among the variables, and the last
    error; "none": nothing. `names` (`df`, `df['c']`, `fig`) are told in any case. UsageError for a name that is not there.
    """
    one_of("context", choice, CHOICES)
    told = told_before(session)
    sources: list[Source] = []
    if choice != "none":
        passages = cells_above(shell, told)
        sources.append(Source(lambda _: passages, "cells", priority=1, share=SHARE, trusted=True))
    values = {name: _named(shell, name) for name in names}
    if choice == "all":
        values |= {name: value for name, value in variables(shell).items() if is_table(value) or picture_of(value)}
    images: list[str | Image] = []
    data: list[str] = []
    for name, value in values.items():
        picture = picture_of(value)
        if picture is None:
            data.append(f"{name}: {as_text(value)}")
        elif len(images) < 2 * MOST_IMAGES:
            images += [f"{name}:", picture]
    errors = CellErrors.of(shell)
    if choice == "all" and errors.last is not None:
        data.append(f"The last error, of In [{errors.last}]:\n{errors[errors.last]}")
    news = [text for text in data if redactor().text(text) not in told]
    if news:
        sources.append(Source(lambda _: news, "variables", share=SHARE))
    return NotebookContext(tuple(sources), tuple(images))


def told_before(session: Session | None) -> frozenset[str]:
    """The passages that the conversation of this session has been told, as they are recorded."""
    if session is None:
        return frozenset()
    return frozenset(
        redactor().text(passage.text)
        for run in session.runs
        if run.retrieved is not None
        for passage in run.retrieved.passages
    )


def cells_above(shell: Any, told: frozenset[str] = frozenset()) -> list[str]:
    """The sources of the cells that ran before this one, oldest first, without those told; the newest are kept."""
    manager = shell.history_manager
    cells = list(enumerate(manager.input_hist_raw))[1 : shell.execution_count]
    kept: list[str] = []
    seen: set[str] = set()
    left_tokens = CELLS_TOKENS
    for number, source in reversed(cells):
        text = source.strip()
        # What a turn asks is in the conversation already. Of a cell that ran twice, the latest counts.
        if not text or text in seen or _TURN.match(text):
            continue
        seen.add(text)
        passage = f"In [{number}]:\n{shorten(text, CELL_CHARS)}"
        if redactor().text(passage) in told:
            if OLDER in told:
                break  # what is older still was left out on purpose
            continue
        left_tokens -= text_tokens(passage)
        if left_tokens < 0:
            kept.append(OLDER)
            break
        kept.append(passage)
    return kept[::-1]


def fix_prompt(shell: Any, number: int | None = None) -> str:
    """The prompt of `%agent fix`: the cell that failed last (or this one), its traceback, the variables it names.

    UsageError where none has failed.
    """
    errors = CellErrors.of(shell)
    number = errors.last if number is None else number
    if number is None or number not in errors:
        failed = ", ".join(f"In [{one}]" for one in errors)
        raise UsageError(
            f"In [{number}] has not failed; use one of {failed}"
            if failed
            else "no cell has failed, and there is nothing to fix"
        )
    source = errors.sources[number].strip()
    lines = [f"{name}: {in_a_line(value)}" for name, value in _used(shell, source).items()]
    return "\n\n".join(
        [
            f"In [{number}] of this notebook failed. Say in a sentence or two why, and give the whole cell, mended, in one "
            "Python code block. Change no more than is needed. If a variable has to be looked at first, look.",
            f"The cell:\n```python\n{shorten(source, CELL_CHARS)}\n```",
            f"The error:\n```\n{errors[number]}\n```",
            *(["Variables that it names:\n" + "\n".join(lines)] if lines else []),
        ]
    )


def _used(shell: Any, source: str) -> dict[str, Any]:
    with suppress(SyntaxError, ValueError):
        tree = ast.parse(shell.transform_cell(source))
        names = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        have = variables(shell)
        return {name: have[name] for name in names if name in have}
    return {}


def _named(shell: Any, name: str) -> Any:
    found, value = value_at(name, shell.user_ns)
    if not found:
        raise UsageError(f"{name!r} is not defined in this notebook; define it in a cell above")
    return value
