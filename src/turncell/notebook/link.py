"""The link between a run and one view of it. Lives on the background loop; only `take` may be called from elsewhere.

* Events go out in batches, at most FLUSH_PER_S a second, deltas of a batch merged: small messages, however quick the
  model is. Each batch has the next `seq`.
* A page that has missed something says so (`ready`, `resync`) and gets a snapshot: never trust a message to arrive.
* A run that goes on after a restart begins with a snapshot: its first events were another process's.
* What a form needs (`Parameters`) and what runs inside calls (`Child`) is told beside the events, in no order with them,
  and again with each snapshot that a page asks for. A run inside a call is sent to those only who have opened it.
* What a page says is data from outside: it is validated here, and an answer counts only if the run takes it.
* Everything is sent in the context of the cell that started the run, or it would land in another cell's output.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from pydantic import ValidationError

from turncell.core import codec
from turncell.core.events import CallFinished, RequestAnswered, RequestOpened, Resumed, RunEnded, Said, StepStarted
from turncell.core.fold import CallState, snapshot
from turncell.core.values import evolve
from turncell.errors import AnswerRefused, StoreError
from turncell.notebook import wire
from turncell.runtime.bus import merge_deltas
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.run import Run
from turncell.runtime.secrets import Cleaning, without_secrets
from turncell.runtime.threads import in_background

log = logging.getLogger("turncell")

FLUSH_PER_S = 25
_EARLY_LIMIT = 20
_SCHEMA_BYTES = 20_000
"""A form of more than that is no help; its arguments are edited as JSON."""
_MAX_CHILDREN = 100
"""A batch inside a call has thousands; nobody opens them one by one."""
_LINE_CHARS = 200
_CHECKPOINTS = (StepStarted, RequestOpened, RequestAnswered, Resumed, RunEnded)


class Link:
    """Sends a run to a page and takes the page's answers.

    `send(content)` sends a custom message, `checkpoint(text)` replaces the snapshot that a reloaded page starts from.
    `retry(run)` asks again what an ended run was asked, off the loop; where there is none, nobody is offered it. With
    `is_for_reading` a page answers, stops and retries nothing.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        checkpoint: Callable[[str], None],
        retry: Callable[[Run], None] | None = None,
        *,
        is_for_reading: bool = False,
    ) -> None:
        self.hello: Future[None] = Future()
        """Done when a page has shown that what it sends arrives."""
        self.pages = 0
        """How many pages have said hello: more than one where a page was reloaded, or the notebook is open twice."""
        self._send, self._checkpoint, self._retry = send, checkpoint, retry
        self._is_for_reading = is_for_reading
        self._children: dict[str, tuple[str, Run]] = {}
        self._inner: dict[str, Link] = {}
        self._loop = BackgroundLoop.current().loop
        self._context = contextvars.copy_context()
        self._run: Run | None = None
        self._early: list[Any] = []  # what the page said before there was a run
        self._seq = -1
        self._pending: list[Said] = []
        self._cleaning = Cleaning()
        self._timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0

    def follow(self, run: Run) -> None:
        """Show this run from its first event on."""

        def start() -> None:
            # In one callback of the loop: what happens between the past and the subscription would be lost unseen.
            self._run = run
            run.attach(self._on_events)
            run.on_child(self._on_child)
            self._pending = [*run.so_far()]
            self._flush()
            early, self._early = self._early, []
            for content in early:
                self._take(content)

        self._loop.call_soon_threadsafe(start, context=self._context)

    def take(self, content: Any, buffers: Any = None) -> None:
        """A message of the page, on any thread."""
        self._loop.call_soon_threadsafe(self._take, content, context=self._context)

    def close(self) -> Future[None]:
        """Send what is left. Done when it is sent."""
        sent: Future[None] = Future()

        def finish() -> None:
            self._flush()
            sent.set_result(None)

        self._loop.call_soon_threadsafe(finish, context=self._context)
        return sent

    def _on_events(self, events: Sequence[Said]) -> None:
        self._pending.extend(events)
        if self._timer is None:
            # At once after a pause, so that the first word and a question do not wait; else at the next frame.
            pause_s = max(0.0, 1 / FLUSH_PER_S - (time.monotonic() - self._flushed_at))
            self._timer = self._loop.call_later(pause_s, self._flush, context=self._context)

    def _on_child(self, child: Run, call_id: str) -> None:
        if len(self._children) == _MAX_CHILDREN:
            return

        def tell(events: Sequence[Said] = ()) -> None:
            if not events or any(isinstance(event, _CHECKPOINTS) for event in events):
                self._loop.call_soon(self._tell_child, child, call_id, context=self._context)

        self._children[child.id] = (call_id, child)
        child.attach(tell)
        tell()

    def _tell_child(self, child: Run, call_id: str) -> None:
        state, name = child.state, without_secrets(child.agent_name)
        prompt = without_secrets(state.prompt.text if state.prompt else "")[:_LINE_CHARS]
        self._try_send(wire.Child(call_id, child.id, name, prompt, state.status, len(state.steps)))

    def _tell_beside(self) -> None:
        """What the page needs besides events and snapshots."""
        assert self._run is not None
        for call_id, child in self._children.values():
            self._tell_child(child, call_id)
        self._tell_parameters(self._run.requests)

    def _tell_parameters(self, calls: Sequence[CallState]) -> None:
        for call in calls:
            request = call.request
            if self._is_for_reading or self._run is None or request is None or request.kind != "approval":
                continue
            schema = self._run.parameters(request, call)
            if schema is not None and len(codec.encode(schema)) <= _SCHEMA_BYTES:
                self._try_send(wire.Parameters(request.request_id, without_secrets(schema)))

    def _take_inner(self, message: wire.Of) -> None:
        """What a page says of a run inside a call. It is followed from the first word on: most are never opened."""
        if message.run_id not in self._children:
            return
        link = self._inner.get(message.run_id)
        if link is None:

            def send(content: dict[str, Any]) -> None:
                self._send({"type": "of", "run_id": message.run_id, "content": content})

            link = self._inner[message.run_id] = Link(send, lambda _: None, is_for_reading=True)
            link.follow(self._children[message.run_id][1])
        link.take(message.content)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        # What is on a page may be saved with it.
        events, self._pending = self._cleaning.events(merge_deltas(self._pending)), []
        self._seq += 1
        self._flushed_at = time.monotonic()
        is_resumed = any(isinstance(event, Resumed) for event in events)
        thin = [_without_details(event) for event in events]
        if any(isinstance(event, RequestOpened) for event in events) and self._run is not None:
            self._tell_parameters(self._run.requests)
        self._try_send(self._snapshot() if is_resumed else wire.Events(self._seq, thin, round(time.time(), 3)))
        if any(isinstance(event, _CHECKPOINTS) for event in events):
            self._checkpoint(codec.encode(self._snapshot()).decode())

    def _snapshot(self) -> dict[str, Any]:
        assert self._run is not None
        run = snapshot(self._cleaning.state(self._run.state))
        for step in run["steps"]:
            step["calls"] = [_without_details(call) for call in step["calls"]]
        return {"type": "snapshot", "seq": self._seq, "run": run, "now": time.time()}

    def _try_send(self, message: Any) -> None:
        try:
            self._send(codec.decode_json(codec.encode(message)))
        except Exception:  # a front end that is gone must not end the run
            log.exception("a message to the view was not sent")

    def _take(self, content: Any) -> None:
        try:
            message = wire.from_page().validate_python(content)
        except ValidationError as error:
            # No warning: without a handler it would stand in the cell, and a page could fill the cell with them.
            log.info("a message of the page was ignored: %s", error)
            return
        if isinstance(message, wire.FetchCode):  # before the page can show anything, so it is no hello
            self.send_code(message)
            return
        if not self.hello.done():
            self.hello.set_result(None)
        run = self._run
        if run is None:
            self._early = [*self._early, content][-_EARLY_LIMIT:]
            return
        if isinstance(message, wire.Hello):  # not before: what comes early is taken again
            self.pages += 1
        if isinstance(message, wire.Ready | wire.Resync):
            if message.have != self._seq:
                self._flush()
                self._tell_beside()
                self._try_send(self._snapshot())
        elif isinstance(message, wire.Of):
            self._take_inner(message)
        elif self._is_for_reading:
            return
        elif isinstance(message, wire.AnswerRequest):
            self._answer(run, message)
        elif isinstance(message, wire.StopRun):
            run.cancel("stopped by you")
        elif isinstance(message, wire.Retry) and self._retry is not None and run.is_done:
            # A second click on the same run is a repetition, whatever the page shows by then.
            retry, self._retry = self._retry, None
            in_background(retry, run)

    def send_code(self, asked: wire.FetchCode) -> None:
        """Answer a page that cannot look up its library. A library that is not there is left unanswered."""
        from turncell.notebook.library import by_id

        found = by_id(asked.library)
        if found is not None:
            self._try_send(wire.Code(asked.library, found.code, found.sheet))

    def _answer(self, run: Run, message: wire.AnswerRequest) -> None:
        answered = run.answer(
            message.request_id,
            message.decision,
            digest=message.digest,
            arguments=message.arguments,
            reason=message.reason,
            result=message.result,
            scope=message.scope,
        )

        def tell(answered: Future[None]) -> None:  # on the loop
            error = answered.exception()
            if isinstance(error, AnswerRefused | StoreError):
                self._try_send(wire.Refused(message.request_id, without_secrets(str(error))))

        answered.add_done_callback(tell)


def _without_details(value: Any) -> Any:
    """What is for programs, and may be large, the page has no use for."""
    return evolve(value, details=None) if isinstance(value, CallState | CallFinished) and value.details else value
