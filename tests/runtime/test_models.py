"""Tiers, routers and the order in which models are tried."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate
from turncell import Agent, Route, Router, Tiers, UsageError
from turncell.adapters.scripted_model import ScriptedModel
from turncell.errors import UnknownModelError
from turncell.runtime.models import ModelSet, StepInfo

pytestmark = pytest.mark.feature("A17")

SMALL, MID, FRONTIER, SPARE = (ScriptedModel([], name) for name in ("small", "mid", "frontier", "spare"))
ALL = Tiers(SMALL, MID, FRONTIER)


def names(models: ModelSet, step: StepInfo | None = None) -> list[str]:
    """The models in the order in which they are tried."""
    return [models.pick(step or StepInfo(), attempt).model.name for attempt in range(models.count)]


@pytest.mark.parametrize("wrong", [5, None, ["openai/gpt-5"]])
def test_a_fallback_that_is_no_model_is_told_before_it_is_needed(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"fallback 1 is .*; use a name, a Model, or a function"):
        Agent(SMALL, fallbacks=[wrong])
    with pytest.raises(UsageError, match="tier 'small' is 42"):
        ModelSet(Tiers(small=42))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a router is made of Routes, in a list; found Route"):
        Router(Route("small", lambda step: True))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="summarises is 'no'; use one of True, False"):
        Agent(SMALL, summarises="no")  # type: ignore[arg-type]


def test_a_route_that_blocks_holds_up_no_other_run() -> None:
    gate = Gate()

    def when(step: StepInfo) -> bool:
        gate.wait()
        return True

    slow = Agent(Tiers(small=ScriptedModel(["slow"])), router=Router([Route("small", when)])).start("go")
    gate.was_reached()
    assert Agent(ScriptedModel(["one"])).start("go").result(LONG_S).text == "one" and not slow.is_done
    gate.open()
    assert slow.result(LONG_S).text == "slow"


class TestOneModel:
    def test_a_model_is_taken_as_it_is(self) -> None:
        picked = ModelSet(SPARE).pick(StepInfo())
        assert (picked.model, picked.tier, picked.reason) == (SPARE, None, "")

    def test_without_one_the_setting_counts(self) -> None:
        assert ModelSet().pick(StepInfo()).model.name == "embedded"

    def test_a_function_is_called_when_the_model_is_needed(self) -> None:
        made: list[ScriptedModel] = []

        def make() -> ScriptedModel:
            made.append(ScriptedModel([], "late"))
            return made[-1]

        models = ModelSet(make)
        assert made == []
        assert names(models) + names(models) == ["late", "late"] and len(made) == 1

    def test_the_only_one_is_chosen_as_one_of_many_would_be(self) -> None:
        models = ModelSet(ScriptedModel(["a"]))
        assert models.choose(StepInfo()) == models.choose(StepInfo(), given_up=("the model of another agent",))
        with pytest.raises(UsageError, match="there are 1 models"):
            models.choose(StepInfo(), 1)
        with pytest.raises(UsageError, match="there are 0 models"):
            models.choose(StepInfo(), given_up=("the model",))

    def test_fallbacks_come_in_their_order(self) -> None:
        models = ModelSet(MID, [SPARE, "embedded"])
        assert models.count == 3 and names(models) == ["mid", "spare", "embedded"]
        assert models.pick(StepInfo(), 1).reason == "fallback 1 of 2"

    def test_a_router_needs_tiers(self) -> None:
        with pytest.raises(UsageError, match="a router picks tiers, but the model is 'embedded'"):
            ModelSet("embedded", router=Router())


class TestTiers:
    @pytest.mark.parametrize(
        ("tier", "order"),
        [
            ("small", ["small", "mid", "frontier"]),
            ("mid", ["mid", "frontier", "small"]),
            ("frontier", ["frontier", "mid", "small"]),
        ],
    )
    def test_the_chosen_tier_comes_first_then_the_nearest_then_the_fallbacks(self, tier: Any, order: list[str]) -> None:
        assert names(ModelSet(ALL, [SPARE], Router(default=tier))) == [*order, "spare"]

    def test_a_model_is_tried_once_even_if_it_stands_in_several_places(self) -> None:
        models = ModelSet(Tiers("embedded", SPARE, SPARE), ["embedded", SPARE, MID], Router(default="frontier"))
        assert models.count == 3 and names(models) == ["spare", "embedded", "mid"]

    @pytest.mark.parametrize("default", ["small", "mid", "frontier"])
    def test_a_missing_tier_is_answered_by_the_nearest_and_the_reason_says_so(self, default: Any) -> None:
        picked = ModelSet(Tiers(mid=MID), router=Router(default=default)).pick(StepInfo())
        assert (picked.model, picked.tier) == (MID, "mid")
        assert picked.reason.endswith(f"{default} is not set, mid is the nearest") == (default != "mid")

    def test_they_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TURNCELL_SMALL_MODEL", "embedded")
        monkeypatch.setenv("TURNCELL_MID_MODEL", "")
        monkeypatch.setenv("TURNCELL_FRONTIER_MODEL", "openai/gpt-5")
        assert Tiers.from_environment() == Tiers("embedded", None, "openai/gpt-5")
        blank = {"TURNCELL_SMALL_MODEL": " ", "TURNCELL_MID_MODEL": "openai/gpt-5\n"}
        assert Tiers.from_environment(blank) == Tiers(mid="openai/gpt-5")

    def test_none_at_all_is_an_error_that_names_the_variables(self) -> None:
        with pytest.raises(UsageError, match="TURNCELL_SMALL_MODEL"):
            ModelSet(Tiers.from_environment({}))

    def test_an_attempt_beyond_the_last_model_is_an_error(self) -> None:
        for attempt in (3, -1):
            with pytest.raises(UsageError, match=f"attempt_model is {attempt}; there are 3 models"):
                ModelSet(ALL).pick(StepInfo(), attempt)


class TestTheRouter:
    def test_the_first_route_that_matches_picks_the_tier_of_a_step(self) -> None:
        router = Router(
            [
                Route("small", lambda step: step.is_summary, "summaries are easy"),
                Route("frontier", lambda step: step.failures > 0 or step.prompt_chars > 1000),
                Route("small", lambda step: step.last_tools == ("look",)),
            ]
        )
        models = ModelSet(ALL, router=router)

        def tier(**known: Any) -> tuple[str | None, str]:
            picked = models.pick(StepInfo(**known))
            return picked.tier, picked.reason

        assert tier(is_summary=True, failures=1) == ("small", "summaries are easy")
        assert tier(failures=1) == ("frontier", "route 2")
        assert tier(last_tools=("look",), tools_used=("look", "look")) == ("small", "route 3")
        assert tier() == ("mid", "no route matched")

    def test_a_route_that_raises_leads_to_the_default_and_says_why(self) -> None:
        router = Router(
            [Route("small", lambda step: step.step // 0 == 1), Route("small", lambda step: True)], default="frontier"
        )
        picked = ModelSet(ALL, router=router).pick(StepInfo())
        assert picked.tier == "frontier"
        assert picked.reason.startswith("route 1 (to small) failed with ZeroDivisionError")

    def test_what_cannot_route_is_refused_when_it_is_made(self) -> None:
        async def late(step: StepInfo) -> bool:
            return True

        wrong: Any = "huge"
        with pytest.raises(UsageError, match="tier is 'huge'"):
            Route(wrong, lambda step: True)
        with pytest.raises(UsageError, match="not async"):
            Route("small", late)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="default is 'huge'"):
            Router(default=wrong)


class TestBuilding:
    def test_a_tier_that_is_not_picked_is_not_built(self) -> None:
        def explode() -> ScriptedModel:
            raise AssertionError("nobody needs it")

        models = ModelSet(Tiers(small=explode, mid=MID))
        assert models.count == 2 and models.pick(StepInfo()).model is MID

    def test_many_threads_build_it_once(self) -> None:
        made: list[int] = []
        start = threading.Barrier(8)

        def make() -> ScriptedModel:
            made.append(threading.get_ident())
            threading.Event().wait(0.02)
            return ScriptedModel([])

        models = ModelSet(make)

        def pick() -> Any:
            start.wait()
            return models.pick(StepInfo()).model

        with ThreadPoolExecutor(8) as pool:
            picked = {id(future.result()) for future in [pool.submit(pick) for _ in range(8)]}
        assert len(picked) == 1 and len(made) == 1

    @pytest.mark.parametrize("source", ["two words", lambda: None, lambda: [].pop()])
    def test_one_that_cannot_be_built_names_its_tier_and_leaves_the_others(self, source: Any) -> None:
        models = ModelSet(Tiers(small=source, mid=MID), router=Router(default="small"))
        with pytest.raises(UnknownModelError, match="tier 'small'"):
            models.pick(StepInfo())
        assert models.pick(StepInfo(), 1).model is MID

    def test_what_failed_is_tried_again(self) -> None:
        keys: list[str] = []

        def make() -> ScriptedModel:
            return ScriptedModel([], keys[0])

        models = ModelSet(make)
        with pytest.raises(UnknownModelError, match="IndexError"):
            models.pick(StepInfo())
        keys.append("found")
        assert models.pick(StepInfo()).model.name == "found"
