"""Widgets: the wire's end in the kernel, and nothing else. What they show is decided in `js/`."""

from __future__ import annotations

import logging
import threading
import uuid
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from turncell.core.events import (
    BudgetChanged,
    RequestAnswered,
    RequestOpened,
    RunEnded,
    RunStarted,
    Said,
    StepFinished,
)
from turncell.core.fold import RunState, total_usage
from turncell.errors import UsageError
from turncell.notebook.bridge import KernelBridge
from turncell.notebook.host import is_marimo
from turncell.notebook.library import LOADER, Name, library, module
from turncell.notebook.link import Link
from turncell.runtime.budget import Budget
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor
from turncell.runtime.threads import in_background

_TELLING = (RunStarted, StepFinished, RequestOpened, RequestAnswered, BudgetChanged, RunEnded)


class View(anywidget.AnyWidget):
    """What all views share: the loader, and a comm that a page reaches while a cell is busy."""

    _esm: Path | str = LOADER
    libraries = traitlets.List(traitlets.Unicode()).tag(sync=True)
    part = traitlets.Unicode("").tag(sync=True)

    def __init__(self, *names: Name, **traits: Any) -> None:
        bridge = KernelBridge.current()
        comm_id = uuid.uuid4().hex
        # Before the comm opens: the page's hello may come while the kernel is still in this line.
        bridge.register(comm_id, self.take)
        self._bridge = bridge
        if is_marimo():
            libraries, self._esm = module(names)
        else:
            # The libraries open first: a page that has the view has them.
            libraries = [library(name) for name in names]
        super().__init__(model_id=comm_id, libraries=libraries, part=type(self).__name__, **traits)
        self.on_msg(lambda _, content, buffers: self.take(content, buffers))

    @abstractmethod
    def take(self, content: Any, buffers: Any = None) -> None:
        """A message of the page, on any thread."""

    def mimebundle(self) -> dict[str, Any]:
        """What a display of this view takes."""
        made: Any = self._repr_mimebundle_()
        return dict(made[0] if isinstance(made, tuple) else made)

    def close(self) -> None:
        if self.comm is not None:
            _closed.append(self.comm.comm_id)
            self._bridge.unregister(self.comm.comm_id)
        super().close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


_closed: deque[str] = deque(maxlen=1_000)
"""The comms of views that were closed here."""


