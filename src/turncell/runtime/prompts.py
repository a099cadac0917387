"""What people say, as messages; and the ids of what they begin."""

from __future__ import annotations

import secrets
import time
from typing import Any, cast

from turncell.core.parts import Image, Message, Text
from turncell.core.values import evolve
from turncell.errors import UsageError
from turncell.runtime.output import clean

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """An id that sorts by the time it was made: milliseconds and 40 random bits in Crockford's base 32.

    Source: the ULID specification's alphabet and order, with fewer random bits.
    """
    number = (time.time_ns() // 1_000_000) << 40 | secrets.randbits(40)
    digits = ""
    while number:
        number, digit = divmod(number, 32)
        digits = _ALPHABET[digit] + digits
    return f"{prefix}_{digits}"


def as_message(prompt: str | Message) -> Message:
    """A message of a person. Raises UsageError for what is none; lone surrogates, which no provider takes, become U+FFFD.

    >>> as_message("Hello").text
    'Hello'
    """
    message = Message("user", (Text(prompt),)) if isinstance(prompt, str) else prompt
    if not isinstance(message, Message):
        raise UsageError(f"a prompt is text or a Message; found {prompt!r}")
    if message.role != "user":
        raise UsageError(f"a prompt is a message of the user; found one of the {message.role}")
    if not isinstance(cast(object, message.parts), tuple | list) or not all(map(_is_part, message.parts)):
        raise UsageError(f"the parts of a prompt are a tuple of Text and Image; found {message.parts!r}")
    if not any(part.type != "text" for part in message.parts) and not message.text.strip():
        raise UsageError("the prompt is empty; write what you want the agent to do")
    parts = tuple(Text(clean(part.text)) if isinstance(part, Text) else part for part in message.parts)
    return evolve(message, parts=parts)


def _is_part(part: Any) -> bool:
    return isinstance(part, Image) or (isinstance(part, Text) and isinstance(part.text, str))
