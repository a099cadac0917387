"""Failures of providers: tried again, handed to the next model, or told; never hidden, never for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, Silent, ends, skip, told, until, written
from turncell import Agent, Hooks, ModelFailure, Route, Router, Session, Tiers, UsageError, model, steps_df, tool
from turncell.adapters.scripted_model import Call, ScriptedModel, call, say, stop, think
from turncell.core import streaming
from turncell.core.deltas import CallFragment, Finished, Fragment
from turncell.core.events import ModelChosen
from turncell.core.parts import Usage
from turncell.runtime import driver
from turncell.runtime.ports import ModelRequest
from turncell.testing import fault, reply, serve

SILENCE_S = 0.4
"""As long as the clock may stand still at most, so that a machine that does takes no model for a silent one."""


@pytest.fixture(autouse=True)
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "STOPPED_S", SILENCE_S)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between attempts, shorter than people's patience."""
    monkeypatch.setattr(streaming, "BACKOFF_S", 0.005)


@tool(effect="read")
def peek(at: str = "clock") -> str:
    """Look quickly."""
    return f"the {at}"


def retries(run: Any) -> list[str]:
    return [note.message for note in run.state.notes if note.kind == "retry"]


@pytest.mark.feature("A13")
class TestTryingAgain:
    @pytest.mark.parametrize("kind", ["rate_limit", "overloaded", "connection", "timeout", "protocol"])
    def test_what_may_pass_is_tried_again_and_noted(self, kind: Any) -> None:
        model = ScriptedModel([ModelFailure(kind, "busy"), ModelFailure(kind, "busy"), "Fine."])
        run = Agent(model).run_sync("go")
        assert (run.status, run.text, len(run.state.steps)) == ("completed", "Fine.", 1)
        assert len(retries(run)) == 2 and f"{kind}: busy" in retries(run)[0]
        assert told(model, 2) == ["go"], "nobody was told twice"

    def test_after_so_many_attempts_the_run_has_failed_with_the_last_word_of_the_provider(self) -> None:
        model = ScriptedModel([ModelFailure("overloaded", f"no {n}") for n in range(9)])
        run = Agent(model, attempts=3).run_sync("go")
        assert (run.status, run.state.error_kind, run.state.error) == ("failed", "overloaded", "no 2")
        assert len(model.requests) == 3 and len(ends(run)) == 1

    @pytest.mark.parametrize("kind", ["auth", "bad_request", "context_length", "filter", "not_found", "unknown"])
    def test_what_does_not_pass_is_not_tried_again(self, kind: Any) -> None:
        model = ScriptedModel([ModelFailure(kind, "no"), "never"])
        assert Agent(model).run_sync("go").status == "failed" and len(model.requests) == 1

    def test_the_provider_says_how_long_to_wait(self) -> None:
        at: list[float] = []

        def answer(request: ModelRequest) -> Any:
            at.append(time.monotonic())
            return ModelFailure("rate_limit", "slow down", retry_after_s=0.3) if len(at) == 1 else "Fine."

        run = Agent(ScriptedModel(answer)).run_sync("go")
        assert run.text == "Fine." and at[1] - at[0] >= 0.3 and "trying again in 0.3 s" in retries(run)[0]

    def test_a_wait_of_hours_is_given_up_for_the_next_model_or_for_good(self) -> None:
        def busy() -> ScriptedModel:
            return ScriptedModel([ModelFailure("rate_limit", "tomorrow", retry_after_s=3600)], "busy")

        said = "tomorrow; it asks for a pause of 3,600 s, and a run waits 60 s at most"
        assert Agent(busy()).run_sync("go").state.error == said
        run = Agent(busy(), fallbacks=[ScriptedModel(["Fine."])]).run_sync("go")
        assert run.text == "Fine." and retries(run) == [f"rate_limit: {said}; trying the next model"]

    @pytest.mark.parametrize("begun", [say("half"), think("hm"), Call("peek", '{"at')])
    def test_never_after_something_of_the_answer_was_seen(self, begun: Any) -> None:
        model = ScriptedModel([[begun, ModelFailure("connection", "reset")], "never"])
        run = Agent(model, tools=[peek], fallbacks=[ScriptedModel(["never"])]).run_sync("go")
        assert (run.status, run.state.error_kind) == ("failed", "connection") and len(model.requests) == 1
        assert not run.tool_calls or run.tool_calls[0].status != "ok"

    def test_cancelled_during_the_pause(self) -> None:
        model = ScriptedModel([ModelFailure("rate_limit", "later", retry_after_s=50), "never"])
        run = Agent(model).start("go")
        until(lambda: retries(run))
        run.cancel("enough")
        assert run.result(LONG_S).status == "cancelled" and len(model.requests) == 1

    def test_a_model_that_says_nothing_is_closed_and_the_next_one_asked(self) -> None:
        silent = Silent()
        run = Agent(silent, fallbacks=[ScriptedModel(["Fine."], "spare")], silence_s=SILENCE_S, attempts=1).start("go")
        assert run.result(LONG_S).text == "Fine." and silent.closed.is_set()

    def test_a_model_that_falls_silent_in_the_middle_is_a_failure_that_keeps_the_text(self) -> None:
        run = Agent(Silent("half a w"), silence_s=SILENCE_S).start("go").result(LONG_S)
        assert (run.status, run.state.error_kind, run.text) == ("failed", "timeout", "half a w")

    def test_a_silent_model_that_will_not_be_closed_is_not_heard_any_more(self) -> None:
        import asyncio

        class Stubborn:
            name = "stubborn"

            async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
                try:
                    await asyncio.sleep(LONG_S)
                except asyncio.CancelledError:
                    while not asked.is_set():  # noqa: ASYNC110
                        await asyncio.sleep(0.002)
                try:
                    yield ["late ", Finished("stop")]
                finally:
                    spoken.set()

        asked, spoken = threading.Event(), threading.Event()

        async def answer(request: ModelRequest) -> Any:
            asked.set()
            while not spoken.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            return "Fine."

        spare = ScriptedModel([answer])
        run = Agent(Stubborn(), fallbacks=[spare], silence_s=SILENCE_S, attempts=1).start("go")
        assert spoken.wait(LONG_S)
        assert run.result(LONG_S).text == "Fine." and run.status == "completed"

    def test_the_model_after_a_silent_one_is_watched_for_silence_too(self) -> None:
        run = Agent(Silent(), fallbacks=[Silent()], silence_s=SILENCE_S, attempts=1).start("go").result(LONG_S)
        assert (run.status, run.state.error_kind) == ("failed", "timeout") and "0.4 s" in (run.state.error or "")


