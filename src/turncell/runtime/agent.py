"""Agent: a model, its tools, its instructions and its policy. Holds no conversation and starts runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from turncell import settings
from turncell.core.fold import RunState
from turncell.core.parts import Message, Text
from turncell.core.policy import MODES, Mode, Rule
from turncell.core.reducer import Begin
from turncell.errors import UsageError
from turncell.runtime import defaults
from turncell.runtime.approvals import Policy
from turncell.runtime.bus import Bus
from turncell.runtime.driver import Driver
from turncell.runtime.journal import Journal
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.ports import Model
from turncell.runtime.run import Run
from turncell.runtime.session import Session, new_id
from turncell.runtime.tools import Tool, toolbox


class Agent:
    """What answers.

    `model` is a name ("embedded", "openai/gpt-5") or a Model; None takes the setting. `tools` are functions or Tools.
    `rules` and `mode` judge the calls (see `core.policy`). Nothing runs before it was judged; a call that asks waits
    `request_timeout_s` seconds for a person, and where nobody attends it is denied at once.

    >>> from turncell.testing import ScriptedModel
    >>> Agent(ScriptedModel(["It is a fine day."])).run_sync("How is the day?").text
    'It is a fine day.'
    """

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        instructions: str = "",
        rules: Iterable[Rule] = (),
        mode: Mode | None = None,
        max_steps: int | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        request_timeout_s: float | None = None,
        journal: Journal | None = None,
    ) -> None:
        default = settings.current()
        self.model = defaults.model(model)
        self.tools = toolbox(tools)
        self.instructions = instructions
        self.rules = tuple(rules)
        self.mode: Mode = _one_of("mode", mode or default.mode, MODES)
        self.max_steps = _positive("max_steps", default.max_steps if max_steps is None else max_steps)
        if request_timeout_s is not None and not 0 < request_timeout_s < float("inf"):
            raise UsageError(f"request_timeout_s is {request_timeout_s!r}; use seconds, more than 0")
        self.request_timeout_s = default.request_timeout_s if request_timeout_s is None else request_timeout_s
        self._options = {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "reasoning_effort": reasoning_effort,
        }
        self._journal = journal

    @property
    def journal(self) -> Journal:
        """Where its runs are recorded: what was given, or the journal of this process (a forked child has its own)."""
        return self._journal or defaults.journal()

    def session(self, title: str = "") -> Session:
        """A new conversation in this agent's store."""
        return Session.new(self.journal, title)

    def start(
        self,
        prompt: str | Message,
        *,
        session: Session | None = None,
        is_attended: bool = False,
        mode: Mode | None = None,
        max_steps: int | None = None,
        cell_id: str | None = None,
    ) -> Run:
        """Begin a run and return at once. In a session whose last run is still going on, it waits its turn.

        `is_attended=True` says that somebody will answer requests (`run.approve()`, `run.deny()`, a view).
        """
        message = _message(prompt)
        # All that can be wrong comes before anything is made: a run that begins has a record.
        limit = _positive("max_steps", self.max_steps if max_steps is None else max_steps)
        mode = _one_of("mode", mode or self.mode, MODES)
        session = session or self.session(message.text[:80])
        loop = BackgroundLoop.current()
        policy = Policy(
            self.rules, mode, is_attended,
            "allow" if settings.current().unattended == "allow" else "deny", self.request_timeout_s,
        )  # fmt: skip
        driver = Driver(
            model=self.model, tools=self.tools, policy=policy, journal=session.journal, bus=Bus(loop.loop),
            session=session, options=self._options,
        )  # fmt: skip
        run = Run(new_id("run"), session, driver, loop)

        async def turn() -> RunState:
            async with session.turn:
                before = session.runs
                begin = Begin(
                    at=time.time(), session_id=session.id, run_id=run.id, seq=session.seq, message=message,
                    model=self.model.name, mode=policy.mode, instructions=self.instructions,
                    max_steps=limit, tools=tuple(self.tools), is_attended=is_attended, cell_id=cell_id,
                    previous=before[-1].run_id if before else None,
                )  # fmt: skip
                state = await driver.drive(begin)
                session.add(state)
                return state

        _when_done(loop.spawn(turn()), run)
        return run

    async def run(self, prompt: str | Message, **options: Any) -> Run:
        """`start` and wait, on any event loop. Cancelling the caller cancels the run."""
        run = self.start(prompt, **options)
        try:
            return await run
        except BaseException:
            run.cancel("the caller was cancelled")
            raise

    def run_sync(self, prompt: str | Message, **options: Any) -> Run:
        """`start` and wait, from a script or a cell, also while an event loop is running. Ctrl-C cancels the run."""
        if BackgroundLoop.current().is_here:
            raise UsageError(
                "run_sync would block the loop that runs live on; in async tools use 'await agent.run(...)'"
            )
        run = self.start(prompt, **options)
        try:
            return run.result()
        except KeyboardInterrupt:
            run.cancel("interrupted")
            raise

    def __repr__(self) -> str:
        return f"Agent({self.model.name!r}, tools={list(self.tools)}, mode={self.mode!r})"


def _when_done(ended: Future[RunState], run: Run) -> None:
    def finish(ended: Future[RunState]) -> None:
        error = ended.exception() if not ended.cancelled() else RuntimeError("the background loop was stopped")
        if error is not None:
            run.done.set_exception(error)
        else:
            run.done.set_result(ended.result())

    ended.add_done_callback(finish)


def _message(prompt: str | Message) -> Message:
    message = Message("user", (Text(prompt),)) if isinstance(prompt, str) else prompt
    if not isinstance(message, Message):
        raise UsageError(f"a prompt is text or a Message; found {prompt!r}")
    if not any(part.type != "text" for part in message.parts) and not message.text.strip():
        raise UsageError("the prompt is empty; write what you want the agent to do")
    return message


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}; use one of {', '.join(map(str, allowed))}")
    return value


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UsageError(f"{name} is {value!r}; use 1 or more")
    return value
