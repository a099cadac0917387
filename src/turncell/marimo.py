"""For marimo: an agent as the model of its chat.

    talk = turncell.marimo.chat(agent)
    mo.ui.chat(talk)

The widgets of `turncell.widgets` need nothing from here: `mo.ui.anywidget(Chat(agent))`.

marimo handles one message of a page after the other, and a model that is still answering is such a message. So what a
page sends meanwhile (a click, also that of the chat's own stop button, which says "stopped" all the same) is heard when
the answer is complete. Therefore an answer is a live view, given at once: its buttons work, and nothing is stopped on the
screen only. A stream of text is there for agents that need nobody: they cannot be stopped, and nobody is asked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal

from turncell.core.events import RunEnded, StepStarted, TextDelta
from turncell.errors import UsageError
from turncell.frames.visible import visible
from turncell.notebook.kit import session_for
from turncell.runtime.agent import Agent
from turncell.runtime.run import Run
from turncell.runtime.secrets import Cleaning, redactor
from turncell.runtime.session import Session
from turncell.widgets import RunView

__all__ = ["ChatModel", "chat"]

STEERED = "The turn above reads this at its next step."


def chat(of: Agent | Session, *, view: Literal["live", "text"] = "live") -> ChatModel:
    """What `mo.ui.chat` takes as its model: a conversation with this agent (a new session), or with a session's.

    "live" answers with the view of the run, where people approve, answer and stop. "text" streams the words alone; the
    run is unattended, so what a person would have to allow is denied.
    """
    return ChatModel(of, view)


class ChatModel:
    """Called by marimo with all messages of its chat; answers the last one. Made by `chat`.

    The session is the truth, and the chat is followed: where a person has deleted messages or asks one again, the
    conversation branches there, or begins anew. Files that are attached are not read.
    """

    def __init__(self, of: Agent | Session, view: Literal["live", "text"]) -> None:
        session, agent = session_for(of)
        if view not in ("live", "text"):
            raise UsageError(f"view is {view!r}; use 'live' or 'text'")
        self._agent, self._session, self._view = agent, session, view

    @property
    def session(self) -> Session:
        return self._session

    def __call__(self, messages: Sequence[Any]) -> Any:
        said = [_text(message) for message in messages if message.role == "user"]
        if not said or not said[-1].strip():
            raise UsageError("the last message has no text; turncell.marimo.chat sends text and nothing else")
        return self._live(said) if self._view == "live" else self._stream(said)

    def _live(self, said: Sequence[str]) -> Any:
        import marimo

        running = self._session.current
        if running is None:
            self._follow(said[:-1])
        run = self._session.send(said[-1], steer=True, is_attended=True)
        if run is running:
            return STEERED
        # A bubble is as wide as what stands in it, and a view as wide as where it stands: left alone, both are a line.
        return marimo.ui.anywidget(RunView(run)).style(width="min(36rem, 70vw)")

    async def _stream(self, said: Sequence[str]) -> AsyncGenerator[str, None]:
        if self._session.current is not None:  # it was stopped a moment ago
            await self._session.current
        self._follow(said[:-1])
        run = self._session.send(said[-1], is_attended=False)
        try:
            async with aclosing(_words(run)) as words:
                async for text in words:
                    yield text
            await run  # its last event comes before its session has it
        finally:
            if not run.is_done:  # cancelled by marimo
                run.cancel("stopped by you")

    def _follow(self, said: Sequence[str]) -> None:
        """Let the conversation be those runs that the chat still shows."""
        runs, shown = self._session.runs, iter(said)
        kept = 0
        for run in runs:
            # A message may have no run, if its run could not begin; `in` goes past it.
            if not any(run.prompt is not None and run.prompt.text in (text, redactor().text(text)) for text in shown):
                break
            kept += 1
        if kept == len(runs):
            return
        if kept == 0:
            self._session = self._agent.session()
        else:
            self._session.branch(runs[kept - 1].run_id)

    def __repr__(self) -> str:
        return f"turncell.marimo.chat({self._session!r})"


async def _words(run: Run) -> AsyncGenerator[str, None]:
    """What a chat shows of a run, as Markdown: the answer as it comes, and what would explain a silence."""
    cleaning, has_text = Cleaning(), False
    async for event in run:
        for clean in cleaning.events([event]):
            match clean:
                case TextDelta(text=text) if text:
                    has_text = True
                    yield text
                case StepStarted() if has_text:
                    has_text = False
                    yield "\n\n"
                case RunEnded(text=str(text)):
                    yield f"\n\n{text}"
                case RunEnded(status=status, message=message) if status != "completed":
                    yield f"\n\n`{status}: {visible(message or '').replace('`', '´')}`"
                case _:
                    pass


def _text(message: Any) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(getattr(part, "text", "") for part in message.parts if getattr(part, "type", "") == "text")
