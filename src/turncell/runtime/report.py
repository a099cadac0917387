"""What would be sent next, and how much of it is what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from turncell.core.context import messages_of
from turncell.core.fold import RunState
from turncell.core.parts import Message, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import ToolSpec
from turncell.runtime.room import Known, Telling, room_in, window_of
from turncell.runtime.tokens import text_tokens, tools_tokens

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent
    from turncell.runtime.session import Session


@dataclass(frozen=True, slots=True)
class ContextPart:
    """One line of the report: the instructions, the tools, or a unit of the conversation."""

    name: str
    tokens: int
    text: str
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class ContextReport:
    """What the model would be told before the next prompt. Tokens are estimated, and corrected by the provider's last count.

    Beyond `limit_tokens` it is made shorter before it is sent; None: nobody knows the window.
    """

    model: str
    parts: tuple[ContextPart, ...]
    tools: tuple[ToolSpec, ...] = ()
    window_tokens: int | None = None
    limit_tokens: int | None = None

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(message for part in self.parts for message in part.messages)

    def table(self, *, whole: bool = False) -> str:
        """One line for each part, or each part whole."""
        width = max(len(part.name) for part in self.parts)
        lines = [f"{part.tokens:>9,}  {part.name:<{width}}  {part.text if whole else _head(part.text)}".rstrip()
                 for part in self.parts]  # fmt: skip
        total = f"{self.tokens:>9,}  tokens, about, to {self.model}"
        if self.window_tokens is None or self.limit_tokens is None:
            return "\n".join([*lines, f"{total}; its window is not known"])
        end = f"; window {self.window_tokens:,}, made shorter beyond {self.limit_tokens:,}"
        return "\n".join([*lines, total + end])

    def __str__(self) -> str:
        return self.table()


def context_report(session: Session, agent: Agent) -> ContextReport:
    """The report of a session that this agent goes on with."""
    model = agent.models.first
    specs = tuple(tool.spec for tool in agent.known_tools)
    telling, nothing = Telling(session.runs, session.known or Known()), RunState()
    telling.update(nothing)
    fixed = (text_tokens(agent.instructions), tools_tokens(specs))
    ratio = telling.ratio(nothing, model.name, sum(fixed))
    parts = [
        ContextPart("instructions", int(fixed[0] * ratio), agent.instructions),
        ContextPart("tools", int(fixed[1] * ratio), ", ".join(spec.name for spec in specs)),
    ]
    places = {run.run_id: place for place, run in enumerate(session.runs, 1)}
    for unit, size in zip(telling.units, telling.sizes, strict=True):
        what = "summary" if unit.is_summary else f"step {unit.step}" if unit.step else "prompt"
        name = f"turn {places.get(unit.run_id, 0)}, {what}"
        parts.append(ContextPart(name, int(size * ratio), _text(messages_of([unit])), unit.messages))
    window = window_of(agent.context, model, session.windows)
    limit = None if window is None else room_in(agent.context, window, model, agent.max_tokens).limit_tokens
    return ContextReport(model.name, tuple(parts), specs, window, limit)


def _text(messages: tuple[Message, ...]) -> str:
    lines = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, Text | Reasoning):
                lines.append(part.text)
            elif isinstance(part, ToolCall):
                lines.append(f"{part.name}({part.arguments_text})")
            else:
                lines.append(f"-> {part.content}" if isinstance(part, ToolResult) else "[an image]")
    return "\n".join(lines)


def _head(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:59] + "…"
