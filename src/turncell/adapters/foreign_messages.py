"""Conversations as other programs hold them: lists of messages, read into ours.

Which format a message has is seen from its shape, so that a list may mix them:

    {"role": "assistant", "content": "...", "tool_calls": [...]}   OpenAI's chat completions; `function_call` of before, too
    {"role": "user", "content": [{"type": "tool_result", ...}]}    Anthropic's messages
    {"type": "function_call", "call_id": ..., ...}                 items of OpenAI's responses (`to_input_list()` of its agents)
    Message("user", (Text("..."),))                                ours, as `run.messages` has them

(Sources: the API references of both providers.) What no message of ours can hold is refused with the place where it
stands; fields that say nothing of the conversation (ids of messages, annotations, usage) are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

import orjson

from turncell.adapters.direct_anthropic_format import is_served, served_text
from turncell.adapters.seals import ANTHROPIC, BLOCK, REDACTED, RESPONSES, THOUGHT, seal
from turncell.core.codec import decode_finite
from turncell.core.digest import canonical_json
from turncell.core.parts import MAX_DEPTH, Image, Message, Part, Reasoning, Text, ToolCall, ToolResult, depth
from turncell.core.values import evolve
from turncell.errors import UsageError
from turncell.runtime.images import image
from turncell.runtime.output import clean

Shape: TypeAlias = Mapping[str, Any]
_ROLES = "system, developer, user, assistant, tool"
_LIST = "use a list of messages, such as [{'role': 'user', 'content': 'Hello'}, {'role': 'assistant', 'content': 'Hi'}]"


def read_messages(given: Any, instructions: str = "") -> tuple[Message, ...]:
    """A conversation as messages of the user, of the assistant, and of results, each right after the message with its call.

    Ids of calls are unique then. A system message must say what `instructions` say, and is left out. UsageError for what
    cannot be read, with the index of the message.

    >>> [message.text for message in read_messages([{"role": "user", "content": "Hello"}])]
    ['Hello']
    """
    if isinstance(given, str | bytes | Mapping | Message) or not isinstance(given, Iterable):
        raise UsageError(f"messages are {_shown(given)}; {_LIST}")
    conversation = _Conversation(instructions.strip())
    number = 0
    for number, one in enumerate(given, 1):
        try:
            conversation.take(one)
        except UsageError as error:
            raise UsageError(f"messages[{number - 1}]: {error}") from error
    if not number:
        raise UsageError(f"messages are empty; {_LIST}, or begin with agent.session()")
    if not conversation.messages:
        raise UsageError("messages have nothing but instructions, which the agent has already; use agent.session()")
    return tuple(conversation.messages)


class _Conversation:
    def __init__(self, instructions: str) -> None:
        self.messages: list[Message] = []
        self._instructions = instructions
        self._open: list[tuple[str, ToolCall]] = []
        """The calls of the last answer that have no result yet: by the id that results have for them, and as ours."""
        self._calls = 0
        self._is_item = False
        """The last answer came as items, of which more may come."""

    def take(self, one: Any) -> None:
        if isinstance(one, Message):
            self._take_own(one)
            return
        shape = _plain(one)
        role, kind = shape.get("role"), shape.get("type")
        if kind == "function_call":
            self._answer((_call(shape, shape, "call_id"),), is_item=True)
        elif kind == "function_call_output":
            self._return(_result(shape.get("call_id"), shape.get("output")))
        elif kind == "reasoning":
            self._answer((_thought(shape),), is_item=True)
        elif role in ("system", "developer"):
            self._check_instructions("".join(part.text for part in _parts(shape) if isinstance(part, Text)))
        elif role == "user":
            self._hear(_parts(shape))
        elif role == "assistant":
            self._answer(_answer_parts(shape), is_item=kind == "message")
        elif role == "tool":
            self._return(_result(shape.get("tool_call_id"), shape.get("content"), shape.get("name")))
        elif role == "function":
            self._return(_result(None, shape.get("content"), shape.get("name")))
        elif role is None:
            found = f"the type {kind!r:.80} and the keys {sorted(map(str, shape))}" if kind else sorted(map(str, shape))
            raise UsageError(f"it has no role, which is one of {_ROLES}; it has {found}")
        else:
            raise UsageError(f"its role is {role!r:.80}; use one of {_ROLES}")

    def _take_own(self, message: Message) -> None:
        if not all(isinstance(part, Text | Image | Reasoning | ToolCall | ToolResult) for part in message.parts):
            raise UsageError(f"its parts are {_shown(message.parts)}; use a tuple of parts, such as Text")
        parts = tuple(image(part) if isinstance(part, Image) else part for part in message.parts)
        if message.role == "system":
            self._check_instructions(message.text)
        elif message.role == "assistant":
            self._answer(parts, is_partial=message.is_partial)
        elif message.role in ("user", "tool"):
            self._hear(parts)
        else:
            raise UsageError(f"its role is {message.role!r:.80}; use one of {_ROLES}")

    def _check_instructions(self, text: str) -> None:
        if text.strip() and text.strip() != self._instructions:
            own = f"{_shown(self._instructions)}" if self._instructions else "none"
            raise UsageError(
                f"instructions belong to the agent, which has {own}, and this message has {_shown(text)}; give them to the "
                "agent, Agent(model, instructions=...), or leave the message out"
            )

    def _hear(self, parts: tuple[Part, ...]) -> None:
        """What the user says; results stand in a message of the user's too."""
        for part in parts:
            if isinstance(part, ToolResult):
                self._return(part)
            elif not isinstance(part, Text | Image):
                raise UsageError(f"it is of the user, and has a part that only a model writes: {part.type}")
        said = tuple(part for part in parts if not isinstance(part, ToolResult))
        if said:
            self.messages.append(Message("user", said))
        elif not parts:
            raise UsageError("it is of the user, and nothing is said in it; leave it out")

    def _answer(self, parts: tuple[Part, ...], *, is_partial: bool = False, is_item: bool = False) -> None:
        last = self.messages[-1] if self.messages else None
        # Between calls and their results nothing is said: what comes there belongs to the answer that has the calls.
        is_more = last is not None and last.role == "assistant" and (bool(self._open) or (is_item and self._is_item))
        self._open, self._is_item = self._open if is_more else [], is_item
        ours: list[Part] = [*last.parts] if last is not None and is_more else []
        for part in parts:
            if isinstance(part, ToolResult):
                raise UsageError(
                    "it is of the assistant, and has the result of a call; that is said by the user or the tool"
                )
            if isinstance(part, ToolCall):
                _check_arguments(part)
                self._calls += 1
                known, part = part.call_id, evolve(part, call_id=f"call-{self._calls}")
                self._open.append((known, part))
            ours.append(part)
        if is_more:
            self.messages.pop()
        self.messages.append(Message("assistant", tuple(ours), is_partial))

    def _return(self, result: ToolResult) -> None:
        """Of the call with its id; where it has none, of the first with its name, or of the first."""
        last, (call_id, name) = self.messages[-1:], (result.call_id, result.name)
        if last and last[0].role == "user":
            self._open = []
        fits = ((known == call_id) if call_id else name in ("", call.name) for known, call in self._open)
        at = next((at for at, is_it in enumerate(fits) if is_it), None)
        if at is None:
            what = f"call {call_id!r:.120}" if call_id else f"a call of {name!r:.80}" if name else "a call"
            waiting = ", ".join(repr(known or call.name) for known, call in self._open) or "none"
            raise UsageError(
                f"it is the result of {what}, and of the answer before it these calls have no result yet: {waiting}; put it "
                "right after the message with its call, or leave it out"
            )
        _, call = self._open.pop(at)
        self._is_item = False
        ours = evolve(result, call_id=call.call_id, name=call.name, provider_id=call.provider_id)
        if last and last[0].role == "tool":
            self.messages[-1] = evolve(last[0], parts=(*last[0].parts, ours))
        else:
            self.messages.append(Message("tool", (ours,)))


