"""Where a piece of code runs: in which call of which run, and under which runs.

A run that is started inside a tool of another run is its child: it shares the budget, is cancelled with it, and its
requests are shown by it. The chain is kept in a context variable: tasks that a tool starts know it, and threads that
are started with the context (`asyncio.to_thread`; not a bare `threading.Thread`).
"""

from __future__ import annotations

import asyncio
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
    writes: asyncio.Lock
    """What the writes of runs inside this call take turns with."""

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


running: ContextVar[tuple[str, ...]] = ContextVar("turncell_running", default=())
"""The ids of the run whose code runs here, and of those above it, the outermost first; also outside of its calls."""


def current_trace() -> Trace | None:
    """The trace of the code that asks, None outside of tools."""
    return current.get()


class TraceFilter(logging.Filter):
    """A logging filter that puts `run_id`, `root_run_id`, `parent_run_id`, `depth` and `call_id` on log records.

    Add it to a handler, so that records of every logger have them. Outside of runs they are empty, and the depth is 0.

    >>> shown = logging.StreamHandler()
    >>> shown.setFormatter(logging.Formatter("%(run_id)s %(call_id)s %(message)s"))
    >>> shown.addFilter(TraceFilter())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        chain, trace = running.get(), current.get()
        if trace is not None and len(trace.chain) > len(chain):
            chain = trace.chain
        record.run_id = chain[-1] if chain else ""
        record.root_run_id = chain[0] if chain else ""
        record.parent_run_id = chain[-2] if len(chain) > 1 else ""
        record.depth = max(0, len(chain) - 1)
        record.call_id = trace.call_id if trace is not None and trace.chain == chain else ""
        return True
