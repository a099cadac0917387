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
from collections import ChainMap
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from turncell.core.parts import Image
from turncell.errors import UsageError
from turncell.notebook.cell_errors import TURN, CellErrors
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
SHARE = 0.5
"""Of the model's window: CELLS_TOKENS is the limit in windows that are not tiny."""


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
        if not text or text in seen or TURN.match(text):
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
