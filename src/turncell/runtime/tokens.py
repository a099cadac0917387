"""How many tokens something is, estimated without a tokenizer and without network.

Tokenizers of today make a token of some four ASCII characters, of two letters of the other alphabets of Europe and the Near
East, and of about one character of the scripts of Asia; an emoji takes two or three. That is within a third of the truth
for prose and further off for digits and encoded data; what the provider counted last corrects it (`ratio_of`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from turncell.core.parts import Image, Message, Reasoning, Text, ToolCall, Usage
from turncell.core.values import evolve

if TYPE_CHECKING:
    from turncell.runtime.ports import ToolSpec

IMAGE_TOKENS = 1_200
"""A picture of about a million pixels; providers scale larger ones down."""
MESSAGE_TOKENS = 4
"""What stands around a message on the wire."""
CALL_TOKENS = 8
_SAID = (Text, Reasoning)
LEAST_RATIO, MOST_RATIO = 0.5, 4.0
"""How far a provider's count moves an estimate: more than that is another mistake than that of an estimate."""


def text_tokens(text: str) -> int:
    """
    >>> text_tokens(""), text_tokens("four"), text_tokens("a fine day"), text_tokens("Привет, мир"), text_tokens("今日は晴れです")
    (0, 1, 3, 5, 7)
    """
    if text.isascii():
        return (len(text) + 3) // 4
    size = len(text.encode("utf-8", "surrogatepass"))
    beyond = len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)  # characters of four bytes
    ascii_chars = len(text.encode("ascii", "ignore"))
    others = len(text) - ascii_chars - beyond
    wide = size - ascii_chars - 4 * beyond - 2 * others  # of three bytes; the rest of the others has two
    return round(ascii_chars / 4 + (others - wide) / 2 + wide + 2.5 * beyond + 0.499)


def message_tokens(message: Message) -> int:
    tokens = MESSAGE_TOKENS
    for part in message.parts:
        texts: tuple[str, ...]
        if isinstance(part, _SAID):
            texts = (part.text,)
            if isinstance(part, Reasoning):
                # What goes back of it may be much longer: pages that a provider's own tool has found.
                texts = (max(part.text, part.signature or "", key=len),)
        elif isinstance(part, Image):
            tokens += IMAGE_TOKENS
            continue
        elif isinstance(part, ToolCall):
            tokens += CALL_TOKENS
            texts = (part.name, part.arguments_text)
        else:
            tokens += CALL_TOKENS + IMAGE_TOKENS * len(part.images)
            texts = (part.content,)
        for text in texts:
            # The first line of `text_tokens`, which each message of each step would else call for each of its texts.
            tokens += (len(text) + 3) // 4 if text.isascii() else text_tokens(text)
    return tokens


def tools_tokens(specs: Iterable[ToolSpec]) -> int:
    return sum(
        CALL_TOKENS + text_tokens(spec.name + spec.description + json.dumps(spec.schema, ensure_ascii=False))
        for spec in specs
    )


def completed(usage: Usage, input_tokens: int, said: Message) -> Usage:
    """The provider's counts, with an estimate in the place of each that it has left out; such usage is marked.

    >>> completed(Usage(7), 5, Message("assistant", (Text("Fine."),)))
    Usage(input_tokens=7, output_tokens=2, cache_read_tokens=None, cache_write_tokens=None, reasoning_tokens=None, is_estimated=True)
    """
    if usage.input_tokens is not None and usage.output_tokens is not None:
        return usage
    return evolve(
        usage,
        input_tokens=input_tokens if usage.input_tokens is None else usage.input_tokens,
        output_tokens=message_tokens(said) - MESSAGE_TOKENS if usage.output_tokens is None else usage.output_tokens,
        is_estimated=True,
    )


def ratio_of(true_tokens: int | None, estimated_tokens: int) -> float:
    """By what an estimate is multiplied, after what the provider has counted.

    >>> ratio_of(150, 100), ratio_of(None, 100), ratio_of(1, 100)
    (1.5, 1.0, 0.5)
    """
    if not true_tokens or estimated_tokens <= 0:
        return 1.0
    return min(MOST_RATIO, max(LEAST_RATIO, true_tokens / estimated_tokens))
