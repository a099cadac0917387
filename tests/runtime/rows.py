"""What rows in workers run: agents and tools at the top of a module, as workers import them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from turncell import Agent, ModelFailure, tool
from turncell.runtime import defaults
from turncell.runtime.ports import ModelRequest
from turncell.testing import ScriptedModel, call


class Label(BaseModel):
    label: str
    length: int


def label(request: ModelRequest) -> Any:
    """`Classify: <word>` gets the word back; "fails" fails."""
    word = request.messages[0].text.split()[-1]
    if word == "fails":
        raise ModelFailure("auth", "no key")
    return call("final_answer", label=word, length=len(word))


def labeller(**options: Any) -> Agent:
    return Agent(ScriptedModel(label, name="rows/label", price=(1.0, 1.0)), output=Label, **options)


def pid(request: ModelRequest) -> str:
    return str(os.getpid())


@tool
def send(path: str, word: str) -> str:
    """Write the word into a file; "dies" kills the program after that."""
    with open(path, "a") as file:
        file.write(f"{word}\n")
    if word == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return "sent"


@tool(effect="read")
def die_once(mark: str) -> str:
    """Kill the program, unless it was done before."""
    if not Path(mark).exists():
        Path(mark).write_text("died")
        defaults.journal().flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def use_tool(request: ModelRequest) -> Any:
    """`<tool> <path> <word>` calls the tool, once."""
    if any(message.role == "tool" for message in request.messages):
        return "Done."
    name, path, *word = request.messages[0].text.split()
    return call("send", path=path, word=word[0]) if name == "send" else call("die_once", mark=path)


def sender() -> Agent:
    return Agent(ScriptedModel(use_tool, name="rows/send"), tools=[send, die_once], mode="auto")
