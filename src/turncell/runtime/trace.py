"""Where a piece of code runs: in which call of which run, and under which runs.

A run that is started inside a tool of another run is its child: it shares the budget, is cancelled with it, and its
requests are shown by it. The chain is kept in a context variable, so threads and tasks that a tool starts know it.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turncell.runtime.driver import Driver

log = logging.getLogger("turncell")


@dataclass(frozen=True, slots=True)
class Trace:
    """The call that is running here. `chain` has the ids of the runs above it, the outermost first."""

    chain: tuple[str, ...]
    call_id: str
    driver: Driver

    @property
    def run_id(self) -> str:
        return self.chain[-1]

    @property
    def root_run_id(self) -> str:
        return self.chain[0]

    @property
    def depth(self) -> int:
        """Of this run: 0 for the outermost."""
        return len(self.chain) - 1


current: ContextVar[Trace | None] = ContextVar("turncell_trace", default=None)


def current_trace() -> Trace | None:
    """The trace of the code that asks, None outside of tools."""
    return current.get()


class TraceFilter(logging.Filter):
    """Puts `run_id`, `root_run_id` and `call_id` on log records, empty outside of runs: for formats that name them.

    >>> logging.getLogger("turncell").addFilter(TraceFilter())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        trace = current.get()
        record.run_id = trace.run_id if trace else ""
        record.root_run_id = trace.root_run_id if trace else ""
        record.call_id = trace.call_id if trace else ""
        return True
