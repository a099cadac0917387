"""The errors of the notebook's cells, for prompts that ask about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

MOST_ERRORS = 50
TURN = re.compile(r"(?:\s|#.*(?:\n|$))*%{1,2}agent\b")
"""The beginning of a cell that asks the agent; comments may stand above it."""


class CellErrors(Mapping[int, str]):
    """`Err`: the tracebacks of cells that failed, by their number; the latest MOST_ERRORS of them."""

    _of_shell: ClassVar[tuple[Any, CellErrors] | None] = None

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._errors: dict[int, BaseException] = {}
        self.sources: dict[int, str] = {}
        """Of the cells that failed: a cell that is run without a history has its source nowhere else."""
        self._cells: dict[int, str] = {}
        """Their ids in the notebook, where the front end tells them: a cell that was edited is still that cell."""
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
        self._cells.clear()
        type(self)._of_shell = None

    @property
    def last(self) -> int | None:
        """The number of the last cell that failed, unless it has run well since."""
        return max(self._errors, default=None)

    def _ran(self, result: Any) -> None:
        error = result.error_before_exec or result.error_in_exec
        number = result.execution_count
        source = getattr(result.info, "raw_cell", None) or ""
        if number is None or TURN.match(source):  # a turn that failed has told so itself
            return
        cell_id = getattr(result.info, "cell_id", None) or ""
        if error is None:
            # The same cell has run again, and well.
            self._forget(old for old in self.sources if self._is_same(old, source, cell_id))
            return
        if cell_id:
            self._cells[number] = cell_id
        self._errors[number], self.sources[number] = error, source
        self._forget(list(self._errors)[:-MOST_ERRORS])

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            del self._errors[number], self.sources[number]
            self._cells.pop(number, None)

    def _is_same(self, number: int, source: str, cell_id: str) -> bool:
        return self._cells.get(number) == cell_id != "" or self.sources[number].strip() == source.strip()

    def __getitem__(self, number: int) -> str:
        from turncell.notebook.failures import trimmed

        return trimmed(self._errors[number], self._shell)

    def __iter__(self) -> Any:
        return iter(self._errors)

    def __len__(self) -> int:
        return len(self._errors)