@pytest.mark.feature("A13", "G3")
class TestWhatAModelRaises:
    """Models are other people's, and what they raise is recorded."""

    def test_the_exception_that_was_caught_may_be_the_message(self) -> None:
        run = Agent(ScriptedModel([ModelFailure("connection", OSError("no route"))]), attempts=1).run_sync("go")
        assert (run.status, run.error) == ("failed", "OSError: no route")
        run.session.close()
        again = Session.load(run.session.id)
        assert again.damage is None and [one.status for one in again.runs] == ["failed"]

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (("overload", "busy"), "the kind of a ModelFailure is 'overload'; use one of auth, "),
            ((429, "busy"), "the kind of a ModelFailure is 429"),
        ],
    )
    def test_a_kind_that_there_is_not_is_told(self, given: Any, told: str) -> None:
        with pytest.raises(UsageError, match=told):
            ModelFailure(*given)
        with pytest.raises(UsageError, match="retry_after_s is '1'; use a number"):
            ModelFailure("overloaded", "busy", retry_after_s="1")  # type: ignore[arg-type]

    def test_it_fails_the_run_with_these_words_and_can_be_read_again(self) -> None:
        def misspelt(request: Any) -> Any:
            raise ModelFailure("overload", "busy")  # type: ignore[arg-type]

        run = Agent(ScriptedModel(misspelt)).run_sync("go")
        assert run.status == "failed" and "the kind of a ModelFailure is 'overload'" in str(run.error)
        run.session.close()
        assert Session.load(run.session.id).damage is None


