"""Plays runs on the pure reducer with a clock of its own, and keeps them as journals both folds are held to.

`python -m tests.journals.play` writes `tests/journals/*.json`: the events of each run, passing ones too, and the
snapshot that folding them must give, in Python (tests/core/test_fold.py) and in TypeScript (js/test/store.test.ts).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turncell.core import codec
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment, TextFragment
from turncell.core.digest import call_digest
from turncell.core.events import Event, FinishReason, RunStarted
from turncell.core.fold import fold, snapshot
from turncell.core.parts import Message, Text, Usage
from turncell.core.reducer import LoopState, reduce
from turncell.core.signals import (
    Answered,
    Begin,
    CallReturned,
    Judged,
    Judgement,
    ModelFailed,
    ModelFinished,
    Progressed,
    Signal,
    Stop,
    Streamed,
)

HERE = Path(__file__).parent


class Play:
    """A run on the bare reducer; every signal comes a tenth of a second after the one before."""

    def __init__(self, prompt: str, *, is_begun: bool = True, **begin: Any) -> None:
        self.state = LoopState()
        self.events: list[Event] = []
        self.commands: list[object] = []
        self.at = 1_700_000_000.0
        behaviour: dict[str, Any] = {}
        values = {
            "session_id": "ses_1",
            "run_id": "run_1",
            "seq": 1,
            "model": "scripted",
            "mode": "ask",
            "max_steps": 5,
        }
        for name in ("reviews", "models", "attempts", "summarises", "reads_all"):
            if name in begin:
                behaviour[name] = begin.pop(name)
        self._begin = lambda at: Begin(
            started=RunStarted(at=at, step=0, root_run_id="run_1", **values | begin),
            message=Message("user", (Text(prompt),)),
            **behaviour,
        )
        if is_begun:
            self.begin()

    def begin(self) -> None:
        self.feed(self._begin)

    def feed(self, make: Callable[[float], Signal]) -> None:
        self.at = round(self.at + 0.1, 3)
        transition = reduce(self.state, make(self.at))
        self.state = transition.state
        self.events += transition.events
        self.commands += transition.commands

    def say(self, *texts: str) -> None:
        for text in texts:
            self.stream(TextFragment(text))

    def think(self, *texts: str) -> None:
        for text in texts:
            self.stream(ReasoningFragment(text))

    def call(self, name: str, **arguments: Any) -> None:
        text = json.dumps(arguments)
        number = len(self.state.assembly.blocks)
        self.stream(CallFragment(number, f"p{number}", name, text[:5]))
        self.stream(CallFragment(number, None, None, text[5:]))

    def stream(self, *fragments: Fragment) -> None:
        self.feed(lambda at: Streamed(at, list(fragments)))

    def finish(self, reason: FinishReason = "stop", cost_usd: float | None = 0.01) -> None:
        usage = Usage(1200, 340, 900, 0, 120)
        basis = "none" if cost_usd is None else "prices"
        self.feed(lambda at: ModelFinished(at, Finished(reason, usage, cost_usd, basis, "scripted-1"), 0.1))

    def judge(self, effect: str = "write", verdict: str = "ask", **values: Any) -> None:
        def judged(at: float) -> Judged:
            judgements = []
            for call in self.state.run.steps[-1].calls:
                arguments = json.loads(call.arguments_text)
                digest = call_digest(call.name, arguments)
                judgements.append(
                    Judgement(
                        call.call_id,
                        effect,
                        arguments,
                        digest,
                        None,
                        verdict,
                        "mode ask",
                        "",
                        f"Does {call.name}.",
                        **values,
                    )  # type: ignore[arg-type]
                )
            return Judged(at, tuple(judgements), at + 3600)

        self.feed(judged)

    def answer(self, answer: str, number: int = 0, **values: Any) -> None:
        request = self.state.run.open_requests[number].request
        assert request is not None
        self.feed(lambda at: Answered(at=at, request_id=request.request_id, answer=answer, by="person", **values))  # type: ignore[arg-type]

    def returned(self, content: str, number: int = 0, status: str = "ok", details: Any = None) -> None:
        call_id = self.state.run.steps[-1].calls[number].call_id
        self.feed(lambda at: CallReturned(at, call_id, status, content, details))  # type: ignore[arg-type]

    def progress(self, text: str, number: int = 0) -> None:
        call_id = self.state.run.steps[-1].calls[number].call_id
        self.feed(lambda at: Progressed(call_id, text))

    def stop(self, message: str = "interrupted") -> None:
        self.feed(lambda at: Stop(at, "cancelled", "cancelled", message))


def answer() -> Play:
    play = Play("How is the day?")
    play.say("It is ", "a **fine** day.\n\n", "- mild\n- dry\n")
    play.finish()
    return play


def approved() -> Play:
    play = Play("Look up the weather and mail it to Ana.")
    play.think("I need the weather ", "before I can write.")
    play.say("Let me look. ")
    play.call("weather", city="Oslo")
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.progress("asking the station")
    play.returned('{"city": "Oslo", "temp_c": 3.5}', details={"city": "Oslo", "temp_c": 3.5})
    play.call("mail", to="ana@example.org", body="3.5 °C in Oslo")
    play.finish("tool_calls")
    play.judge(preview="To ana@example.org")
    play.answer("approve")
    play.returned("sent")
    play.say("It is 3.5 °C in Oslo, and Ana knows.")
    play.finish()
    return play


def edited() -> Play:
    play = Play("Clean up.")
    play.call("run_shell", command="rm -rf exports")
    play.finish("tool_calls")
    play.judge()
    arguments = {"command": "rm -rf exports/tmp"}
    play.answer("edit", arguments=arguments, digest=call_digest("run_shell", arguments))
    play.returned("done")
    play.say("Cleaned.")
    play.finish(cost_usd=None)
    return play


def two_requests() -> Play:
    play = Play("Two things.")
    play.call("mail", to="a")
    play.call("mail", to="b")
    play.finish("tool_calls")
    play.judge()
    play.answer("deny", 0, reason="not to a")
    play.answer("approve", 0)
    play.returned("ConnectionError: no route", 1, "error", {"traceback": "Traceback ..."})
    play.say("One was denied, one failed.")
    play.finish()
    return play


def waiting() -> Play:
    play = Play("Mail Ana.")
    play.say("I will write to her.")
    play.call("mail", to="ana@example.org")
    play.finish("tool_calls")
    play.judge()
    return play


def invalid() -> Play:
    play = Play("Break it.")
    play.stream(CallFragment(0, "x", "mail", '{"to": '))
    play.finish("length")
    play.feed(
        lambda at: Judged(
            at,
            (Judgement(play.state.run.steps[-1].calls[0].call_id, problem="the arguments are not valid JSON"),),
        )
    )
    play.say("I see.")
    play.finish()
    return play


def failed() -> Play:
    play = Play("Summarise.")
    play.say("The log has ")
    play.feed(lambda at: ModelFailed(at, "overloaded", "529: overloaded", Usage(10, None)))
    return play


def cancelled() -> Play:
    play = Play("Tell me a long story.")
    for _ in range(15):
        play.say("Once upon a time. ")
    play.stop()
    return play


def streaming() -> Play:
    play = Play("Tell me.")
    play.think("Hm.")
    play.say("Once ", "upon")
    play.call("weather", city="Oslo")
    return play


def max_steps() -> Play:
    play = Play("Loop.", max_steps=1)
    play.call("look")
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.returned("nothing")
    return play


PLAYS: tuple[Callable[[], Play], ...] = (
    answer, approved, edited, two_requests, waiting, invalid, failed, cancelled, streaming, max_steps,
)  # fmt: skip


def main() -> None:
    for make in PLAYS:
        play = make()
        journal = {"events": play.events, "snapshot": snapshot(fold(play.events))}
        plain = codec.decode_json(codec.encode(journal))
        (HERE / f"{make.__name__}.json").write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