# The parts of a message, whatever it calls them.


def _answer_parts(shape: Shape) -> tuple[Part, ...]:
    """Of an assistant's message: in chat completions thoughts, refusals and calls stand beside its content."""
    thoughts = [_part(block) for block in _listed(shape, "thinking_blocks")]
    if not thoughts:
        said = next(
            (shape[name] for name in ("reasoning_content", "reasoning") if isinstance(shape.get(name), str)), ""
        )
        thoughts = [Reasoning(clean(said))] if said.strip() else []
    if shape.get("audio"):
        raise UsageError(
            "it has audio, which cannot come in; put what is said there into its content, and leave it out"
        )
    refusal = shape.get("refusal")
    refused = (Text(clean(refusal)),) if isinstance(refusal, str) and refusal else ()
    calls: list[Part] = []
    for asked in map(_plain, _listed(shape, "tool_calls")):
        if asked.get("function") is None:
            raise UsageError(
                f"it has a tool call without a function: {_shown(dict(asked))}; only calls of functions can come in"
            )
        calls.append(_call(asked, _plain(asked["function"])))
    if shape.get("function_call"):
        calls.append(_call({}, _plain(shape["function_call"])))
    return (*thoughts, *_parts(shape), *refused, *calls)


def _listed(shape: Shape, name: str) -> list[Any]:
    found = shape.get(name) or []
    if not isinstance(found, list | tuple):
        raise UsageError(f"its {name} are {_shown(found)}; use a list")
    return list(found)


