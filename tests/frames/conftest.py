"""Runs for the tables and the transcript, driven through the real reducer by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from turncell.core import events as ev
from turncell.core.codec import encode
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment
from turncell.core.digest import call_digest
from turncell.core.events import one_by_one
from turncell.core.fold import RunState, at_rest, fold
from turncell.core.loop_state import LoopState
from turncell.core.parts import Message, Text, Usage
from turncell.core.policy import Effect, Verdict
from turncell.core.reducer import reduce
from turncell.core.signals import (
    Answered,
    Asked,
    Begin,
    CallReturned,
    Chosen,
    Judged,
    Judgement,
    ModelFailed,
    ModelFinished,
    Note,
    Question,
    Resume,
    Reviewed,
    Steer,
    Stop,
    Streamed,
)
from turncell.runtime.ports import Record

NOON = 1_755_172_800.0
"""2025-08-14 12:00:00 UTC."""
SESSION = "ses_sales"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(id): the capability that the test holds")


@dataclass
class Drive:
    """One run, told as a story: each method is what the world does next, after some seconds."""

    run_id: str = "run_1"
    seq: int = 0
    at: float = NOON
    state: LoopState = field(default_factory=LoopState)
    events: list[ev.Event] = field(default_factory=list)

    def feed(self, signal: Any) -> Drive:
        transition = reduce(self.state, signal)
        self.state = transition.state
        self.events.extend(one_by_one(transition.events))
        return self

    def begin(self, prompt: str, **more: Any) -> Drive:
        values: dict[str, Any] = {
            "model": "claude-sonnet-5",
            "mode": "ask",
            "max_steps": 40,
            "tools": ("read_file",),
            **more,
        }
        behaviour = {
            name: values.pop(name) for name in ("models", "attempts", "reviews", "summarises") if name in values
        }
        return self.feed(
            Begin(
                **behaviour,
                started=ev.RunStarted(
                    seq=self.seq + 1, session_id=SESSION, run_id=self.run_id, step=0, at=self.at,
                    **{"root_run_id": self.run_id} | values,
                ),
                message=Message("user", (Text(prompt),)),
            )
        )  # fmt: skip

    def after(self, seconds: float) -> Drive:
        self.at += seconds
        return self

    def thinks(self, text: str, seconds: float = 0.0) -> Drive:
        self.after(seconds)
        return self.feed(Streamed(self.at, [ReasoningFragment(text)]))

    def writes(self, text: str, seconds: float = 0.0) -> Drive:
        self.after(seconds)
        return self.feed(Streamed(self.at, [text]))

    def asks_for(self, *calls: tuple[str, dict[str, Any] | str]) -> Drive:
        fragments: list[Fragment] = [
            CallFragment(n, f"toolu_{n}", name, args if isinstance(args, str) else json.dumps(args))
            for n, (name, args) in enumerate(calls)
        ]
        return self.feed(Streamed(self.at, fragments))

    def finishes(
        self,
        reason: ev.FinishReason = "stop",
        *,
        usage: Usage | None = None,
        cost_usd: float | None = 0.0103,
        seconds: float = 0.5,
        first_token_s: float | None = 0.4,
    ) -> Drive:
        self.after(seconds)
        basis: ev.CostBasis = "none" if cost_usd is None else "prices"
        end = Finished(reason, usage or Usage(3100, 41), cost_usd, basis, "claude-sonnet-5-20260301")
        return self.feed(ModelFinished(self.at, end, first_token_s))

    def fails(self, kind: str, message: str, seconds: float = 0.5) -> Drive:
        self.after(seconds)
        return self.feed(ModelFailed(self.at, kind, message, Usage(3100, None)))

    def call_id(self, number: int) -> str:
        return self.state.run.steps[-1].calls[number - 1].call_id

    def judged(self, *verdicts: tuple[Effect, Verdict] | str, reason: str = "", **more: Any) -> Drive:
        """One verdict for each call; a string is a problem instead."""
        judgements = []
        for call, verdict in zip(self.state.run.steps[-1].calls, verdicts, strict=True):
            if isinstance(verdict, str):
                judgements.append(Judgement(call.call_id, problem=verdict))
                continue
            arguments = json.loads(call.arguments_text)
            judgements.append(
                Judgement(
                    call.call_id, verdict[0], arguments, call_digest(call.name, arguments),
                    verdict=verdict[1], by="mode ask", reason=reason, **more,
                )
            )  # fmt: skip
        return self.feed(Judged(self.at, tuple(judgements), self.at + 300))

    def answered(self, number: int, answer: ev.Answer, *, seconds: float = 1.0, **more: Any) -> Drive:
        self.after(seconds)
        call = self.state.run.steps[-1].calls[number - 1]
        assert call.request is not None
        if "arguments" in more:
            more["digest"] = call_digest(call.name, more["arguments"])
        return self.feed(
            Answered(at=self.at, request_id=call.request.request_id, answer=answer, **({"by": "person"} | more))
        )

    def returned(
        self, number: int, content: str, status: ev.CallEnd = "ok", seconds: float = 0.2, **shown: Any
    ) -> Drive:
        self.after(seconds)
        return self.feed(CallReturned(self.at, self.call_id(number), status, content, **shown))

    def asks(self, number: int, question: Question) -> Drive:
        """The running call asks."""
        return self.feed(Asked(self.at, self.call_id(number), 1, question))

    def is_told(self, text: str, input_id: str = "inp_1") -> Drive:
        """The person says something in between."""
        return self.feed(Steer(self.after(0.3).at, input_id, Message("user", (Text(text),))))

    def notes(self, kind: ev.NoteKind, message: str) -> Drive:
        return self.feed(Note(self.at, kind, message))

    def reviewed(self, review: Any, **more: Any) -> Drive:
        return self.feed(Reviewed(self.at, review, **more))

    def stopped(self, seconds: float = 0.5, status: ev.EndStatus = "cancelled", **more: Any) -> Drive:
        self.after(seconds)
        return self.feed(Stop(self.at, status, **more))

    def restarted(self, seconds: float = 600.0) -> Drive:
        """The program is killed, and another one goes on with the run."""
        self.after(seconds)
        begin, run = self.state.begin, at_rest(self.run)
        assert begin is not None
        self.state = LoopState()
        return self.feed(Resume(self.at, begin, run, run.seq, {}, self.at + 300))

    @property
    def recorded(self) -> list[ev.Recorded]:
        return [event for event in self.events if isinstance(event, ev.Recorded)]

    @property
    def run(self) -> RunState:
        """The fold of what a journal would hold."""
        return fold(self.recorded)  # type: ignore[arg-type]


def as_records(events: Iterable[Any]) -> list[Record]:
    return [Record(e.session_id, e.seq, e.run_id, e.step, e.type, e.at, encode(e)) for e in events]


ANSWER = """\
West fell **18%** against Q2, and one store explains most of it. Store 114 has 280 orders without an `amount`. \
All of them were refunded after the payment outage on [14 August](https://example.com/incident).

| Region | Q2 | Q3 | Change |
|---|---:|---:|---:|
| North | 412,300 | 431,900 | +4.8% |
| South | 388,120 | 391,400 | +0.8% |
| West | 295,640 | 242,310 | −18.0% |

### Reproduce it

```python
import duckdb
west = duckdb.sql("select * from 'data/sales.csv' where region = 'West'").df()
west["amount"].isna().groupby(west.store).sum().nlargest(3)  # store 114 leads
```

- Without store 114 the region is flat (−0.6%).
- The refunds are dated, so Q4 is not affected.

> The outage ended on 15 August.

![chart](https://cdn.example.net/west.png)
"""
CSV = "order_id,store,region,order_date,amount\n" + "\n".join(
    f"{100234 + n},{100 + n % 21},West,2025-08-14,{n}.20" for n in range(60)
)


def text_only(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Say hello").writes("Hel", 0.4).writes("lo, *Ana*.", 0.2)
    return run.finishes()


def tools_and_approval(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Why did West sales drop in Q3?", cell_id="cell-7")
    run.thinks(
        "The sales file has a `region` column, but the question asks for quarters.\n\nI need `order_date` first.",
        1.0,
    )
    run.after(5.0).writes("Let me look at the file.").asks_for(
        ("read_file", {"path": "data/sales.csv", "limit": 2000}), ("list_tables", {})
    )
    run.finishes("tool_calls", usage=Usage(4100, 300, 3000, 900, 210), cost_usd=0.011)
    run.judged(("read", "allow"), ("read", "allow")).returned(1, CSV).returned(2, "sales\nrefunds", seconds=0.1)
    run.asks_for(
        (
            "run_sql",
            {"query": "SELECT region, date_trunc('quarter', order_date) AS q, sum(amount)\nFROM sales GROUP BY 1, 2"},
        )
    )
    run.finishes("tool_calls", usage=Usage(4100, 300, 3800, 0), cost_usd=0.01, first_token_s=0.3)
    run.judged(("write", "ask"), description="Runs SQL on the warehouse.").answered(1, "approve", seconds=4.0)
    run.returned(1, "ok, 3 rows", seconds=1.4)
    return run.writes(ANSWER, 0.8).finishes(usage=Usage(4200, 600, 3000, None, None, True))


def edited(**kw: Any) -> Drive:
    run = (
        Drive(**kw)
        .begin("Clean up the export folder")
        .asks_for(("run_shell", {"command": "rm -rf exports", "cwd": "/home/ana"}))
    )
    run.finishes("tool_calls").judged(("write", "ask"))
    run.answered(
        1,
        "edit",
        arguments={"command": "rm -rf exports/tmp", "cwd": "/home/ana"},
        reason="only the temporary ones",
    )
    return run.returned(1, "").writes("Done: `exports/tmp` is gone.").finishes(cost_usd=None)


def denied(**kw: Any) -> Drive:
    run = (
        Drive(**kw)
        .begin("Clean up the export folder")
        .asks_for(
            ("run_shell", {"command": "rm -rf exports/tmp"}),
            ("mail", {"to": "bo@rival.example"}),
            ("nonsense", "{oops"),
        )
    )
    run.finishes("tool_calls").judged(
        ("write", "ask"), ("write", "deny"), "the arguments are not JSON", reason="no mail to rivals"
    )
    run.answered(1, "deny", reason="Keep the 2025 files, finance still needs them.")
    return run.writes("Understood, I will leave them.").finishes()


def failed_tool(**kw: Any) -> Drive:
    run = (
        Drive(**kw)
        .begin("Sum the amounts")
        .asks_for(("run_sql", {"query": "SELECT sum(amt) FROM sales"}))
        .finishes("tool_calls")
    )
    run.judged(("read", "allow"))
    problem = 'Binder Error: Referenced column "amt" not found in FROM clause!\nCandidate bindings: "sales.amount"'
    return run.returned(1, problem, "error", 0.4).writes("There is no such column.").finishes()


def provider_error(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Summarise the log").writes("The log has three phases. In the first, the sched", 0.5)
    return run.writes("uler", 1.5).fails("overloaded", "the provider answered 529 after 3 tries")


def cancelled(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Summarise the log").asks_for(("read_file", {"path": "log.txt"})).finishes("tool_calls")
    run.judged(("read", "allow")).returned(1, "phase 1\nphase 2")
    return run.writes("The log has three phases. In the first, the scheduler", 3.0).stopped(2.0)


def max_steps(**kw: Any) -> Drive:
    run = (
        Drive(**kw)
        .begin("Count to a million", max_steps=1)
        .asks_for(("count", {"to": 1_000_000}))
        .finishes("tool_calls")
    )
    return run.judged(("read", "allow")).returned(1, "1000000")


def waiting(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Tidy up", parent_run_id="run_1", root_run_id="run_1", depth=1, previous="run_0")
    run.writes("I would remove it.").asks_for(
        ("read_file", {"path": "a"}), ("remove", {"path": "a"}), ("remove", {"path": "b"})
    )
    run.finishes("tool_calls").judged(("read", "allow"), ("write", "ask"), ("write", "ask"))
    return run.returned(1, "text").answered(2, "approve", seconds=2.0)


def streaming(**kw: Any) -> Drive:
    """Open, with a second of text saved; what came after the last save is lost with the process."""
    return Drive(**kw).begin("Write a poem").thinks("Rhyme?").writes("Roses are ", 1.2).writes("red", 0.1)


def steered(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Mail Ana and Bo").asks_for(("mail", {"to": "ana"}), ("mail", {"to": "bo"}))
    run.finishes("tool_calls").judged(("write", "ask"), ("write", "ask")).answered(1, "approve", scope="session")
    run.notes("rule", "allow mail, session").is_told("Not Bo, he is on leave.").returned(1, "sent")
    run.writes("Ana has it.").is_told("In Norwegian, please.", "inp_2").finishes()
    return run.writes("Ana har fått den.").finishes()


def unread(**kw: Any) -> Drive:
    """A message that nobody reads any more."""
    return Drive(**kw).begin("Tell me a story").writes("Once upon").is_told("A short one.").stopped()


QUARTERS = (ev.Option("Q3", "complete"), ev.Option("Q4"))


def asked(**kw: Any) -> Drive:
    """An approval, then two questions of the running call: one answered, one left to the time limit."""
    run = Drive(**kw).begin("Write the report").asks_for(("report", {})).finishes("tool_calls")
    run.judged(("write", "ask")).answered(1, "approve", seconds=2)
    run.after(1).asks(1, Question("q1", "question", "Which quarters?", QUARTERS, allows_many=True))
    run.answered(1, "result", seconds=3, result='["Q3", "Q4"]')
    run.after(1).asks(1, Question("q2", "question", "Which paper?", allows_text=True, default_result="matt"))
    run.answered(1, "result", seconds=60, by="time limit", result="matt")
    return run.returned(1, "done").writes("Here it is.").finishes()


def declined(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Write the report").asks_for(("ask_user", {})).finishes("tool_calls")
    run.judged(("read", "allow"), is_trusted=True).asks(1, Question("q1", "question", "Which quarter?", QUARTERS))
    return run.answered(1, "deny", reason="you choose").returned(1, "no answer").writes("Q3, then.").finishes()


def asking(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Write the report").asks_for(("ask_user", {})).finishes("tool_calls")
    return run.judged(("read", "allow")).asks(1, Question("q1", "question", "Which quarter?", QUARTERS))


def sub_agent(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Read the papers", agent="librarian").asks_for(("research", {"on": "refunds"}))
    run.finishes("tool_calls").judged(("write", "allow"))
    inner = Question(
        "d", "approval", name="fetch", arguments={"url": "https://example.org"}, description="Loads a page."
    )
    run.asks(1, inner).answered(1, "approve", seconds=4)
    return run.returned(1, "They agree.").writes("They agree.").finishes()


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""One pixel."""


def shown(**kw: Any) -> Drive:
    """Files, a figure and a table."""
    run = Drive(**kw).begin("Plot it").asks_for(("plot", {})).finishes("tool_calls").judged(("write", "allow"))
    table = {"columns": ["region", "orders"], "rows": [["N|orth", 431900], ["West <b>", None]], "shape": [3120, 2]}
    run.returned(
        1,
        "plotted",
        files=(ev.File("out/orders.csv", 12_480), ev.File("out/a`b.png")),
        display=(
            {"image/png": PNG, "text/plain": 'orders "by" region'},
            {"application/vnd.turncell.table+json": table},
            {"text/plain": "only words"},
        ),
    )
    return run.writes("There it is.").finishes()


def retried(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Say hello", model="lab/big", models=2, attempts=2)
    run.fails("overloaded", "529").fails("rate_limit", "429")
    run.feed(Chosen(run.at, "lab/little", "small", "the first model failed"))
    return run.writes("Hello.").finishes()


def closed(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Count the stars", max_steps=0, reviews=frozenset({"step"})).writes("One moment.")
    run.asks_for(("look", {})).finishes("tool_calls").judged(("read", "allow")).returned(1, "many")
    return run.reviewed("step", may_go_on=False, text="That is enough for today.")


def sent_on(**kw: Any) -> Drive:
    """A hook and the check of the output tell the model something."""
    run = Drive(**kw).begin("How many?", reviews=frozenset({"finish"})).notes("hook", "log failed")
    run.writes("Three").finishes().notes("output", "no number")
    run.reviewed("finish", message=Message("user", (Text("Answer with a number."),)), by="output")
    return run.writes("3").finishes().reviewed("finish")


def over_budget(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Read it all", budget={"usd": 0.02}).writes("The first chapter is")
    return run.stopped(status="budget", kind="budget", message="the budget of 0.02 USD is used up")


def edited_by_a_hook(**kw: Any) -> Drive:
    run = Drive(**kw).begin("Clean up").asks_for(("run_shell", {"command": "rm -rf exports"})).finishes("tool_calls")
    run.feed(
        Judged(run.at, (Judgement(
            run.call_id(1), "write", {"command": "ls"}, "d", verdict="allow", by="a hook", is_replaced=True,
        ),))
    )  # fmt: skip
    return run.returned(1, "a b").writes("Listed.").finishes()


def cut_off(**kw: Any) -> Drive:
    """Open: a read that is finished, one that is not, and a write; then nothing more."""
    run = Drive(**kw).begin("Mail the weather to Ana")
    run.asks_for(("weather", {"of": "Oslo"}), ("weather", {"of": "Bergen"}), ("mail", {"to": "ana"}))
    run.finishes("tool_calls").judged(("read", "allow"), ("read", "allow"), ("write", "ask"))
    return run.answered(3, "approve", seconds=2).returned(1, "3.5 °C", seconds=5)


def in_doubt(**kw: Any) -> Drive:
    return cut_off(**kw).restarted()


def run_again(**kw: Any) -> Drive:
    run = in_doubt(**kw).returned(2, "rain", seconds=3).answered(3, "approve", seconds=7).returned(3, "sent", seconds=4)
    return run.writes("Ana knows.").finishes()


def has_happened(**kw: Any) -> Drive:
    run = in_doubt(**kw).answered(3, "result", seconds=7, result="it is in the outbox").returned(2, "rain")
    return run.writes("Ana knows.").finishes()


def skipped(**kw: Any) -> Drive:
    return in_doubt(**kw).answered(3, "deny", seconds=7).returned(2, "rain").writes("Does Ana know?").finishes()


def asked_anew(**kw: Any) -> Drive:
    """Killed while a person was asked, and while a sentence was written."""
    run = Drive(**kw).begin("Mail Ana").asks_for(("mail", {"to": "ana"})).finishes("tool_calls")
    run.judged(("write", "ask")).after(5).restarted().answered(1, "approve", seconds=3).returned(1, "sent")
    return run.writes("Ana has ").writes("it, and", 1.5).restarted().writes("Ana has it.").finishes()


STORIES: dict[str, Callable[..., Drive]] = {
    story.__name__: story
    for story in (
        text_only, tools_and_approval, edited, denied, failed_tool, provider_error, cancelled, max_steps, waiting, streaming,
        steered, unread, asked, declined, asking, sub_agent, shown, retried, closed, sent_on, over_budget,
        edited_by_a_hook, cut_off, in_doubt, run_again, has_happened, skipped, asked_anew,
    )
}  # fmt: skip


def whole_session() -> list[Drive]:
    """Every story, one after the other in one session."""
    drives: list[Drive] = []
    seq, at = 0, NOON
    for number, story in enumerate(STORIES.values(), 1):
        drive = story(run_id=f"run_{number}", seq=seq, at=at)
        seq, at = drive.recorded[-1].seq, drive.at + 60
        drives.append(drive)
    return drives


@pytest.fixture(scope="session")
def session() -> list[Drive]:
    return whole_session()
