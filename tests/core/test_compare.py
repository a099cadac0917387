"""Compare: the first place where two runs part, in words that a person can act on."""

from __future__ import annotations

from typing import Any

import pytest

from turncell import Agent, Run, UsageError, compare, tool
from turncell.adapters.scripted_model import Entry, ScriptedModel, call, stop

pytestmark = pytest.mark.feature("C12")


@tool(effect="read")
def weather(city: str, days: int = 1) -> str:
    """The weather."""
    if city == "Atlantis":
        raise ValueError("there is no such city")
    return f"rain in {city}"


def run(*script: Entry, prompt: str = "How is the weather?", **options: Any) -> Run:
    return Agent(ScriptedModel(script), tools=[weather], mode="auto", **options).run_sync(prompt)


def where(a: Run, b: Run) -> str:
    found = compare(a, b)
    assert found is not None, "the runs are equal"
    return str(found)


ASKS = call("weather", city="Oslo")


def test_equal_runs_do_not_part_though_their_ids_and_times_differ() -> None:
    a, b = run(ASKS, "It rains."), run(ASKS, "It rains.")
    assert compare(a, b) is None and a.id != b.id


def test_runs_states_and_events_can_be_given() -> None:
    a, b = run("Rain."), run("Sun.")
    assert {str(compare(one, other)) for one in (a, a.state, a.events) for other in (b, b.state, list(b.events))} == {
        "step 1: text: from character 1 'Rain.' against 'Sun.'"
    }


def test_the_prompt_comes_before_the_instructions_and_both_before_the_answer() -> None:
    a = run("Rain.", prompt="In Oslo?", instructions="Be brief.")
    b = run("Sun.", prompt="In Bergen?", instructions="Be long.")
    assert where(a, b) == "prompt: from character 4 'In Oslo?' against 'In Bergen?'"
    b = run("Sun.", prompt="In Oslo?", instructions="Be long.")
    assert where(a, b) == "instructions: from character 4 'Be brief.' against 'Be long.'"


def test_texts_are_compared_to_the_letter_and_shown_around_the_place() -> None:
    long = "It will rain all day and all night, and then all of the week. "
    found = compare(run(long + "Stay in. " + long), run(long + "Stay out. " + long))
    assert found is not None and (found.place, found.step) == ("step 1: text", 1)
    assert found.a == long + "Stay in. " + long and found.b == long + "Stay out. " + long
    assert str(found) == (
        "step 1: text: from character 68 '…n all of the week. Stay in. It will rain all day…' against "
        "'…n all of the week. Stay out. It will rain all da…'"
    )
    assert where(run("Rain."), run("Rain. ")) == "step 1: text: from character 6 'Rain.' against 'Rain. '"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (call("wether", city="Oslo"), "step 1: call 1: name: from character 3 'weather' against 'wether'"),
        (
            call("weather", city="Bergen"),
            'step 1: call 1 (weather): arguments: {"city": "Oslo", "days": 1} against {"city": "Bergen", "days": 1}',
        ),
        ([ASKS, ASKS], 'step 1: call 2: nothing against "weather"'),
        ("Sun.", "step 1: text: from character 1 '' against 'Sun.'"),
    ],
)
def test_calls_are_compared_by_name_arguments_and_number(other: Entry, said: str) -> None:
    assert where(run(ASKS, "It rains."), run(other, "It rains.")) == said


def test_arguments_that_mean_the_same_are_the_same() -> None:
    assert compare(run(call("weather", city="Oslo"), "."), run(call("weather", days="1", city="Oslo"), ".")) is None


def test_results_are_compared_after_what_was_asked_for() -> None:
    @tool(name="weather", effect="read")
    def sunny(city: str, days: int = 1) -> str:
        """The weather."""
        return f"sun in {city}"

    b = Agent(ScriptedModel([ASKS, "Sun."]), tools=[sunny], mode="auto").run_sync("How is the weather?")
    assert where(run(ASKS, "Rain."), b) == (
        "step 1: call 1 (weather): result: from character 1 'rain in Oslo' against 'sun in Oslo'"
    )


def test_a_call_that_is_denied_differs_in_what_the_model_reads() -> None:
    a = run(ASKS, "Done.")
    b = Agent(ScriptedModel([ASKS, "Done."]), tools=[weather], mode="never").run_sync("How is the weather?")
    found = compare(a, b)
    assert found is not None and found.place == "step 1: call 1 (weather): result"


def test_one_that_goes_on_differs_in_the_step_that_the_other_has_not() -> None:
    found = compare(run("Rain."), run(ASKS, "Rain."))
    assert found is not None and found.place == "step 1: text"
    found = compare(run(ASKS, "Rain."), run(ASKS, ASKS, "Rain.", prompt="How is the weather?"))
    assert found is not None and (found.place, found.step) == ("step 2: text", 2)
    assert (
        str(compare(run(ASKS, max_steps=1, summarises=False), run(ASKS, "Rain."))) == 'step 2: nothing against "Rain."'
    )


def test_the_end_is_compared_last() -> None:
    assert where(run("Rain"), run(["Rain", stop("length")])) == (
        "end: from character 1 'completed' against 'truncated'"
    )


def test_one_is_not_true() -> None:
    @tool(effect="read")
    def keep(value: Any) -> str:
        """Keep a value."""
        return "kept"

    a, b = (Agent(ScriptedModel([call("keep", value=v), "."]), tools=[keep]).run_sync("Go") for v in (1, True))
    assert where(a, b) == 'step 1: call 1 (keep): arguments: {"value": 1} against {"value": true}'


@pytest.mark.parametrize("odd", ["run_1", b"", None, 3, [], [1], object()])
def test_what_is_no_run_is_refused(odd: Any) -> None:
    with pytest.raises(UsageError, match="compare takes runs"):
        compare(odd, run("Hello."))