@pytest.mark.feature("A13", "A17")
class TestFallbacks:
    def test_they_are_tried_in_their_order(self) -> None:
        models = [ScriptedModel([ModelFailure("auth", "no key")], name) for name in "abc"]
        run = Agent(models[0], fallbacks=[*models[1:], ScriptedModel(["Fine."], "d")]).run_sync("go")
        assert run.text == "Fine." and [len(model.requests) for model in models] == [1, 1, 1]
        chosen = [event.model for event in run.events if isinstance(event, ModelChosen)]
        assert chosen == ["b", "c", "d"] and run.state.steps[0].model == "d"

    def test_one_that_has_answered_is_kept_for_the_steps_after(self) -> None:
        first = ScriptedModel([ModelFailure("auth", "no key")], "first")
        spare = ScriptedModel([call("peek"), "Fine."], "spare")
        run = Agent(first, fallbacks=[spare], tools=[peek]).run_sync("go")
        assert len(first.requests) == 1 and [step.model for step in run.state.steps] == ["spare", "spare"]
        assert list(steps_df()["model"]) == ["spare", "spare"]

    def test_the_next_run_begins_with_the_first_again(self) -> None:
        first = ScriptedModel([ModelFailure("auth", "no key"), "Back."], "first")
        agent = Agent(first, fallbacks=[ScriptedModel(["Fine."], "spare")])
        assert [agent.run_sync("go").text for _ in range(2)] == ["Fine.", "Back."]

    def test_one_that_cannot_be_built_is_passed_over(self) -> None:
        agent = Agent(
            ScriptedModel([ModelFailure("auth", "no")], "a"), fallbacks=[lambda: 1 / 0, ScriptedModel(["Fine."])]
        )
        assert agent.run_sync("go").text == "Fine."

    def test_all_failed_is_failed_with_the_last(self) -> None:
        models = [ScriptedModel([ModelFailure("auth", f"no key of {name}")], name) for name in "ab"]
        run = Agent(models[0], fallbacks=models[1:]).run_sync("go")
        assert (run.status, run.state.error) == ("failed", "no key of b") and len(ends(run)) == 1


@pytest.mark.feature("A17")
class TestTiers:
    def test_the_router_picks_one_for_each_step_and_the_events_say_which(self) -> None:
        small, frontier = ScriptedModel(["Summed up."], "small"), ScriptedModel([call("peek")], "large")
        router = Router([Route("small", lambda step: "peek" in step.last_tools, "after a look")], default="frontier")
        run = Agent(Tiers(small=small, frontier=frontier), router=router, tools=[peek]).run_sync("go")
        assert run.text == "Summed up."
        assert [(step.model, step.tier) for step in run.state.steps] == [("large", "frontier"), ("small", "small")]
        reasons = [event.reason for event in run.events if isinstance(event, ModelChosen)]
        assert reasons == ["no route matched", "after a look"]

    def test_a_model_that_has_failed_is_not_tried_again_when_another_tier_is_picked(self) -> None:
        small = ScriptedModel([call("peek"), "Small again."], "small")
        frontier = ScriptedModel([ModelFailure("auth", "no key"), "never"], "large")
        router = Router([Route("small", lambda step: step.step > 1)], default="frontier")
        run = Agent(Tiers(small=small, frontier=frontier), router=router, tools=[peek]).run_sync("go")
        assert (run.status, run.text) == ("completed", "Small again.") and len(frontier.requests) == 1

    def test_the_other_tiers_stand_in_and_then_the_fallbacks(self) -> None:
        bad = [ScriptedModel([ModelFailure("auth", "no")], name) for name in ("small", "mid", "frontier")]
        agent = Agent(Tiers(*bad), fallbacks=[ScriptedModel(["Fine."], "spare")])
        run = agent.run_sync("go")
        assert [e.model for e in run.events if isinstance(e, ModelChosen)] == ["mid", "frontier", "small", "spare"]

    def test_a_tier_is_built_when_it_is_needed_and_once(self) -> None:
        built: list[str] = []

        def build(name: str, *script: Any) -> Any:
            def make() -> ScriptedModel:
                built.append(name)
                return ScriptedModel([*script], name)

            return make

        tiers = Tiers(small=build("small", "never"), mid=build("mid", "one", "two"))
        agent = Agent(tiers)
        assert not built
        assert [agent.run_sync("go").text for _ in range(2)] == ["one", "two"] and built == ["mid"]

    def test_a_tier_that_cannot_be_built_is_a_failed_run_and_not_a_lost_one(self) -> None:
        def no_key() -> Any:
            raise KeyError("API_KEY")

        run = Agent(Tiers(mid=no_key)).start("go").result(LONG_S)
        assert (run.status, run.state.error_kind) == ("failed", "not_found") and "API_KEY" in (run.state.error or "")
        assert written(run) == (run.state,)

    def test_one_that_takes_long_to_build_keeps_no_other_run_waiting(self) -> None:
        release, building = threading.Event(), threading.Event()

        def slow() -> ScriptedModel:
            building.set()
            release.wait(LONG_S)
            return ScriptedModel(["slow"])

        run = Agent(Tiers(mid=slow)).start("go")
        assert building.wait(LONG_S)
        assert Agent(ScriptedModel(["quick"])).start("go").result(LONG_S).text == "quick"
        release.set()
        assert run.result(LONG_S).text == "slow"

    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TURNCELL_SMALL_MODEL", "embedded")
        run = Agent(Tiers.from_environment()).run_sync("Hello")
        assert run.state.steps[0].tier == "small" and run.state.steps[0].model == "embedded"

    def test_no_tier_at_all_says_which_variables_are_missing(self) -> None:
        with pytest.raises(UsageError, match="TURNCELL_SMALL_MODEL"):
            Agent(Tiers.from_environment({}))


