"""Parts: what messages are made of. Plain values; JSON can hold every one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any
"""What JSON can hold: None, bool, int, float (finite), str, list, dict with str keys."""

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text in a message."""

    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought aloud. `signature` is the provider's seal, given back unchanged."""

    text: str
    signature: str | None = None
    type: Literal["reasoning"] = "reasoning"


@dataclass(frozen=True, slots=True)
class Image:
    """An image: `data` is base64 when `media_type` is set, otherwise a URL."""

    data: str
    media_type: str | None = None
    type: Literal["image"] = "image"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model asked for, as it wrote it.

    `call_id` is ours and unique in the store; `provider_id` is the model's own name for the call, kept because
    some providers want it back to the letter.
    """

    call_id: str
    name: str
    arguments_text: str
    provider_id: str | None = None
    type: Literal["tool_call"] = "tool_call"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The answer to one call, as the model reads it, and the images that it sees with it."""

    call_id: str
    name: str
    content: str
    is_error: bool = False
    provider_id: str | None = None
    images: tuple[Image, ...] = ()
    type: Literal["tool_result"] = "tool_result"


Part: TypeAlias = Text | Reasoning | Image | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    `role` is "user", "assistant", "tool" or "system"; `parts` are Text, Image, reasoning, tool calls and tool results;
    `is_partial` marks an answer that was cut off.
    """

    role: Role
    parts: tuple[Part, ...]
    is_partial: bool = False

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join([part.text for part in self.parts if isinstance(part, Text)])

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls that it asks for."""
        return tuple([part for part in self.parts if isinstance(part, ToolCall)])


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call. None is unknown, which is not zero.

    `input_tokens` includes what was read from and written to the provider's cache; `output_tokens` includes
    `reasoning_tokens`. `is_estimated`: some of the counts were estimated here, not said by the provider.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    is_estimated: bool = False


SEEN = "application/vnd.turncell.seen+json"
"""In a mime bundle of a result: its image is one that the model sees, too. So it stands in the journal once."""


def seen_images(display: Iterable[Mapping[str, Json]]) -> tuple[Image, ...]:
    """The images of a result that are the model's, too. What is no image with its base64 is left out."""
    return tuple(
        Image(data, kind)
        for bundle in display
        if bundle.get(SEEN) is True
        for kind, data in bundle.items()
        if kind in IMAGE_TYPES and isinstance(data, str)
    )


IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What models see, and pages show."""
MAX_DEPTH = 100
"""Levels of nesting of a call's arguments: far more than any tool wants, far less than what Python can take."""


def depth(value: Json) -> int:
    """Levels of lists and objects; counted level by level, because recursion is what must not be asked of it.

    >>> depth(1), depth([]), depth({"a": [1, {"b": 2}]})
    (0, 1, 3)
    """
    levels, found = 0, [value]
    while found:
        is_level = False
        inner: list[Json] = []
        for one in found:
            if isinstance(one, dict):
                is_level = True
                inner += one.values()
            elif isinstance(one, list):
                is_level = True
                inner += one
        levels += is_level
        found = inner
    return levels
