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
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment
from turncell.core.digest import call_digest
from turncell.core.events import (
    EndStatus,
    Event,
    File,
    FinishReason,
    NoteKind,
    Option,
    Passage,
    Recorded,
    RunStarted,
    one_by_one,
)
from turncell.core.fold import at_rest, fold, snapshot
from turncell.core.imported import imported
from turncell.core.loop_state import LoopState
from turncell.core.parts import Json, Message, Reasoning, Text, ToolCall, ToolResult, Usage
from turncell.core.policy import Rule
from turncell.core.reducer import reduce
from turncell.core.signals import (
    Answered,
    Asked,
    Begin,
    CallReturned,
    Chosen,
    Clock,
    Cut,
    Found,
    Judged,
    Judgement,
    ModelFailed,
    ModelFinished,
    Note,
    Progressed,
    Question,
    Resume,
    Reviewed,
    SetBudget,
    SetRules,
    Signal,
    Steer,
    Stop,
    Streamed,
    Summarised,
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
        for name in ("reviews", "models", "attempts", "summarises", "reads_all", "recoveries"):
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
        self.events += one_by_one(transition.events)
        self.commands += transition.commands

    def say(self, *texts: str) -> None:
        for text in texts:
            self.stream(text)

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

    def judge(
        self,
        effect: str = "write",
        verdict: str = "ask",
        arguments: dict[str, Json] | None = None,
        **values: Any,
    ) -> None:
        """All calls of the step alike; `arguments` stand for what a hook has put in the place of the model's."""
        replaced = arguments

        def judged(at: float) -> Judged:
            judgements = []
            for call in self.state.run.steps[-1].calls:
                arguments = json.loads(call.arguments_text) if replaced is None else replaced
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

    def restart(self, seconds: float = 60.0) -> None:
        """The program is killed, and another one goes on with what is in the journal: passing events are in none."""
        assert self.state.begin is not None
        self.at += seconds
        self.events = [event for event in self.events if isinstance(event, Recorded)]
        begin, run = self.state.begin, at_rest(fold(self.events))
        self.state = LoopState()
        self.feed(lambda at: Resume(at, begin, run, run.seq, {}, at + 3600))

    def returned(self, content: str, number: int = 0, status: str = "ok", details: Any = None, **shown: Any) -> None:
        call_id = self.call_id(number)
        self.feed(lambda at: CallReturned(at, call_id, status, content, details, **shown))  # type: ignore[arg-type]

    def progress(self, text: str, number: int = 0, data: Json = None) -> None:
        call_id = self.call_id(number)
        self.feed(lambda at: Progressed(call_id, text, data))

    def call_id(self, number: int = 0) -> str:
        return self.state.run.steps[-1].calls[number].call_id

    def ask(self, question: Question, number: int = 0) -> None:
        """A running call asks."""
        call_id = self.call_id(number)
        self.feed(lambda at: Asked(at, call_id, 1, question))

    def steer(self, text: str, input_id: str = "inp_1") -> None:
        self.feed(lambda at: Steer(at, input_id, Message("user", (Text(text),))))

    def note(self, kind: NoteKind, message: str, call_id: str | None = None) -> None:
        self.feed(lambda at: Note(at, kind, message, call_id))

    def wait(self, seconds: float) -> None:
        self.at += seconds
        self.feed(Clock)

    def fail(self, kind: str, message: str) -> None:
        self.feed(lambda at: ModelFailed(at, kind, message))

    def stop(self, message: str = "interrupted", status: EndStatus = "cancelled") -> None:
        self.feed(lambda at: Stop(at, status, status, message))


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


def steered() -> Play:
    """A message takes back what waits, lets what runs end, and is read before the next step; a second ends an answer."""
    play = Play("Mail Ana and Bo.")
    play.call("mail", to="ana@example.org")
    play.call("mail", to="bo@example.org")
    play.finish("tool_calls")
    play.judge()
    play.answer("approve")
    play.steer("Not Bo, he is on leave.")
    play.returned("sent")
    play.say("Ana has it.")
    play.steer("Tell me in Norwegian.", "inp_2")
    play.finish()
    play.say("Ana har fått den.")
    play.finish()
    return play


def queued() -> Play:
    """The message is there and not read yet: the call that runs goes on."""
    play = Play("Train it.")
    play.call("train", epochs=20)
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.steer("Five epochs will do.")
    return play


COLOURS = (Option("Blue", "as on the web page"), Option("Green"))


def asked() -> Play:
    """Two questions of running calls: one is answered, for the other the time limit speaks."""
    play = Play("Make the poster.")
    play.call("ask_user", question="Which colour?")
    play.finish("tool_calls")
    play.judge("read", "allow", is_trusted=True)
    play.ask(Question("q1", "question", "Which colour?", COLOURS, allows_text=True))
    play.answer("result", result="Green")
    play.returned("Green")
    play.call("ask_user", question="Which paper?")
    play.finish("tool_calls")
    play.judge("read", "allow", is_trusted=True)
    paper = (Option("matt"), Option("glossy"))
    play.ask(Question("q2", "question", "Which paper?", paper, default_result="matt", expires_at=play.at + 60))
    play.wait(61)
    play.returned("matt")
    play.say("A green poster on matt paper.")
    play.finish()
    return play


def asking() -> Play:
    """A question that is open, and may have several answers."""
    play = Play("Send the report.")
    play.call("ask_user", question="Who gets it?")
    play.finish("tool_calls")
    play.judge("read", "allow")
    people = (Option("Ana", "finance"), Option("Bo", "on leave"), Option("Cem"))
    play.ask(Question("q1", "question", "Who gets it?", people, allows_text=True, allows_many=True))
    return play


def inner(digest: str, url: str) -> Question:
    return Question(
        digest, "approval", name="fetch", arguments={"url": url}, description="Loads a page.", preview=f"GET {url}"
    )


def sub_agent() -> Play:
    """A call of a sub-agent waits for the person while the outer call runs."""
    play = Play("What do the papers say?")
    play.call("research", topic="papers")
    play.finish("tool_calls")
    play.judge("write", "allow")
    play.progress("step 1: fetch", data={"text/plain": "fetch", "status": "waiting"})
    play.ask(inner("d1", "https://example.org/a"))
    play.answer("approve", scope="session")
    play.returned("They agree.")
    play.say("The papers agree.")
    play.finish()
    return play


def asked_again() -> Play:
    """One call that needs an approval of its own and asks twice more while it runs, the second time in vain."""
    play = Play("What do the papers say?")
    play.call("research", topic="papers")
    play.finish("tool_calls")
    play.judge()
    play.answer("approve")
    play.ask(inner("d1", "https://example.org/a"))
    play.answer("edit", arguments={"url": "https://example.org/b"}, digest="d2")
    play.ask(Question("q1", "question", "Deeper?", allows_text=True))
    play.answer("deny", reason="enough")
    play.returned("They agree.")
    return play


def last_word() -> Play:
    """The steps are used up, and the model says what it knows."""
    play = Play("Count the stars.", max_steps=1, summarises=True)
    play.call("look")
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.returned("many")
    play.say("I have counted many, and some are left.")
    play.finish()
    return play


def closed() -> Play:
    """A step policy ends the run with words of its own."""
    play = Play("Count the stars.", max_steps=0, reviews=frozenset({"step"}))
    play.say("One moment.")
    play.call("look")
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.returned("many")
    play.feed(lambda at: Reviewed(at, "step", may_go_on=False, text="That is enough for <b>today</b>."))
    return play


def retried() -> Play:
    """The same model once more, then another one."""
    play = Play("Say hello.", models=2, attempts=2)
    play.fail("overloaded", "529: overloaded")
    play.fail("rate_limit", "429: slow down")
    play.feed(lambda at: Chosen(at, "scripted-mini", "small", "the first model failed"))
    play.say("Hello.")
    play.finish()
    return play


def over_budget() -> Play:
    play = Play("Read it all.", budget={"steps": 5, "usd": 0.02, "tokens": None})
    play.feed(lambda at: SetBudget(at, {"steps": 5, "usd": 0.03, "tokens": None}))
    play.say("The first chapter is about ")
    play.stop("the budget of 0.03 USD is used up", "budget")
    return play


def timed_out() -> Play:
    play = Play("Wait for it.")
    play.call("poll")
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.stop("the run has used its 60 s", "timeout")
    return play


PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAHgAAAAwAQMAAADgoSyQAAAABlBMVEX///8LV9AqviXYAAAAJklEQVR42mNgIAX8/0MzPphJUz7//wPk8aFGDSAfzBwY"
    "PoI5LPkA9rhkIHzRxV4AAAAASUVORK5CYII="
)
"""Six bars."""
TABLE: Json = {
    "columns": ["region", "orders", "share"],
    "rows": [["North", 431900, 0.41], ["West <b>", 242310, None]],
    "shape": [3120, 3],
}


