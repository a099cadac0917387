"""For marimo: an agent as the model of its chat.

    talk = turncell.marimo.chat(agent)
    mo.ui.chat(talk)
    mo.ui.anywidget(talk.approvals())      # in another cell: without it, nobody can be asked, and the policy decides

The widgets of `turncell.widgets` need nothing from here: `mo.ui.anywidget(Chat(agent))`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from turncell.core.events import RequestOpened, RunEnded, StepStarted, TextDelta
from turncell.errors import UsageError
from turncell.frames.visible import visible
from turncell.runtime.agent import Agent
from turncell.runtime.run import Run
from turncell.runtime.secrets import Cleaning, redactor
from turncell.runtime.session import Session
from turncell.widgets import Approvals

__all__ = ["ChatModel", "chat"]


def chat(of: Agent | Session) -> ChatModel:
    """What `mo.ui.chat` takes as its model: a conversation with this agent (a new session), or with a session's."""
    return ChatModel(of)


class ChatModel:
    """Called by marimo with all messages of its chat; streams the answer to the last one. Made by `chat`.

    The session is the truth, and the chat is followed: where a person has deleted messages or asks one again, the
    conversation branches there, or begins anew. Stop cancels the run. Files that are attached are not read.
    """

    def __init__(self, of: Agent | Session) -> None:
        session = of.session() if isinstance(of, Agent) else of
        if session.agent is None:
            raise UsageError("a chat needs an agent: chat(agent), or chat(agent.session()); this session has none")
        self._agent, self._session, self._is_attended = session.agent, session, False

    @property
    def session(self) -> Session:
        return self._session

    def approvals(self) -> Approvals:
        """A widget that asks what this conversation wants to do. From now on its runs wait for a person."""
        inbox = Approvals(self)
        self._is_attended = True
        return inbox

    async def __call__(self, messages: Sequence[Any]) -> AsyncGenerator[str, None]:
        said = [_text(message) for message in messages if message.role == "user"]
        if not said or not said[-1].strip():
            raise UsageError("the last message has no text; turncell.marimo.chat sends text and nothing else")
        left = self._session.current
        if left is not None:  # stopped a moment ago, and about to end
            await left
        self._follow(said[:-1])
        run = self._session.send(said[-1], is_attended=self._is_attended)
        try:
            async with aclosing(_words(run)) as words:
                async for text in words:
                    yield text
        finally:
            if not run.is_done:  # marimo's stop button, or a page that was closed
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
                case RequestOpened():
                    yield "\n\n*Waiting for you.*\n\n"
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
