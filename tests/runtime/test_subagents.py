"""A20: agents as tools of other agents."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from tests.runtime.pieces import Silent, skip, until
from tests.runtime.test_hooks import read
from tests.runtime.test_runs import Mailbox, weather
from tests.runtime.test_tool_calls import Gauge
from turncell import (
    Agent,
    AnswerRefused,
    Budget,
    ModelFailure,
    Rule,
    ToolContext,
    ToolError,
    calls_df,
    rulebook,
    runs_df,
    tool,
)
from turncell.core.fold import CallState, RequestState
from turncell.runtime.run import Run
from turncell.testing import ScriptedModel, call, stop

pytestmark = pytest.mark.feature("A20")


@pytest.fixture
def box() -> Mailbox:
    return Mailbox()


def clerk(box: Mailbox, *to: str, **options: Any) -> Agent:
    """Mails whom it is told to, and says so."""
    script = [*(call("mail", to=name) for name in to), "Mailed."] * 3
    return Agent(ScriptedModel(script), name="clerk", tools=[box.tool()], **options)


def over(*inner: Agent, calls: Any = None, then: Any = ("Done.",), **options: Any) -> Agent:
    first = [call("clerk", task="mail them")] if calls is None else calls
    how = options.pop("as_tool", {})
    tools = [one.as_tool(**how) for one in inner]
    return Agent(ScriptedModel([first, *then]), name="boss", tools=tools, **options)


def start(agent: Agent, **options: Any) -> Run:
    run = agent.start("go", is_attended=True, **options)
    until(lambda: run.status == "waiting" or run.is_done)
    assert run.status == "waiting", run.state
    return run


def asked(call: CallState) -> RequestState:
    assert call.request is not None
    return call.request


class TestAsATool:
    def test_it_has_its_task_answers_in_its_place_and_has_a_row_of_its_own(self) -> None:
        inner_model = ScriptedModel([call("weather", city="Oslo"), "Mild."])
        inner = Agent(inner_model, name="scout", tools=[weather], instructions="You scout.")
        outer = Agent(ScriptedModel([call("scout", task="How is Oslo?"), "All well."]), tools=[inner.as_tool()])
        run = outer.run_sync("go")
        assert (run.text, read(run)) == ("All well.", "Mild.")
        assert inner_model.requests[0].messages[0].text == "How is Oslo?"
        details: Any = run.tool_calls[0].details
        assert (details["status"], details["steps"]) == ("completed", 2)
        table = runs_df().set_index("run_id")
        child = table.loc[details["run_id"]]
        assert len(table) == 2
        assert (child["parent_run_id"], child["root_run_id"]) == (run.id, run.id)
        assert table.loc[run.id, "root_run_id"] == run.id and child["status"] == "completed"
        assert set(calls_df()["name"]) == {"scout", "weather"}

    def test_three_deep_each_knows_its_parent_and_the_root(self) -> None:
        seen: list[Any] = []

        @tool(effect="read")
        def look(context: ToolContext) -> str:
            """Look."""
            seen.append(context.run_id)
            return "seen"

        third = Agent(ScriptedModel([call("look"), "three"]), name="third", tools=[look])
        second = Agent(ScriptedModel([call("third", task="x"), "two"]), name="second", tools=[third.as_tool()])
        first = Agent(ScriptedModel([call("second", task="x"), "one"]), tools=[second.as_tool()])
        run = first.run_sync("go")
        table = runs_df().set_index("run_id")
        deepest = table.loc[seen[0]]
        middle = table.loc[deepest["parent_run_id"]]
        assert (middle["parent_run_id"], deepest["root_run_id"], run.text) == (run.id, run.id, "one")
        assert run.state.depth == 0 and len(table) == 3

    def test_its_failure_is_a_result_for_the_outer_model(self) -> None:
        inner = Agent(ScriptedModel([ValueError("broken")]), name="clerk", attempts=1)
        run = over(inner).run_sync("go")
        assert (run.status, run.text) == ("completed", "Done.")
        assert "clerk ended as failed" in read(run) and "broken" in read(run)
        assert run.tool_calls[0].status == "error" and list(calls_df(run)["status"]) == ["error"]
        details: Any = run.tool_calls[0].details
        assert (details["run_id"], details["status"]) == (run.inner_runs[0].run_id, "failed")

    def test_the_same_task_is_not_handed_over_again_and_again_to_an_agent_that_fails(self) -> None:
        inner = Agent(ScriptedModel(lambda _: ModelFailure("auth", "bad key")), name="clerk")
        model = ScriptedModel([*[call("clerk", task="t")] * 6, "Done."])
        run = Agent(model, tools=[inner.as_tool()]).run_sync("go")
        assert [c.status for c in run.tool_calls] == ["error"] * 3 + ["invalid"] * 3 and len(run.inner_runs) == 3

    def test_what_it_had_said_before_it_failed_is_read_too(self) -> None:
        inner = Agent(ScriptedModel([["Half of it: ", call("weather", city="Oslo")], ValueError("broken")]), name="clerk",
                      tools=[weather], attempts=1)  # fmt: skip
        run = over(inner).run_sync("go")
        assert run.tool_calls[0].status == "error" and "Half of it" in read(run) and "broken" in read(run)

    @pytest.mark.parametrize(("summarises", "status"), [(True, "ok"), (False, "error")])
    def test_one_whose_steps_are_used_up_has_an_answer_where_it_sums_up(self, summarises: bool, status: str) -> None:
        model = ScriptedModel([call("weather", city="Oslo"), "Only Oslo so far."])
        inner = Agent(model, name="clerk", tools=[weather], max_steps=1, summarises=summarises)
        run = over(inner).run_sync("go")
        assert run.tool_calls[0].status == status and "clerk ended as max_steps" in read(run)
        assert ("Only Oslo so far." in read(run)) is summarises

    def test_an_answer_that_was_cut_off_at_the_models_limit_is_one(self) -> None:
        inner = Agent(ScriptedModel([["Half an", stop("length")]]), name="clerk")
        run = over(inner).run_sync("go")
        assert run.tool_calls[0].status == "ok" and read(run).endswith("Half an") and "truncated" in read(run)

    def test_its_output_of_a_type_is_what_the_outer_model_reads(self) -> None:
        inner = Agent(ScriptedModel([call("final_answer", value=["Ana", "Bo"])]), name="clerk", output=list[str])
        assert read(over(inner).run_sync("go")) == '["Ana", "Bo"]'

    def test_several_run_side_by_side(self) -> None:
        gate = threading.Barrier(2, timeout=60)

        @tool(effect="read")
        def meet() -> str:
            """Meet."""
            gate.wait()
            return "met"

        inners = [Agent(ScriptedModel([call("meet"), f"{name} met."]), name=name, tools=[meet]) for name in "ab"]
        outer = Agent(
            ScriptedModel([[call("a", task="x"), call("b", task="x")], "Done."]), tools=[i.as_tool() for i in inners]
        )
        run = outer.start("go").result(60)
        assert [c.content for c in run.tool_calls] == ["a met.", "b met."]

    def test_it_has_the_options_of_a_tool(self) -> None:
        made = Agent(ScriptedModel([]), name="scout").as_tool("spy", "Spies.", timeout_s=3.0, effect="write")
        assert (made.name, made.description, made.timeout_s, made.effect) == ("spy", "Spies.", 3.0, "write")
        with pytest.raises(ToolError, match="no option"):
            Agent(ScriptedModel([])).as_tool(colour="red")

    def test_an_agent_started_in_a_tool_of_any_kind_is_a_child_too(self) -> None:
        inner = Agent(ScriptedModel(["in a thread", "on the loop"]))

        @tool(effect="read")
        def blocking(context: ToolContext) -> str:
            """Delegate."""
            return inner.run_sync("x").text

        @tool(effect="read")
        async def waiting() -> str:
            """Delegate."""
            return (await inner.run("x")).text

        run = Agent(ScriptedModel([call("blocking"), call("waiting"), "Done."]), tools=[blocking, waiting]).run_sync(
            "go"
        )
        assert [c.content for c in run.tool_calls] == ["in a thread", "on the loop"]
        assert (runs_df()["parent_run_id"] == run.id).sum() == 2


class TestBudget:
    def test_the_tree_shares_one_and_stops_when_it_is_spent(self) -> None:
        inner = Agent(ScriptedModel(lambda r: call("weather", city="x")), name="clerk", tools=[weather], max_steps=50)
        run = over(inner, budget={"steps": 6}).run_sync("go")
        assert run.status == "budget" and run.budget.spent.steps == 6
        assert run.tool_calls[0].status in ("error", "cancelled")
        assert "budget" in set(runs_df()["status"])

    def test_limits_of_the_inner_agent_narrow_only_itself(self) -> None:
        inner = Agent(
            ScriptedModel(lambda r: call("weather", city="x")), name="clerk", tools=[weather], budget={"steps": 2}
        )
        run = over(inner, budget={"steps": 20}).run_sync("go")
        assert (run.status, run.text, run.budget.spent.steps) == ("completed", "Done.", 4)
        assert "clerk ended as budget" in read(run)

    def test_the_same_shared_budget_inside_and_outside_is_one(self) -> None:
        budget = Budget(steps=10)
        inner = Agent(ScriptedModel(["Mailed."]), name="clerk", budget=budget)
        run = over(inner, budget=budget).run_sync("go")
        assert (run.status, read(run), budget.spent.steps) == ("completed", "Mailed.", 3)

    def test_an_account_of_its_own_would_escape_and_is_refused(self) -> None:
        inner = Agent(ScriptedModel(["Mailed."]), name="clerk", budget=Budget(steps=10))
        run = over(inner).run_sync("go")
        assert run.tool_calls[0].status == "error" and "give it limits (a mapping) instead" in read(run)

        plain = Agent(ScriptedModel(["Mailed."]))

        @tool(effect="read")
        async def escape() -> str:
            """Escape."""
            return (await plain.run("x", budget=Budget(steps=10))).text

        run = Agent(ScriptedModel([call("escape"), "Done."]), tools=[escape], budget={"steps": 5}).run_sync("go")
        assert run.tool_calls[0].status == "error"


class TestStopping:
    def test_it_is_cancelled_with_the_outer_run_and_both_are_in_the_history(self) -> None:
        model = Silent("thinking")
        run = over(Agent(model, name="clerk")).start("go")
        assert model.asked.wait(60)
        run.cancel("enough")
        run.result(60)
        assert model.closed.wait(60)
        assert run.tool_calls[0].status == "cancelled"
        assert list(runs_df()["status"]) == ["cancelled", "cancelled"]

    def test_while_it_asks(self, box: Mailbox) -> None:
        run = start(over(clerk(box, "ana")))
        run.cancel()
        run.result(60)
        until(lambda: list(runs_df()["status"]) == ["cancelled", "cancelled"])
        assert not box.sent and not run.requests

    def test_the_time_limit_of_the_tool_ends_it(self) -> None:
        model = Silent("x")
        run = over(Agent(model, name="clerk"), as_tool={"timeout_s": 30}).start("go")
        assert model.asked.wait(60)
        skip(31)
        run.result(60)
        assert run.tool_calls[0].status == "timeout" and model.closed.wait(60)


class TestAsking:
    def test_an_approval_is_shown_in_the_outer_run_and_answered_there(self, box: Mailbox) -> None:
        run = start(over(clerk(box, "ana")))
        (waiting,) = run.requests
        request = asked(waiting)
        assert (waiting.name, request.kind, request.name) == ("clerk", "approval", "mail")
        assert request.arguments == {"to": "ana", "body": "hello"} and request.description == "Send a mail."
        run.approve()
        run.result(60)
        assert box.sent == [("ana", "hello")] and read(run) == "Mailed."
        assert asked(run.tool_calls[0]).answer == "approve" and asked(run.tool_calls[0]).by == "person"

    def test_one_after_the_other_each_as_soon_as_it_is_asked(self, box: Mailbox) -> None:
        run = start(over(clerk(box, "ana", "bo", "cy")))
        for name in ("ana", "bo", "cy"):
            until(lambda name=name: run.requests and asked(run.requests[0]).arguments["to"] == name)  # type: ignore[misc, index]
            run.approve()
        run.result(60)
        assert [to for to, _ in box.sent] == ["ana", "bo", "cy"] and run.tool_calls[0].requests == 3

    def test_several_of_one_step_are_answered_one_by_one(self, box: Mailbox) -> None:
        inner = Agent(
            ScriptedModel([[call("mail", to=name) for name in ("ana", "bo", "cy")], "Mailed."]), name="clerk",
            tools=[box.tool()],
        )  # fmt: skip
        run = start(over(inner))
        for number in range(3):
            until(lambda number=number: run.requests and run.tool_calls[0].requests == number + 1)  # type: ignore[misc]
            run.approve() if number != 1 else run.deny("not him")
        run.result(60)
        assert [to for to, _ in box.sent] == ["ana", "cy"]

    def test_whoever_answers_all_that_is_open_never_meets_a_request_that_is_not(self, box: Mailbox) -> None:
        calls = [call("mail", to=str(number)) for number in range(5)]
        inner = Agent(ScriptedModel([calls, "Mailed."]), name="clerk", tools=[box.tool()])
        run = start(over(inner))
        deadline = time.monotonic() + 60
        while not run.is_done and time.monotonic() < deadline:
            if run.requests:
                run.approve()
        assert run.status == "completed" and [to for to, _ in box.sent] == list("01234")

    def test_two_agents_ask_at_once_on_one_card(self, box: Mailbox) -> None:
        calls = [call("clerk", task="a"), call("aide", task="b")]
        aide = Agent(ScriptedModel([call("mail", to="bo"), "Also mailed."]), name="aide", tools=[box.tool()])
        run = Agent(ScriptedModel([calls, "Done."]), tools=[clerk(box, "ana").as_tool(), aide.as_tool()]).start(
            "go", is_attended=True
        )
        until(lambda: len(run.requests) == 2)
        for waiting in reversed(run.requests):
            run.approve(waiting)
        run.result(60)
        assert sorted(to for to, _ in box.sent) == ["ana", "bo"]
        assert [c.content for c in run.tool_calls] == ["Mailed.", "Also mailed."]

    def test_edited_arguments_are_validated_by_the_inner_tool(self, box: Mailbox) -> None:
        run = start(over(clerk(box, "ana")))
        with pytest.raises(AnswerRefused, match="Field required"):
            run.approve(arguments={"body": "x"})
        with pytest.raises(AnswerRefused, match="other arguments"):
            run.answer(asked(run.requests[0]).request_id, "approve", digest="0" * 64).result(60)
        run.approve(arguments={"to": "bo"})
        run.result(60)
        assert box.sent == [("bo", "hello")]

    def test_a_denial_reaches_the_inner_model(self, box: Mailbox) -> None:
        agent = clerk(box, "ana")
        run = start(over(agent))
        run.deny("not today")
        run.result(60)
        inner_model: Any = agent.model
        assert "denied by the user: not today" in str(inner_model.requests[1].messages) and not box.sent
        assert run.tool_calls[0].status == "ok"

    def test_a_second_answer_is_refused(self, box: Mailbox) -> None:
        run = start(over(clerk(box, "ana")))
        request = asked(run.requests[0])
        answers = [run.answer(request.request_id, "approve", digest=request.digest) for _ in range(3)]
        assert [answer.exception(60) is None for answer in answers] == [True, False, False]
        run.result(60)
        assert len(box.sent) == 1

    def test_its_questions_too(self) -> None:
        @tool(effect="read")
        async def choose(context: ToolContext) -> str:
            """Choose."""
            return f"chose {await context.ask('Which?', ['a', 'b'])}"

        inner = Agent(ScriptedModel([call("choose"), call("choose"), "Chosen."]), name="clerk", tools=[choose])
        run = start(over(inner))
        request = asked(run.requests[0])
        assert (request.kind, request.question, [o.label for o in request.options]) == (
            "question",
            "Which?",
            ["a", "b"],
        )
        with pytest.raises(AnswerRefused, match="none of the answers"):
            run.reply("z")
        run.reply("b")
        run.result(60)
        inner_model: Any = inner.model
        assert str(inner_model.requests[-1].messages).count("chose b") == 2, "it is not asked twice"
        assert list(run.session.answers.values()) == ["b"], "nor by the next one in this session"

    @pytest.mark.parametrize("scope", ["session", "always"])
    def test_a_question_has_no_scope_and_is_answered_all_the_same(self, scope: Any) -> None:
        @tool(effect="read")
        async def choose(context: ToolContext) -> str:
            """Choose."""
            return f"chose {await context.ask('Which?', ['a', 'b'])}"

        run = start(over(Agent(ScriptedModel([call("choose"), "Chosen."]), name="clerk", tools=[choose])))
        request = asked(run.requests[0])
        run.answer(request.request_id, "result", digest=request.digest, result="b", scope=scope).result(60)
        assert run.result(60).status == "completed" and not run.session.rules

    def test_from_three_deep(self, box: Mailbox) -> None:
        middle = Agent(
            ScriptedModel([call("clerk", task="x"), "Passed on."]), name="middle",
            tools=[clerk(box, "ana", "bo").as_tool()],
        )  # fmt: skip
        run = start(over(middle, calls=[call("middle", task="x")]))
        assert asked(run.requests[0]).name == "mail"
        run.approve(arguments={"to": "cy"})
        until(lambda: run.requests and asked(run.requests[0]).arguments == {"to": "bo", "body": "hello"})
        run.deny()
        run.result(60)
        assert box.sent == [("cy", "hello")] and read(run) == "Passed on."

    def test_its_time_limit_for_requests_holds(self, box: Mailbox) -> None:
        run = over(clerk(box, "ana", request_timeout_s=0.2)).start("go", is_attended=True).result(60)
        assert not box.sent and asked(run.tool_calls[0]).by == "time limit" and run.text == "Done."

    def test_the_time_limit_of_the_tool_does_not_count_the_waiting(self, box: Mailbox) -> None:
        run = start(over(clerk(box, "ana"), as_tool={"timeout_s": 30}))
        skip(31)
        run.approve()
        run.result(60)
        assert run.tool_calls[0].status == "ok" and len(box.sent) == 1

    def test_a_new_message_in_the_outer_run_takes_the_request_back(self, box: Mailbox) -> None:
        agent = clerk(box, "ana")
        outer = over(agent, then=("As you say.",))
        run = start(outer)
        run.steer("Stop that.")
        run.result(60)
        assert run.text == "As you say." and not box.sent
        outer_model: Any = outer.model
        assert outer_model.requests[1].messages[-1].text == "Stop that."
        assert asked(run.tool_calls[0]).by == "steering"

    def test_where_nobody_attends_nothing_waits(self, box: Mailbox) -> None:
        run = over(clerk(box, "ana")).start("go").result(60)
        assert run.status == "completed" and not box.sent and run.tool_calls[0].requests == 0

    def test_what_is_remembered_for_the_session_holds_for_the_next_task(self) -> None:
        box = Mailbox()
        inner = Agent(
            ScriptedModel([call("mail", to="ana"), "Mailed.", call("mail", to="bo"), "Mailed."]), name="clerk",
            tools=[box.tool(trusted=True)],
        )  # fmt: skip
        outer = Agent(
            ScriptedModel([call("clerk", task="x"), call("clerk", task="y"), "Done."]),
            tools=[inner.as_tool(trusted=True)],
        )
        run = start(outer)
        run.approve(scope="session")
        run.result(60)
        assert [to for to, _ in box.sent] == ["ana", "bo"] and run.tool_calls[1].requests == 0
        assert [str(rule) for rule in run.session.rules] == ["allow mail"] and rulebook().rules() == ()

    def test_a_run_that_a_tool_has_left_behind_asks_nobody(self, box: Mailbox) -> None:
        agent = clerk(box, "ana")
        left: list[Run] = []

        @tool(effect="read")
        async def begin() -> str:
            """Begin, and do not wait."""
            left.append(agent.start("x"))
            return "begun"

        @tool(effect="read")
        async def wait() -> str:
            """Wait for it."""
            await asyncio.wait_for(left[0], 60)
            return "waited"

        run = Agent(ScriptedModel([call("begin"), call("wait"), "Done."]), tools=[begin, wait]).start(
            "go", is_attended=True
        )
        run.result(60)
        assert run.text == "Done." and not box.sent and left[0].tool_calls[0].status == "denied"
        assert "the call is not running" in (left[0].tool_calls[0].content or "")


class TestNarrower:
    """What a run may not do, the runs inside it may not do either."""

    @pytest.mark.parametrize("mode", ["plan", "never"])
    def test_the_outer_mode_holds_inside(self, box: Mailbox, mode: Any) -> None:
        run = over(clerk(box, "ana", mode="auto"), mode=mode, rules=[Rule("clerk", "allow")]).run_sync("go")
        assert run.status == "completed" and not box.sent
        denied = calls_df().set_index("name").loc["mail"]
        assert denied["status"] == "denied" and "of the run around this one" in denied["judged_by"]

    def test_what_a_rule_of_the_outer_agent_denies_is_denied_inside(self, box: Mailbox) -> None:
        inner = clerk(box, "rival", "ana", mode="auto", rules=[Rule("mail", "allow")])
        rules = [Rule("mail", "deny", {"to": "rival"}, "no mail to rivals")]
        over(over_inner(inner), calls=[call("boss", task="x")], mode="auto", rules=rules).run_sync("go")
        assert box.sent == [("ana", "hello")]

    def test_edited_arguments_are_held_to_it_too(self, box: Mailbox) -> None:
        run = start(over(clerk(box, "ana"), rules=[Rule("mail", "deny", {"to": "rival"}, "no mail to rivals")]))
        with pytest.raises(AnswerRefused, match="no mail to rivals"):
            run.approve(arguments={"to": "rival"})
        run.approve(arguments={"to": "bo"})
        run.result(60)
        assert box.sent == [("bo", "hello")]

    def test_it_cannot_be_retried(self) -> None:
        with pytest.raises(ToolError, match="retries is 2"):
            Agent(ScriptedModel([]), name="clerk").as_tool(retries=2)

    def test_the_writes_of_runs_inside_one_another_take_turns(self) -> None:
        gauge = Gauge()

        @tool
        async def save(name: str) -> str:
            """Save."""
            return await gauge.visit(name, 0.05)

        def inner(name: str) -> Agent:
            return Agent(ScriptedModel([call("save", name=name), "Saved."]), name=name, tools=[save], mode="auto")

        step = [call("a", task="x"), call("b", task="x"), call("save", name="c")]
        tools = [inner("a").as_tool(), inner("b").as_tool(), save]
        run = Agent(ScriptedModel([step, "Done."]), tools=tools, mode="auto").start("go").result(60)
        assert [c.status for c in run.tool_calls] == ["ok"] * 3
        assert gauge.most == 1 and len(gauge.log) == 6

    def test_a_write_that_starts_a_run_which_writes_does_not_wait_for_itself(self, box: Mailbox) -> None:
        agent = over(clerk(box, "ana", mode="auto"), mode="auto", as_tool={"effect": "write"})
        agent.start("go").result(60)
        assert box.sent == [("ana", "hello")]


def over_inner(inner: Agent) -> Agent:
    return Agent(ScriptedModel([call("clerk", task="x"), "Done."]), name="boss", tools=[inner.as_tool()], mode="auto")


def test_a_notice_of_a_tool_inside_stands_before_the_persons_next_message() -> None:
    @tool(effect="read")
    def look(context: ToolContext) -> str:
        """Look."""
        context.notice("the disk is nearly full")
        return "seen"

    inner = Agent(ScriptedModel([call("look"), "Seen."]), name="clerk", tools=[look])
    assert over(over_inner(inner), calls=[call("boss", task="x")]).run_sync("go").state.notices == (
        "the disk is nearly full",
    )


def test_an_agent_that_asks_itself_comes_to_an_end() -> None:
    @tool(effect="read")
    async def ask_myself() -> str:
        """Ask myself."""
        return (await agent.run("go")).text

    def deeper(request: Any) -> Any:
        results = [part for message in request.messages for part in message.parts if part.type == "tool_result"]
        return results[-1].content if results else call("ask_myself")

    agent = Agent(ScriptedModel(deeper), tools=[ask_myself])
    run = agent.run_sync("go")
    assert "would be the 18th inside one another; 17 is the most" in run.text