def shown() -> Play:
    """Files, a figure and a table."""
    play = Play("Plot the orders.")
    play.call("plot", column="orders")
    play.finish("tool_calls")
    play.judge("write", "allow")
    play.returned(
        "plotted",
        files=(File("out/orders.csv", 12_480, "text/csv"), File("out/orders.png")),
        display=(
            {"image/png": PNG, "text/plain": "orders by region"},
            {"application/vnd.turncell.table+json": TABLE, "text/plain": "region orders"},
        ),
    )
    play.say("There it is.")
    play.finish()
    return play


def noted() -> Play:
    """Whatever people may want to read later; the hook and the output's type send the agent on."""
    play = Play(
        "How many?", agent="clerk", notices=("the export has ended",), reviews=frozenset({"finish"}), tools=("count",)
    )
    play.note("hook", "after_step log: OSError: disk full")
    play.call("count", of="stars")
    play.finish("tool_calls")
    play.judge()
    play.feed(lambda at: SetRules(at, (Rule("count", "allow", {"of": "s*"}),)))
    play.note("rule", "allow count(of=s*), session", play.call_id())
    play.answer("approve", scope="session")
    play.note("notice", "the count goes on", play.call_id())
    play.returned("ValueError: no sky", status="error")
    play.note("guard", "count has failed before")
    play.say("Three")
    play.finish()
    play.note("output", "the answer is no number")
    play.feed(lambda at: Reviewed(at, "finish", message=Message("user", (Text("Answer with a number."),)), by="output"))
    play.say("3")
    play.finish()
    play.feed(lambda at: Reviewed(at, "finish", message=Message("user", (Text("Say what you counted."),))))
    play.say("3 stars")
    play.finish()
    play.feed(lambda at: Reviewed(at, "finish"))
    return play