@pytest.mark.feature("A12", "A13")
class TestHowItEnds:
    @pytest.mark.parametrize(
        ("entry", "status", "kind", "text"),
        [
            ("Fine.", "completed", None, "Fine."),
            ("", "failed", "empty_reply", ""),
            ("  \n", "failed", "empty_reply", "  \n"),
            ([think("hm")], "failed", "empty_reply", ""),
            (["half", stop("length")], "truncated", "length", "half"),
            ([stop("length")], "truncated", "length", ""),
            (["half", stop(None)], "failed", "protocol", "half"),
            (["half", stop("filter")], "failed", "filter", "half"),
            (["half", ModelFailure("overloaded", "x")], "failed", "overloaded", "half"),
            (["half", ValueError("x")], "failed", "unknown", "half"),
            (["whole", stop("other")], "completed", None, "whole"),
        ],
    )
    def test_each_has_one_status_one_end_and_keeps_its_text(
        self, entry: Any, status: str, kind: str | None, text: str
    ) -> None:
        model = ScriptedModel([entry, "never"])
        run = Agent(model).run_sync("go")
        assert (run.status, run.state.error_kind, run.text) == (status, kind, text)
        assert len(ends(run)) == 1 and len(model.requests) == 1 and written(run) == (run.state,)

    @pytest.mark.parametrize("kind", ["coroutine", "generator", "list"])
    def test_a_model_of_ones_own_whose_stream_is_none_says_what_to_write(
        self, kind: str, recwarn: pytest.WarningsRecorder
    ) -> None:
        async def coroutine() -> list[Any]:
            return []

        class Mine:
            name = "mine"

            def stream(self, request: ModelRequest) -> Any:
                return {"coroutine": coroutine, "generator": lambda: (one for one in ()), "list": list}[kind]()

        run = Agent(Mine()).run_sync("go")
        said = f"Mine.stream(request) returned a {kind}; make it an async generator: 'async def', with 'yield' in it"
        assert (run.status, run.error) == ("failed", said)
        assert not [one for one in recwarn if "of_ones_own" in str(one.message)], "no coroutine was forgotten"

    def test_a_stream_without_a_word_or_an_end_is_tried_again(self) -> None:
        assert Agent(ScriptedModel([stop(None), "Fine."])).run_sync("go").text == "Fine."

    @pytest.mark.parametrize("cut", ["", " ", '{"at": "clo', "{"])
    def test_a_call_that_was_cut_off_does_not_run(self, cut: str) -> None:
        model = ScriptedModel([[Call("peek", cut), stop("length")], "I see."])
        run = Agent(model, tools=[peek]).run_sync("go")
        assert run.tool_calls[0].status == "invalid" and run.text == "I see."

    def test_what_a_failed_run_has_used_is_recorded(self) -> None:
        model = ScriptedModel([call("peek"), ["half", ModelFailure("connection", "gone")]], price=(1.0, 1.0))
        run = Agent(model, tools=[peek]).run_sync("go")
        assert run.status == "failed" and run.state.steps[0].usage.output_tokens and run.usage.input_tokens
        message = run.state.steps[1].message
        assert message is not None and message.is_partial and message.text == "half"


class Priced(Silent):
    def price_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return (input_tokens + 2 * output_tokens) / 1e6


