"""A conversation of 500 steps at any budget: after every step a provider would take what it is told."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.core.test_fold import accepted_by_providers
from turncell import Agent, Context, Message, ModelFailure, Output, tool
from turncell.adapters.scripted_model import call, say
from turncell.runtime.ports import ModelRequest
from turncell.runtime.summary import INSTRUCTIONS
from turncell.testing import ScriptedModel

STEPS = 500
WORDS = ("tide", "harbour", "12,408", "données", "прилив", "潮の満ち引き", "🌊", '{"height_m": 2.4}', "/data/tides.csv")


class Sea:
    """A model that wants to look 500 times, over several prompts, and has a window that it keeps to."""

    def __init__(self, seed: int, window_words: int) -> None:
        self.dice = random.Random(seed)
        self.window_words = window_words
        self.asked: list[ModelRequest] = []
        self.model = ScriptedModel(self.answer)
        self.refused = self.summaries = 0

    def answer(self, request: ModelRequest) -> Any:
        if request.instructions == INSTRUCTIONS:
            self.summaries += 1
            assert words_in(request) <= self.window_words, "a summary was asked for with more than fits"
            return self.dice.choice(
                [
                    "The sea was looked at.",
                    "",
                    ModelFailure("overloaded", "busy"),
                    say("So it was. " * 400, chunk=10_000),
                ]
            )
        if words_in(request) > self.window_words:
            self.refused += 1
            return ModelFailure("context_length", f"the window has {self.window_words} words")
        self.asked.append(request)
        if self.dice.random() < 0.03:
            return self.text(60) or "Well."
        wanted = self.dice.choices((0, 1, 20, 60, 250), k=self.dice.randint(1, 3))
        return [say(self.text(30), chunk=10_000), *(call("look", words=words) for words in wanted)]

    def text(self, most: int) -> str:
        return " ".join(self.dice.choices(WORDS, k=self.dice.randint(0, most)))

    async def look(self, words: int) -> Output:
        """Look at the sea."""
        return Output(" ".join(self.dice.choices(WORDS, k=words)))


def words_in(request: ModelRequest) -> int:
    """What this provider calls tokens: its own unit, that nobody here knows."""
    count = len(request.instructions.split())
    for message in request.messages:
        for part in message.parts:
            count += len((getattr(part, "text", "") or getattr(part, "content", "")).split())
            count += len(getattr(part, "arguments_text", "").split())
    return count


@pytest.mark.feature("C1", "C2", "C3", "C4", "C6")
@pytest.mark.parametrize("seed", [1, 2, 3, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(4, 60))])
def test_five_hundred_steps_at_a_random_budget(seed: int) -> None:
    dice = random.Random(seed)
    window = int(10 ** dice.uniform(3.1, 4.5))
    sea = Sea(seed, window)
    is_known = seed % 4 != 3
    agent = Agent(
        sea.model, tools=[tool(sea.look, effect="read")], instructions="You keep the tide table. " * dice.randint(1, 8),
        max_steps=STEPS, mode="auto", attempts=1,
        context=Context(
            window_tokens=window if is_known else None, threshold=dice.uniform(0.4, 1.0), keep_recent=dice.randint(1, 4),
        ),
    )  # fmt: skip
    session = agent.session()
    while len(sea.asked) < STEPS:
        run = session.send(f"Prompt {len(session.runs)}: {sea.text(80)}").result()
        assert run.status == "completed", (run.state.error_kind, run.state.error)

    edits = {(run.run_id, edit.step) for run in session.runs for edit in run.edits}
    prompts = {run.run_id: run.heard for run in session.runs}
    first = session.runs[0].heard
    before: tuple[Message, ...] = ()
    broken = 0
    for request in sea.asked:
        messages = request.messages
        assert accepted_by_providers(messages)
        assert request.instructions == agent.instructions, "the floor, to the byte"
        assert messages[0] == first and prompts[request.run_id] in messages
        if messages[: len(before)] != before:
            broken += 1
            assert (request.run_id, request.step) in edits, "the prefix broke, and nothing says so"
        before = messages
    assert broken <= len(edits)
    assert sea.refused <= 2 * len(session.runs)
    if is_known and window < 4_000:
        assert sea.summaries > 0