def edited_by_a_hook() -> Play:
    play = Play("Clean up.")
    play.call("run_shell", command="rm -rf exports")
    play.finish("tool_calls")
    play.judge("write", "allow", {"command": "rm -rf exports/tmp"}, is_replaced=True)
    play.returned("done")
    play.say("Cleaned.")
    play.finish()
    return play


def interrupted() -> Play:
    """Killed while the model was writing: what was saved stays, and the model writes anew."""
    play = Play("Tell me a story.")
    play.think("A short one.")
    for _ in range(12):
        play.say("Once upon a time. ")
    play.restart()
    play.say("Once upon a time there was a cell.")
    play.finish()
    return play


def interrupted_at_an_approval() -> Play:
    """Killed while a person was asked: the same question is asked again."""
    play = Play("Mail Ana.")
    play.say("I will write to her.")
    play.call("mail", to="ana@example.org")
    play.finish("tool_calls")
    play.judge(preview="To ana@example.org")
    play.restart()
    play.answer("approve")
    play.returned("sent")
    play.say("Ana knows.")
    play.finish()
    return play


def _in_doubt() -> Play:
    play = Play("Mail Ana.")
    play.call("mail", to="ana@example.org", body="3.5 °C in Oslo")
    play.finish("tool_calls")
    play.judge()
    play.answer("approve")
    play.progress("talking to the server")
    play.restart()
    return play


