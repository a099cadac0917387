"""A tool with which the model itself asks the person."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, Field

from turncell.core.events import Option
from turncell.runtime.context import ToolContext
from turncell.runtime.tools import Tool


class Choice(BaseModel):
    label: str
    description: str = ""


async def _ask_user(
    context: ToolContext,
    question: Annotated[str, Field(description="One question, in full.")],
    options: Annotated[list[Choice], Field(description="Answers to choose from; none for free text.")] = [],  # noqa: B006
    allows_text: Annotated[bool, Field(description="Whether another answer may be written.")] = True,
    allows_many: Annotated[bool, Field(description="Whether several options may be chosen.")] = False,
) -> str:
    offered = [Option(choice.label, choice.description) for choice in options]
    answer = await context.ask(question, offered, allows_text=allows_text or not offered, allows_many=allows_many)
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def ask_user() -> Tool:
    """A tool with which the model asks the person: `Agent(tools=[ask_user(), ...])`.

    >>> ask_user().spec.schema["required"]
    ['question']
    """
    return Tool(
        _ask_user,
        name="ask_user",
        description="Ask the person who attends this run. For decisions that are theirs, not for what can be found out.",
        effect="read",
        trusted=True,
    )
