"""What people say, as messages; and the ids of what they begin."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from turncell.core.parts import Image, Message, Text
from turncell.core.values import evolve
from turncell.errors import UsageError
from turncell.runtime.images import as_parts, image
from turncell.runtime.output import clean

Prompt: TypeAlias = str | Message | Sequence[Any]
"""A text, or texts and images in order: `["What is this?", Path("a.png")]`."""
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
"""The digits of 10 bits."""

_chance = random.Random()
"""Seeded by the system once: to ask it each time hands Python over to another thread, which takes longer than the rest."""

_EMPTY = "the prompt is empty; write what you want the agent to do"


def new_id(prefix: str) -> str:
    """An id that sorts by the time it was made: milliseconds and 40 random bits in Crockford's base 32.

    Source: the ULID specification's alphabet and order, with fewer random bits. They keep ids apart, and nothing secret.
    """
    number = (time.time_ns() // 1_000_000) << 40 | _chance.getrandbits(40)
    digits = "".join([_PAIRS[number >> bits & 1023] for bits in (80, 70, 60, 50, 40, 30, 20, 10, 0)])
    return f"{prefix}_{digits.lstrip('0')}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_chance.seed)  # else it would make the ids of its parent


def as_message(prompt: Prompt) -> Message:
    """A message of a person: a text, a Message, or a list of texts and of what `image` takes.

    Raises UsageError for what is none; lone surrogates, which no provider takes, become U+FFFD.

    >>> as_message("Hello").text
    'Hello'
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UsageError(_EMPTY)
        return Message("user", (Text(clean(prompt)),))
    if isinstance(prompt, list | tuple):
        if any(isinstance(item, Message | Mapping) for item in prompt):
            raise UsageError(
                "a prompt is what is said now, and this list has messages; what was said before is in a session: "
                "session = agent.session(messages=[...]), then session.send(...) for each prompt"
            )
        message: Any = Message("user", as_parts(prompt))
    else:
        message = prompt
    if not isinstance(message, Message):
        raise UsageError(f"a prompt is text, a list of texts and images, or a Message; found {prompt!r}")
    if message.role != "user":
        raise UsageError(f"a prompt is a message of the user; found one of the {message.role}")
    if not isinstance(cast(object, message.parts), tuple | list) or not all(map(_is_part, message.parts)):
        raise UsageError(f"the parts of a prompt are a tuple of Text and Image; found {message.parts!r}")
    if not any(part.type != "text" for part in message.parts) and not message.text.strip():
        raise UsageError(_EMPTY)
    parts = tuple(Text(clean(part.text)) if isinstance(part, Text) else image(part) for part in message.parts)
    return evolve(message, parts=parts)


def _is_part(part: Any) -> bool:
    return isinstance(part, Image) or (isinstance(part, Text) and isinstance(part.text, str))