class _LateMessages(logging.Filter):
    """What a page has written to a view before it knew that it is closed, the kernel would tell of in the cell."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, tuple) and record.args and record.args[0] in _closed)


logging.getLogger("Comm").addFilter(_LateMessages())  # that of the package `comm`, which keeps the kernel's comms


class Figures(traitlets.HasTraits):
    """What can be observed of runs, without secrets. Changes when a step, a request or the run ends, in a thread of its own."""

    run_id = traitlets.Unicode("").tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    """That of the last run (see `Run.status`); empty while there is none."""
    text = traitlets.Unicode("").tag(sync=True)
    """The answer of the last run, as far as its steps have ended."""
    runs_count = traitlets.Int(0).tag(sync=True)
    steps = traitlets.Int(0).tag(sync=True)
    pending = traitlets.Int(0).tag(sync=True)
    """How many requests wait for a person."""
    input_tokens = traitlets.Int(None, allow_none=True).tag(sync=True)
    output_tokens = traitlets.Int(None, allow_none=True).tag(sync=True)
    cached_tokens = traitlets.Int(None, allow_none=True).tag(sync=True)
    cost_usd = traitlets.Float(None, allow_none=True).tag(sync=True)
    """US dollars of all of it; None as soon as the cost of one step is unknown."""
    budget = traitlets.Dict().tag(sync=True)
    """The limits of the last run; empty where it has none."""
    spent = traitlets.Dict().tag(sync=True)
    """What of these limits is spent, by this run alone, or by all that share its `Budget`; None where it is unknown."""

    _counting = threading.Lock()
    _is_telling = False
    _is_outdated = False

    def watch(self, run: Run) -> None:
        """Count this run from now on."""

        def sink(events: Sequence[Said]) -> None:
            if any(isinstance(event, _TELLING) for event in events):
                # Whoever observes runs here, and the loop must not wait for them.
                in_background(self.count)

        run.attach(sink)
        self.count()

    @abstractmethod
    def states(self) -> Iterable[RunState]:
        """The runs to count, the last one last."""

    def count(self) -> None:
        """Bring the traits up to date. Where a thread is at it, that one counts once more: the latest is told last."""
        with self._counting:
            self._is_outdated = True
            if self._is_telling:
                return
            self._is_telling = True
        try:
            while (counted := self._latest()) is not None:
                for name, value in counted.items():
                    self.set_trait(name, value)
        except BaseException:
            self._is_telling = False
            raise

    def _latest(self) -> dict[str, Any] | None:
        """What is to be told; None, and nobody is telling any more, where all of it was."""
        with self._counting:
            self._is_telling, self._is_outdated = self._is_outdated, False
            return self.figures() if self._is_telling else None

    def figures(self) -> dict[str, Any]:
        """The traits as they are to be; none where there is nothing to count."""
        states = list(self.states())
        if not states:
            return {}
        last, usage = states[-1], total_usage([state.usage for state in states])
        costs = [state.cost_usd for state in states if state.steps]
        return {
            "run_id": last.run_id,
            "status": last.status,
            "text": redactor().text(last.text),
            "runs_count": len(states),
            "steps": sum(len(state.steps) for state in states),
            "pending": sum(len(state.open_requests) for state in states),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cache_read_tokens,
            "cost_usd": None if not costs or None in costs else sum(cost for cost in costs if cost is not None),
            "budget": last.budget or {},
            "spent": _spent(last, self.run_of(last.run_id)),
        }

    def run_of(self, run_id: str) -> Run | None:
        """The run itself, where it was started here: its budget knows of others that spend from it."""
        return None


def _spent(last: RunState, run: Run | None) -> dict[str, float | None]:
    """By the names of its limits; of the budget with the narrowest limit, among those that it spends from."""
    tokens = [count for count in (last.usage.input_tokens, last.usage.output_tokens) if count is not None]
    alone = {"usd": last.cost_usd, "tokens": sum(tokens) if tokens else None, "steps": len(last.steps)}
    found: dict[str, float | None] = {name: spent for name, spent in alone.items() if name in (last.budget or {})}
    budgets: list[Budget] = []
    budget = None if run is None else run.budget
    while budget is not None:
        budgets.append(budget)
        budget = budget.parent
    for name in found:
        limited = [one for one in budgets if getattr(one.limits, name) is not None]
        if limited:
            spent = min(limited, key=lambda one: getattr(one.limits, name)).spent
            found[name] = None if name == "usd" and spent.has_unknown_cost else getattr(spent, name)
    return found


class RunView(View, Figures):
    """A run, live: `RunView(run)`. The trait `snapshot` is what a page starts from; the rest comes as messages (see `wire`)."""

    snapshot = traitlets.Unicode("").tag(sync=True)

    def __init__(self, run: Run | None = None, **traits: Any) -> None:
        if not isinstance(run, Run | None):
            raise UsageError(f"RunView shows a Run; found {run!r}")
        self._run = run
        self.link = Link(self.send, self._checkpoint)
        super().__init__("widget", **traits)
        if run is not None:
            self.follow(run)
            self.watch(run)

    def follow(self, run: Run) -> None:
        """Show this run."""
        self.link.follow(run)

    def take(self, content: Any, buffers: Any = None) -> None:
        self.link.take(content, buffers)

    def states(self) -> Iterable[RunState]:
        return [] if self._run is None else [self._run.state]

    def run_of(self, run_id: str) -> Run | None:
        return self._run

    def _checkpoint(self, text: str) -> None:
        self.snapshot = text
