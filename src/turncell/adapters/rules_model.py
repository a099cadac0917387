"""The embedded model: rules that call tools, so that a first notebook works without a key and without a network.

It is not a language model and says so whenever it is asked or cannot help. It reads the last message of the user
(`rules_reading`), calls the tools whose words it finds there, and writes what they returned as Markdown
(`rules_answer`). The same request always gives the same answer: all it knows is in the request, nothing is kept.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import TypeAlias

from turncell.adapters import rules_answer
from turncell.adapters.rules_reading import END_CHARACTERS, excerpt, read
from turncell.adapters.rules_values import Wish
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment
from turncell.core.events import FinishReason
from turncell.core.parts import Image, Message, Reasoning, Text, ToolCall, ToolResult, Usage
from turncell.runtime.ports import ModelRequest

_WORDS_AT_MOST = 240
"""Bursts of one answer: a long table must not take half a minute because it is shown word by word."""
_WHO = re.compile(
    r"\b(who|what) are you\b|\bwhat can you do\b|\byour name\b|\bwhich model\b|\blanguage model\b"
    r"|\bare you (an?|the|real|human|claude|gpt|chatgpt)\b|^\W*help\W*$",
    re.I,
)
_FOUND = ("[from ", "[notice] ")
"""How a part begins that was found for a prompt (see `RunState.heard`)."""
_CUT = f"(I have read the first and the last {END_CHARACTERS:,} characters of this message only.)"
_Pair: TypeAlias = tuple[ToolCall, ToolResult]


class RulesModel:
    """A few rules in the place of a language model; its name is "embedded".

    `delay_s` passes between two words, so that streaming can be seen. `reasons=False` leaves out the reasoning.
    Tokens are estimated (UTF-8 bytes / 4). The cost is 0.0 with basis "prices": rules that run in this process have
    a price, and it is zero; that is known, not unknown.
    """

    def __init__(self, *, delay_s: float = 0.012, reasons: bool = True) -> None:
        self.name = "embedded"
        self.delay_s = delay_s
        self.reasons = reasons

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        thought, text, calls = _respond(request)
        fragments: list[Fragment] = []
        if self.reasons and thought:
            fragments += [ReasoningFragment(words) for words in _words(thought)]
        fragments += _words(text)
        for index, wish in enumerate(calls):
            arguments = json.dumps(wish.arguments, ensure_ascii=False)
            half = len(arguments) // 2
            # No id: the runtime's own is as good, and unique in the store.
            fragments.append(CallFragment(index, name=wish.tool.name, arguments=arguments[:half]))
            fragments.append(CallFragment(index, arguments=arguments[half:]))
        for number, fragment in enumerate(fragments):
            await asyncio.sleep(self.delay_s if number else 0)
            yield [fragment]
        said = (thought if self.reasons else "") + text + "".join(json.dumps(wish.arguments) for wish in calls)
        usage = Usage(
            _tokens(_read(request)),
            _tokens(said),
            reasoning_tokens=_tokens(thought) if self.reasons else 0,
            is_estimated=True,
        )
        finish_reason: FinishReason = "tool_calls" if calls else "stop"
        yield [Finished(finish_reason, usage, 0.0, "prices", self.name)]


def _respond(request: ModelRequest) -> tuple[str, str, list[Wish]]:
    """(reasoning, text, calls) for a request."""
    message, pairs, steps_done = _since_prompt(request.messages)
    prompt = excerpt(message)
    tools = () if request.tool_choice == "none" else request.tools
    names = ", ".join(tool.name for tool in tools) or "none"
    if not pairs and _WHO.search(prompt) and not any(tool.name.lower() in prompt.lower() for tool in tools):
        return "I am asked about myself.", rules_answer.introduce(tools), []
    steps = read(prompt, tools)
    lacking = [wish for step in steps for wish in step if wish.missing]
    ready = [[wish for wish in step if not wish.missing] for step in steps]
    ready = [step for step in ready if step]
    failed = any(result.is_error for _, result in pairs)
    if steps_done < len(ready) and not failed:
        calls = ready[steps_done]
        because = "; ".join(f"{', '.join(wish.words)} → {wish.tool.name}" for wish in calls)
        thought = f"Looking at the tools I was given ({names}). Words that fit: {because}."
        return thought, rules_answer.announce([(wish.tool.name, wish.arguments) for wish in calls]), calls
    notes = [rules_answer.ask_for(wish.tool, wish.missing) for wish in lacking]
    told = [_CUT] if prompt != message else []
    if pairs:
        left = [wish.tool.name for step in ready[steps_done:] for wish in step]
        return (
            "The results are here; I write them down.",
            "\n\n".join([rules_answer.answer(pairs, left), *notes, *told]),
            [],
        )
    thought = f"Looking at the tools I was given ({names})."
    if notes:
        return thought, "\n\n".join([*notes, *told]), []
    return thought, "\n\n".join([rules_answer.no_match(tools), *told]), []


def _own_words(message: Message) -> str:
    """What a person wrote, without the passages and notices in front of it, whose words these rules would take for a wish."""
    texts = [part.text for part in message.parts if isinstance(part, Text)]
    while len(texts) > 1 and texts[0].startswith(_FOUND) and texts[0].endswith("\n\n"):
        texts.pop(0)
    return "".join(texts)


def _since_prompt(messages: tuple[Message, ...]) -> tuple[str, list[_Pair], int]:
    """The last message of the user, the calls made since with their results, and in how many steps."""
    start = max((n for n, message in enumerate(messages) if message.role == "user"), default=-1)
    prompt = _own_words(messages[start]) if start >= 0 else ""
    later = messages[start + 1 :]
    calls: dict[str, ToolCall] = {}
    pairs: list[_Pair] = []
    for message in later:
        calls.update((call.call_id, call) for call in message.calls)
        results = (part for part in message.parts if isinstance(part, ToolResult))
        pairs += [(calls[result.call_id], result) for result in results if result.call_id in calls]
    return prompt, pairs, sum(bool(message.calls) for message in later)


def _words(text: str) -> list[str]:
    """The text in bursts of one word, or of several if it is long."""
    words = re.findall(r"\S+\s*|^\s+", text)
    size = -(-len(words) // _WORDS_AT_MOST) or 1
    return ["".join(words[start : start + size]) for start in range(0, len(words), size)]


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // 4)


def _read(request: ModelRequest) -> str:
    """All text of a request, for the estimate of its tokens."""
    pieces = [request.instructions]
    pieces += [tool.name + tool.description + json.dumps(tool.schema) for tool in request.tools]
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Text | Reasoning):
                pieces.append(part.text)
            elif isinstance(part, ToolCall):
                pieces.append(part.name + part.arguments_text)
            elif not isinstance(part, Image):
                pieces.append(part.content)
    return "".join(pieces)
