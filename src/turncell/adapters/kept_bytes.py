"""What messages become on the wire, each made once, so that a late step costs what an early one does.

The runtime gives the same `Message` objects again from step to step, and they never change. So a request goes on from
the latest one where it says the same and more; where it does not (conversations that take turns, a middle that was
summarised), it is told anew from what was kept of each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import is_
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from turncell.core.parts import Message
from turncell.runtime.ports import ToolSpec


class Encoded:
    """JSON, which `chat_format.encode` takes as it is, wherever it stands."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def encoded_list(pieces: Iterable[bytes]) -> Encoded:
    """What was encoded before, as a list."""
    # Each further copy of what is long gets new pages from the system: some 80 µs for 140 kB.
    whole = list(pieces)
    if not whole:
        return Encoded(b"[]")
    whole[0] = b"[" + whole[0]
    whole[-1] += b"]"
    return Encoded(b",".join(whole))


MadeT = TypeVar("MadeT")


class Kept(NamedTuple, Generic[MadeT]):
    """What is kept of one message."""

    message: Message
    """So that no other gets its id."""
    made: MadeT
    size: int
    """Of what was made, in bytes."""
    ids: dict[str, str]
    """By `call_id`, the ids on the wire that stand in it."""


class Talk(Protocol[MadeT]):
    """A conversation as one format has it. It grows message by message."""

    def copy(self) -> Self:
        """One that goes on from here; this one stays as it is."""
        ...

    def add(self, message: Message, kept: Kept[MadeT] | None) -> Kept[MadeT]:
        """Say one more message. `kept` is what was returned for it before, perhaps after other messages than these;
        what still holds of it need not be made again. Returns what is to be kept now: the same object, or another."""
        ...


TalkT = TypeVar("TalkT", bound=Talk[Any])


class KeptTalks(Generic[TalkT]):
    """The conversations with one model.

    Kept is what the last requests were made of: some `limit_bytes`, and however much one request needs.
    """

    def __init__(self, begin: Callable[[], TalkT], limit_bytes: int = 16 << 20) -> None:
        self._begin, self._limit_bytes = begin, limit_bytes
        self._new: dict[int, Kept[Any]] = {}
        self._old: dict[int, Kept[Any]] = {}
        self._new_bytes = 0
        self._last: tuple[tuple[Message, ...], TalkT] = (), begin()
        """The latest request: the next one of the same run goes on from it. Replaced as one, since several threads may ask."""
        self._tools: tuple[Sequence[ToolSpec] | None, bytes] = None, b""

    def tell(self, messages: Sequence[Message]) -> TalkT:
        """The conversation, to be read and not to be added to."""
        said, talk = self._last
        if _begin_with(messages, said):
            talk, messages_left = talk.copy(), messages[len(said) :]
        else:
            talk, messages_left = self._begin(), messages
        for message in messages_left:
            # An id is that of another message once its own is gone; what is kept here cannot be gone.
            found = self._new.get(id(message))
            kept = talk.add(message, found or self._old.get(id(message)))
            if kept is not found:
                self._new[id(message)] = kept
                self._new_bytes += kept.size
        if self._new_bytes > self._limit_bytes:
            self._old, self._new, self._new_bytes = self._new, {}, 0
        self._last = tuple(messages), talk
        return talk

    def tools(self, tools: Sequence[ToolSpec], make: Callable[[Sequence[ToolSpec]], bytes]) -> bytes:
        """What `make` makes of the tools, which are the same from step to step."""
        made_of, made = self._tools
        if made_of is not tools:
            made = make(tools)
            self._tools = tools, made
        return made


def _begin_with(messages: Sequence[Message], said: tuple[Message, ...]) -> bool:
    """Whether these are the same messages (the objects), and perhaps more."""
    if len(messages) < len(said) or (said and messages[len(said) - 1] is not said[-1]):
        return False
    return all(map(is_, said, messages))