@pytest.mark.feature("A15")
class TestTokensThatNobodyCounted:
    def test_are_estimated_and_marked_where_the_provider_says_nothing(self) -> None:
        with serve([reply("A fine day, and a long one.", has_usage=False)]) as server:
            run = Agent(model("openai/m", base_url=server.base_url), instructions="Be brief.").run_sync("How is it?")
        usage = run.state.steps[0].usage
        assert usage.is_estimated and (usage.input_tokens or 0) > 3 and (usage.output_tokens or 0) > 3
        assert run.usage.is_estimated and run.cost_usd is None

    def test_are_those_of_a_call_that_broke_off_and_not_of_one_that_was_refused(self) -> None:
        with serve([reply("12345678 and more", resets_after=3), fault(400, "no")]) as server:
            one, other = (
                Agent(model("openai/m", base_url=server.base_url), attempts=1).run_sync("How is it?") for _ in range(2)
            )
        assert one.status == other.status == "failed"
        assert one.usage.is_estimated and one.usage.output_tokens and one.usage.input_tokens
        assert other.usage.input_tokens is None and not other.usage.is_estimated

    @pytest.mark.parametrize("how", ["cancel", "time limit", "silence"])
    def test_are_those_of_a_call_that_was_broken_off_and_what_they_cost(self, how: str) -> None:
        limits: dict[str, Any] = {"time limit": {"timeout_s": 30}, "silence": {"silence_s": SILENCE_S}}.get(how, {})
        run = Agent(Priced("12345678 and more"), attempts=1, instructions="Be brief.", **limits).start("How is it?")
        until(lambda: run.text.startswith("12345678"))
        if how == "cancel":
            run.cancel()
        elif how == "time limit":
            skip(30)
        run.result(LONG_S)
        usage = run.state.steps[0].usage
        assert usage.is_estimated and (usage.input_tokens or 0) > 3 and usage.output_tokens == 5
        assert run.cost_usd == pytest.approx(((usage.input_tokens or 0) + 2 * 5) / 1e6)
        assert Session.load(run.session.id).runs[0].cost_usd == run.cost_usd

    def test_are_none_of_a_call_that_was_never_made(self) -> None:
        gate = Gate()

        def hold(request: ModelRequest) -> ModelRequest:
            gate.wait()
            return request

        run = Agent(Priced(), hooks=Hooks(before_model=hold)).start("How is it?")
        gate.was_reached()
        run.cancel()
        gate.open()
        assert run.result(LONG_S).usage == Usage() and run.cost_usd is None

    def test_what_the_provider_had_said_before_it_failed_counts(self) -> None:
        script = [reply("12345678 and more", errors_after=5, usage=Usage(1234, 5))]
        with serve(script) as server:
            run = Agent(model("anthropic/m", base_url=server.base_url, api_key="k"), attempts=1).run_sync("go")
        assert run.status == "failed" and run.usage.input_tokens == 1234


class Odd:
    """A model that yields what it is given."""

    name = "odd"

    def __init__(self, *bursts: Any) -> None:
        self.bursts = bursts

    async def stream(self, request: ModelRequest) -> AsyncIterator[Any]:
        for burst in self.bursts:
            yield burst


@pytest.mark.feature("A2")
class TestOddModels:
    @pytest.mark.parametrize(
        "burst",
        [
            "plain text", {"text": "x"}, [7], [CallFragment(0, "a", "f", {"x": 1})],  # type: ignore[arg-type]
            ["x", Finished("stop", cost_usd=float("nan"))], [Finished("stop", Usage(1.5, 2))],  # type: ignore[arg-type]
            [Finished("stop", Usage(output_tokens=-1))], [Finished("done")], [CallFragment("0", "a", "f")],  # type: ignore[arg-type]
        ],
    )  # fmt: skip
    def test_what_is_no_fragment_fails_as_protocol_and_says_what_was_found(self, burst: Any) -> None:
        run = Agent(Odd(burst, [Finished("stop")]), attempts=1).run_sync("go")
        assert (run.status, run.state.error_kind) == ("failed", "protocol")
        found = repr(burst[-1]) if isinstance(burst, list) else repr(burst)
        assert "odd" in (run.state.error or "") and found in (run.state.error or "")

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_the_models_own_list_is_left_as_it_is_and_a_tuple_does_too(self, kind: Any) -> None:
        burst = kind(["Hello.", Finished("stop")])
        assert Agent(Odd(burst)).run_sync("go").text == "Hello." and len(burst) == 2