def _parts(shape: Shape) -> tuple[Part, ...]:
    return _content(shape.get("content"))


def _content(content: Any) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(clean(content)),)
    if not isinstance(content, list | tuple):
        raise UsageError(f"its content is {_shown(content)}; use text, or a list of parts")
    return tuple(Text(clean(one)) if isinstance(one, str) else _part(one) for one in content)


def _part(one: Any) -> Part:
    if isinstance(one, Text | Image | Reasoning | ToolCall | ToolResult):
        return one
    block = _plain(one)
    kind = block.get("type")
    if kind in ("text", "input_text", "output_text"):
        return Text(_text(block, "text"))
    if kind == "refusal":
        return Text(_text(block, "refusal"))
    if kind in ("image_url", "input_image"):
        found = block.get("image_url")
        return _image(found if isinstance(found, str) or found is None else _plain(found).get("url"))
    if kind == "image":
        source = _plain(block.get("source"))
        if source.get("type") == "base64":
            return image(Image(_text(source, "data"), _text(source, "media_type")))
        return _image(source.get("url"))
    if kind == "thinking":
        signature = block.get("signature")
        return Reasoning(_text(block, "thinking"), seal(ANTHROPIC, str(signature)) if signature else None)
    if kind == "redacted_thinking":
        return Reasoning("", seal(ANTHROPIC, REDACTED + _text(block, "data")))
    if isinstance(kind, str) and is_served(kind):
        try:
            return Reasoning(clean(served_text(block)), seal(ANTHROPIC, BLOCK + orjson.dumps(dict(block)).decode()))
        except TypeError as error:
            raise UsageError(f"it has a part of the type {kind!r:.80} that is no JSON: {error}") from error
    if kind == "tool_use":
        return _call(block, {"name": block.get("name"), "arguments": block.get("input")})
    if kind == "tool_result":
        return _result(block.get("tool_use_id"), block.get("content"), is_error=bool(block.get("is_error")))
    raise UsageError(
        f"it has a part of the type {kind!r:.80}, which cannot come in; leave the part out, or put its text there"
    )


