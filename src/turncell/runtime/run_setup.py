"""What a run of an agent works with: its options inside those of the agent, inside what the run around it allows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import ref

from turncell import settings
from turncell.core.policy import MODES, Mode
from turncell.errors import StoreError, UsageError
from turncell.runtime import trace
from turncell.runtime.agent_options import as_limits, check_tool_choice
from turncell.runtime.approvals import Policy
from turncell.runtime.budget import Budget, limits_of
from turncell.runtime.driver import Setup
from turncell.runtime.options import number, one_of, text, whole
from turncell.runtime.output_type import OutputType
from turncell.runtime.ports import capabilities_of
from turncell.runtime.rulebook import rulebook
from turncell.runtime.session import Session
from turncell.runtime.telemetry import watchers_of
from turncell.runtime.tools import Tool, toolbox

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent


MOST_DEEP = 16
"""How many runs may stand inside one another, below the outermost: an agent that has itself as a tool might never end."""


def set_up(
    agent: Agent,
    within: trace.Trace | None,
    session: Session | None,
    title: str,
    is_attended: bool | None,
    mode: Mode | None,
    max_steps: int | None,
    output: Any,
    tool_choice: str | None,
    budget: Budget | Mapping[str, Any] | None,
    timeout_s: float | None,
) -> tuple[Setup, int, tuple[object, ...]]:
    """What a run works with, its limit of steps, and the terms on which messages may be joined. The session is checked."""
    if within is not None and within.depth >= MOST_DEEP:
        raise UsageError(f"this run would be the {within.depth + 2}th inside one another; {MOST_DEEP + 1} is the most")
    limit = agent.max_steps if max_steps is None else whole("max_steps", max_steps, least=1)
    if not agent.has_max_steps and max_steps is None:
        limit = 0
    judged_by: Mode = one_of("mode", agent.mode if mode is None else mode, MODES)
    timeout_s = agent.timeout_s if timeout_s is None else number("timeout_s", timeout_s)
    wanted = agent.output if output is None else OutputType(output)
    tools, options = _with_output(agent, wanted)
    if tool_choice is not None:
        options["tool_choice"] = text("tool_choice", tool_choice)
    if not agent.tool_sources:  # whose tools are not known yet
        check_tool_choice(options.get("tool_choice"), tools)
    account = _account(agent, budget, within)
    if session is None:
        session = agent.session(title)
        if within is not None:  # what a person has said above need not be said again
            session.answers = within.driver.setup.session.answers
            session.left_behind = within.driver.setup.session.left_behind
    session.agent = session.agent or agent
    if is_attended is None:
        is_attended = within.driver.setup.policy.is_attended if within else False
    of_session, book = session, rulebook()
    above = within.driver.setup.policy.remembered if within else None
    policy = Policy(
        agent.rules, judged_by, is_attended, "allow" if settings.current().unattended == "allow" else "deny",
        agent.request_timeout_s,
        (lambda: (*of_session.rules, *above())) if above else (
            lambda: (*of_session.rules, *(kept.rule for kept in book.rules()))
        ),
        within.driver.setup.policy if within else None,
    )  # fmt: skip
    setup = Setup(
        models=agent.models, tools=tools, policy=policy, session=session, journal=session.journal,
        budget=account, options=options, hooks=agent.hooks, step_policy=agent.step_policy,
        output=wanted, output_attempts=agent.output_attempts, max_questions=agent.max_questions,
        context=agent.context, sources=agent.sources, repeats=agent.repeats, silence_s=agent.silence_s, timeout_s=timeout_s, has_latency=agent.debug_latency,
        watchers=watchers_of(agent.telemetry),
        chain=(*within.chain,) if within else (), is_tainted=within is not None and within.driver.is_tainted,
        writes=within.writes if within else asyncio.Lock(),
        outermost=(within.driver.setup.outermost or ref(within.driver)) if within else None,
    )  # fmt: skip
    terms = (agent, judged_by, limit, is_attended, output, tool_choice, budget, timeout_s, within and within.chain)
    return setup, limit, terms


def check_session(session: Session | None, within: trace.Trace | None) -> None:
    if session is None:
        return
    if not isinstance(session, Session):
        raise UsageError(f"session is {session!r}; use agent.session() or Session.load(session_id, journal)")
    if session.pid != os.getpid():
        raise StoreError(
            f"session {session.id} belongs to the parent process {session.pid}; "
            "begin a new session in this forked child with agent.session()"
        )
    if within is not None and session.running is not None and session.running.id in within.chain:
        raise UsageError(
            "this session is waiting for the run that this code is part of; leave out session=, "
            "or steer that run with session.send(message, steer=True)"
        )


def _account(agent: Agent, budget: Budget | Mapping[str, Any] | None, within: trace.Trace | None) -> Budget:
    """What this run spends from: its own limits inside those of the agent, inside those of the run around it."""
    parent = within.driver.setup.budget if within else None
    given = budget if isinstance(budget, Budget) else agent.budget if agent.shares_budget else None
    if given is not None and parent is not None and not parent.is_within(given):
        if not given.is_within(parent):
            raise UsageError(
                "an agent with a Budget of its own cannot run inside another run, which has one too; "
                "give it limits (a mapping) instead"
            )
        parent = given
    parent = parent or given
    if isinstance(budget, Budget):
        return Budget(parent=parent)
    own = as_limits(budget) if budget is not None else {}
    if not agent.shares_budget and agent.budget is not None:
        own = limits_of(agent.budget) | own
    return Budget(**own, parent=parent)


def _with_output(agent: Agent, output: OutputType | None) -> tuple[dict[str, Tool], dict[str, Any]]:
    """Its tools and the options of its model, with what brings out a value of this type."""
    options = dict(agent.model_options)
    if output is None:
        return agent.tools, options
    if not agent.models.is_tiered and agent.models.count == 1 and capabilities_of(agent.model).schema:
        return agent.tools, options | {"output_schema": output.schema}
    from turncell.runtime.answer_tool import AnswerTool

    return toolbox([*agent.tools.values(), AnswerTool(output)]), options
