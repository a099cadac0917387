"""Between steps and before the end: the step policy, the output's type, and the hooks that may send the agent on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from turncell.core.fold import RunState
from turncell.core.parts import Message, Text
from turncell.core.signals import Review, Reviewed
from turncell.core.steps import said_by_calls
from turncell.core.values import evolve
from turncell.errors import say
from turncell.runtime.hooks import HookFailed, called
from turncell.runtime.output_type import ANSWER_TOOL, Misfit

if TYPE_CHECKING:
    from turncell.runtime.driver import Driver


async def review(driver: Driver, kind: Review) -> None:
    """Ask them, and feed what they say. One that fails is noted and asked no further."""
    driver.feed_last(await (_after_step(driver) if kind == "step" else _before_finish(driver)))


async def _after_step(driver: Driver) -> Reviewed:
    run, setup = driver.loop_state.run, driver.setup
    try:
        if await setup.hooks.first("after_step", run, (bool,)):
            return Reviewed(time.time(), "step", is_final=True)
    except HookFailed as error:
        driver.note("hook", str(error))
    policy, step = setup.step_policy, len(run.steps)
    if policy is None:
        return Reviewed(time.time(), "step")
    try:
        if await called(policy.should_continue, step, run.calls):
            return Reviewed(time.time(), "step")
        text = await called(policy.on_limit_reached, step, run.calls)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        # A policy that cannot say so does not allow another step.
        return Reviewed(time.time(), "step", failure=("hook", f"the step policy failed: {say(error)}"))
    return Reviewed(time.time(), "step", may_go_on=False, text=None if text is None else str(text))


async def _before_finish(driver: Driver) -> Reviewed:
    run = driver.loop_state.run
    if (answer := said_by_calls(driver.loop_state, run)) is not None:
        run = evolve(run, closing=answer)
    said = _fit_output(driver, run) if driver.setup.output is not None else None
    if said is not None:
        return said
    try:
        message = await driver.setup.hooks.first("before_finish", run, (str, Message))
    except HookFailed as error:
        driver.note("hook", str(error))
        message = None
    if isinstance(message, str):
        message = Message("user", (Text(message),))
    return Reviewed(time.time(), "finish", message=message)


def _fit_output(driver: Driver, run: RunState) -> Reviewed | None:
    """None where the output fits its type, and is there."""
    output = driver.setup.output
    assert output is not None
    value = output.of(run)
    if not isinstance(value, Misfit):
        driver.output = value
        return None
    driver.misfits += 1
    driver.note("output", f"the output is no {output.name}: {value.problem}")
    if driver.misfits >= driver.setup.output_attempts:
        return Reviewed(time.time(), "finish", failure=("output", f"the output is no {output.name}: {value.problem}"))
    how = f"Call {ANSWER_TOOL} with" if ANSWER_TOOL in driver.setup.tools else "Answer with nothing but JSON of"
    text = f"That is not the output that is wanted: {value.problem}. {how} a value that fits the schema."
    return Reviewed(time.time(), "finish", message=Message("user", (Text(text),)), by="output")
