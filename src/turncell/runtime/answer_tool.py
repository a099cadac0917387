"""Tools that are made of something else than a function: the answer of a given type, and an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from turncell.core.parts import Json
from turncell.errors import CallFailed, ToolError
from turncell.runtime.output import Output
from turncell.runtime.output_type import ANSWER_TOOL, Misfit, OutputType
from turncell.runtime.ports import ToolSpec
from turncell.runtime.tools import Tool

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent


_EARLY = ("max_steps", "truncated")
"""How a run may end before its agent was done and have an answer all the same."""


class AnswerTool(Tool):
    """Takes the output of a run as its arguments, and ends the run."""

    is_answer = True

    def __init__(self, output: OutputType) -> None:
        def final_answer() -> str:
            return "Done."

        super().__init__(
            final_answer,
            name=ANSWER_TOOL,
            description=output.spec.description,
            effect="read",
            trusted=True,
            terminate=True,
        )
        self._output = output

    @property
    def spec(self) -> ToolSpec:
        return self._output.spec

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        value = self._output.parse(dict(arguments))
        if isinstance(value, Misfit):
            raise ToolError(f"arguments of {self.name} are not valid: {value.problem}")
        return dict(arguments)

    async def call(self, arguments: Mapping[str, Json], context: Any, **_: Any) -> Any:
        return Output("Done.", self._output.bare(arguments))


def agent_tool(agent: Agent, name: str, description: str, options: Mapping[str, Any]) -> Tool:
    """See `Agent.as_tool`."""

    if options.get("retries"):
        raise ToolError(
            f"tool {name!r}: retries is {options['retries']!r}; use 0: a second attempt would be another run, "
            "which does again what the first one has done"
        )

    async def ask(task: str) -> Output:
        """Hand a task to an agent of its own.

        Args:
            task: What is to be done, with all that the agent needs to know. It sees nothing else.
        """
        run = await agent.run(task)
        state = run.state
        usage = state.usage
        details: Json = {
            "run_id": run.id, "session_id": run.session.id, "status": state.status, "steps": len(state.steps),
            "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "cost_usd": state.cost_usd,
        }  # fmt: skip
        if state.status == "completed":
            return Output((run.text or "(no answer)") if run.output is None else run.output, details)
        said = f"{name} ended as {state.status}{f': {state.error}' if state.error else ''}\n\n{run.text}".strip()
        if state.status in _EARLY and run.text:
            return Output(said, details)
        raise CallFailed(said, details)

    made = Tool(
        ask,
        name=name,
        description=description or f"Hand a task to {name}, an agent of its own.",
        **{"effect": "read"} | dict(options),
    )
    made.inside = agent.tools
    return made