def in_doubt() -> Play:
    """Killed in the middle of a write, and again while a person was asked what has become of it."""
    play = _in_doubt()
    play.restart()
    return play


def in_doubt_runs_again() -> Play:
    play = _in_doubt()
    play.answer("approve")
    play.returned("sent")
    play.say("Ana knows.")
    play.finish()
    return play


def in_doubt_has_happened() -> Play:
    play = _in_doubt()
    play.answer("result", result="it is in the outbox")
    play.say("Ana knows.")
    play.finish()
    return play


def in_doubt_is_skipped() -> Play:
    play = _in_doubt()
    play.answer("deny")
    play.say("Please look whether Ana has it.")
    play.finish()
    return play


def read_again() -> Play:
    """Two reads had begun: the one that was finished is not done again."""
    play = Play("What is the weather?")
    play.call("weather", city="Oslo")
    play.call("weather", city="Bergen")
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.returned("3.5 °C")
    play.restart()
    play.returned("rain", 1)
    play.say("It rains in Bergen.")
    play.finish()
    return play


def ended_by_a_tool() -> Play:
    """Killed when one call had ended the run and another was still at work: the model is not asked again."""
    play = Play("What is the weather?")
    play.call("weather", city="Oslo")
    play.call("weather", city="Bergen")
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.returned("3.5 °C, and that is all", terminates=True)
    play.restart()
    play.returned("rain", 1)
    return play


def compacted() -> Play:
    """A source is asked, old results are cut, the middle is summarised, and the provider finds it too long once more."""
    play = Play("Read all chapters.", recoveries=1)
    passage = Passage("The book has two chapters.", "library", 0.9, 1)
    play.feed(lambda at: Found(at, (passage,), 12))
    for chapter in (1, 2):
        play.call("read", chapter=chapter)
        play.finish("tool_calls")
        play.judge("read", "allow")
        play.returned(f"Chapter {chapter}. " + "It was a dark night. " * 40)
    first, second = (call.call_id for call in play.state.run.calls)
    play.feed(lambda at: Cut(at, (first,), (("run_1", 0),), 100, 900, 700))
    play.fail("context_length", "the window has 512 tokens")
    play.feed(lambda at: Cut(at, (second,), (), 100, 700, 500))
    play.feed(
        lambda at: Summarised(
            at=at, upto=("run_1", 1), covers=("run_1",), summary="The first chapter is about a dark night.",
            tokens_before=500, tokens_after=400, model="scripted-mini", usage=Usage(400, 20), cost_usd=0.002,
            cost_basis="prices",
        )
    )  # fmt: skip
    play.say("Both are about a dark night.")
    play.finish()
    return play


PLAYS: tuple[Callable[[], Play], ...] = (
    answer, approved, edited, two_requests, waiting, invalid, failed, cancelled, streaming, max_steps,
    steered, queued, asked, asking, sub_agent, last_word, closed, retried, over_budget, timed_out, shown, noted,
    edited_by_a_hook, interrupted, interrupted_at_an_approval, in_doubt, in_doubt_runs_again, in_doubt_has_happened,
    in_doubt_is_skipped, read_again, ended_by_a_tool, compacted,
)  # fmt: skip


def held_elsewhere() -> Play:
    """Brought in as messages: no reducer has written it."""
    play = Play("", is_begun=False)
    said = (
        Message("user", (Text("What do I wear in Oslo?"),)),
        Message("assistant", (Reasoning("Two calls."), *(ToolCall(f"c{n}", "weather", "{}", f"c{n}") for n in (1, 2)))),
        Message("tool", (ToolResult("c2", "weather", "rain"),)),
        Message("assistant", (Text("An umbrella."),)),
    )
    play.events = list(imported(said, session_id="ses_1", run_ids=["run_1"], at=play.at))
    play.state = LoopState(run=fold(play.events))
    return play


def main() -> None:
    for make in (*PLAYS, asked_again, held_elsewhere):
        play = make()
        journal = {"events": play.events, "snapshot": snapshot(fold(play.events))}
        plain = codec.decode_json(codec.encode(journal))
        (HERE / f"{make.__name__}.json").write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
