"""Messages that were said elsewhere, as the events of runs: a run for each message of the user, with its steps and calls.

Only what messages tell is recorded. There is one time, that of the import. A step has no `StepFinished`: nobody here has
seen how it ended, how long it took or what it cost. A call has no judgement: it was decided elsewhere. It counts as begun,
and what it returned as untrusted, as with any tool of which nothing else is said.

A run that does not come to an answer is closed as one whose program has ended (`reducer.INTERRUPTED`); so is a call without
a result, which may have happened or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from turncell.core import events as ev
from turncell.core.codec import decode_json
from turncell.core.digest import call_digest
from turncell.core.parts import SEEN, Json, Message, Part, ToolCall, ToolResult
from turncell.core.reducer import INTERRUPTED
from turncell.core.values import evolve

NO_RESULT = "The conversation was brought in without a result of this call; its effect may or may not have happened."
NO_ANSWER = "the messages that were brought in have no answer here"


def imported(
    messages: Iterable[Message], *, session_id: str, run_ids: Iterable[str], at: float
) -> tuple[ev.RecordedEvent, ...]:
    """The whole journal of a session that begins with these messages. `run_ids` has as many new ids as are needed.

    Messages are of the user, of the assistant, or results. Arguments of calls are JSON objects; their ids are unique,
    and each result stands after the message with its call and before the next of another kind.

    >>> from turncell.core.parts import Text
    >>> said = Message("user", (Text("Hello"),)), Message("assistant", (Text("Hi"),))
    >>> [event.type for event in imported(said, session_id="s", run_ids=["r"], at=0.0)]
    ['RunStarted', 'MessageAdded', 'StepStarted', 'MessageAdded', 'RunEnded']
    """
    journal = _Journal(session_id, iter(run_ids), at)
    for message in messages:
        if message.role == "user":
            journal.begin_run(message)
        elif message.role == "assistant":
            journal.add_step(message)
        else:
            for part in message.parts:
                if isinstance(part, ToolResult):
                    journal.finish_call(part)
    journal.end_run()
    return tuple(journal.events)


class _Journal:
    def __init__(self, session_id: str, run_ids: Iterator[str], at: float) -> None:
        self.events: list[Any] = []
        self._session_id, self._run_ids, self._at = session_id, run_ids, at
        self._run_id: str | None = None
        """Of the run that is open."""
        self._previous: str | None = None
        self._step = 0
        self._is_answered = False
        self._open: dict[str, str] = {}
        """The new ids of the calls that have no result yet, by their own."""

    def _record(self, cls: type[ev.Recorded], **values: Any) -> None:
        envelope: dict[str, Any] = {
            "session_id": self._session_id,
            "run_id": self._run_id,
            "step": self._step,
            "at": self._at,
        }
        self.events.append(cls(seq=len(self.events) + 1, **envelope, **values))

    def begin_run(self, prompt: Message | None) -> None:
        self.end_run()
        self._run_id, self._step, self._is_answered = next(self._run_ids), 0, False
        self._record(
            ev.RunStarted, model="", mode="", max_steps=0, is_attended=False, previous=self._previous,
            root_run_id=self._run_id, is_imported=True,
        )  # fmt: skip
        if prompt is not None:
            self._record(ev.MessageAdded, message=prompt)

    def add_step(self, answer: Message) -> None:
        if self._run_id is None:  # some conversations begin with a greeting
            self.begin_run(None)
        self._close_calls()
        self._step += 1
        parts = tuple(self._renamed(part) for part in answer.parts)
        answer = evolve(answer, parts=parts)
        self._record(ev.StepStarted, model="")
        self._record(ev.MessageAdded, message=answer)
        proposed = [(call, _arguments(call)) for call in answer.calls]
        for call, arguments in proposed:
            digest = call_digest(call.name, arguments)
            self._record(
                ev.CallProposed,
                call_id=call.call_id,
                name=call.name,
                arguments=arguments,
                digest=digest,
                effect="write",
            )
        for call, arguments in proposed:
            digest = call_digest(call.name, arguments)
            self._record(ev.CallStarted, call_id=call.call_id, digest=digest, effect="write")
        self._is_answered = not proposed and not answer.is_partial

    def _renamed(self, part: Part) -> Part:
        """Under an id that no other call of the history has."""
        if not isinstance(part, ToolCall):
            return part
        self._open[part.call_id] = call_id = f"{self._run_id}-{self._step}-{len(self._open) + 1}"
        return evolve(part, call_id=call_id)

    def finish_call(self, result: ToolResult) -> None:
        display = tuple({image.media_type: image.data, SEEN: True} for image in result.images if image.media_type)
        self._record(
            ev.CallFinished, call_id=self._open.pop(result.call_id), status="error" if result.is_error else "ok",
            content=result.content, display=display,
        )  # fmt: skip

    def _close_calls(self) -> None:
        for call_id in self._open.values():
            self._record(ev.CallFinished, call_id=call_id, status="cancelled", content=NO_RESULT)
        self._open.clear()

    def end_run(self) -> None:
        if self._run_id is None:
            return
        self._close_calls()
        if self._is_answered:
            self._record(ev.RunEnded, status="completed")
        else:
            self._record(ev.RunEnded, status="cancelled", kind=INTERRUPTED, message=NO_ANSWER)
        self._previous, self._run_id = self._run_id, None


def _arguments(call: ToolCall) -> dict[str, Json]:
    arguments: dict[str, Json] = decode_json(call.arguments_text) if call.arguments_text.strip() else {}
    return arguments