def _result(call_id: Any, content: Any, name: Any = None, *, is_error: bool = False) -> ToolResult:
    """Its text, and its images; one that is elsewhere is told by its address."""
    if call_id is not None and not isinstance(call_id, str):
        raise UsageError(f"it is the result of a call whose id is {_shown(call_id)}; an id is text")
    texts: list[str] = []
    images: list[Image] = []
    for part in _content(content):
        if isinstance(part, Text):
            texts.append(part.text)
        elif isinstance(part, Image) and part.media_type:
            images.append(part)
        elif isinstance(part, Image):
            texts.append(f"\n[an image: {part.data}]")
        else:
            raise UsageError(f"it is the result of a call, and has a part that is no text and no image: {part.type}")
    return ToolResult(call_id or "", str(name or ""), "".join(texts), is_error, None, tuple(images))


def _image(url: Any) -> Image:
    if not isinstance(url, str):
        raise UsageError(
            "it has an image without an address; an image is a URL, a data URL, or base64 with its media type"
        )
    return image(Image(url))  # never a path: a list from elsewhere must not have files of this machine read


def _thought(item: Shape) -> Reasoning:
    """An item of what OpenAI's responses thought: its summary, and its seal, which names the item."""
    text = "\n\n".join(_text(_plain(one), "text") for one in _listed(item, "summary"))
    sealed = item.get("encrypted_content")
    return Reasoning(text, seal(RESPONSES, f"{item.get('id') or ''}:{sealed}") if sealed else None)


def _call(outer: Shape, inner: Shape, id_name: str = "id") -> ToolCall:
    """`outer` has the id, `inner` name and arguments, which are JSON text or an object."""
    name, arguments, call_id = inner.get("name"), inner.get("arguments"), outer.get(id_name)
    if not isinstance(name, str) or not name:
        raise UsageError(f"it has a call whose tool is {_shown(name)}; a tool has a name")
    if call_id is not None and not isinstance(call_id, str):
        raise UsageError(f"it has a call of {name} whose id is {_shown(call_id)}; an id is text")
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):
        try:
            arguments = json.dumps(arguments, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"it has a call of {name} whose arguments are no JSON: {_shown(arguments)}") from error
    signature = (_mapping(_mapping(outer.get("extra_content")).get("google"))).get("thought_signature")
    provider_id = f"{call_id}{THOUGHT}{signature}" if call_id and signature else call_id
    return ToolCall(call_id or "", clean(name), clean(arguments), provider_id)


def _check_arguments(call: ToolCall) -> None:
    try:
        found = decode_finite(call.arguments_text or "{}")
        canonical_json(found)  # not of an infinite number, such as 1e999
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or depth(found) > MAX_DEPTH:
        raise UsageError(
            f"it has a call of {call.name} whose arguments are no JSON object: {_shown(call.arguments_text)}; put an object "
            "there, such as '{}'"
        )


def _text(block: Shape, name: str) -> str:
    found = block.get(name)
    if not isinstance(found, str):
        raise UsageError(
            f"it has a part of the type {block.get('type')!r:.80} whose {name} is {_shown(found)}; use text"
        )
    return clean(found)


def _plain(one: Any) -> Shape:
    """A dict, or what a client's own object says of itself."""
    if not isinstance(one, Mapping) and callable(getattr(one, "model_dump", None)):
        one = one.model_dump()
    if not isinstance(one, Mapping):
        raise UsageError(f"found {_shown(one)}; use a dict, an object with model_dump(), or a turncell.Message")
    return cast(Shape, one)


def _mapping(one: Any) -> Shape:
    return one if isinstance(one, Mapping) else {}


def _shown(value: Any) -> str:
    said = repr(value)
    said = said if len(said) <= 120 else f"{said[:119]}…"
    return (
        said if isinstance(value, str | int | float | list | dict | tuple | None) else f"{type(value).__name__}: {said}"
    )
