"""Stream assembly: fragments of a provider's stream become the blocks of a message.

Providers disagree about how the pieces of a tool call belong together. In the wild: ids only on the first piece,
or on none; every index 0, or none at all, or the first one 1; the name repeated on each piece, or late. The rules,
in this order (`Assembly.join`):

1. an id that is known names its call; an unknown id begins a call, or fills in the id of the latest call (at that
   index, where there is one) if that one has none yet. A piece with an index and a fresh id that can only go on in the
   middle of the arguments begins none: there are servers that make up an id for every piece;
2. without an id, the latest call at that index goes on, unless the piece names another tool, or the call's
   arguments are already whole and the piece begins new ones: then a call begins (of the same tool, if it has no name).
   An empty piece never begins one: servers that repeat the name also send it with the last, empty piece, and a call
   made of that would run;
3. without id and index, the same holds for the latest call of all. A call that began without an index gets that of
   the next piece without an id;
4. `{}` may be a placeholder: a piece with an index, and without an id and a name, takes its place.

What cannot be told apart: pieces without ids, each with the name, after a placeholder (two calls, as in rule 2), and a
fresh id on a piece that could as well begin a call (a name, or arguments that begin with `{`).

Text is kept as a rope of doubling pieces: appending costs O(log n) amortised, the values stay immutable, and
nobody copies the whole answer for every token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from turncell.core.events import CostBasis, FinishReason
from turncell.core.parts import Image, Part, Reasoning, Text, ToolCall, Usage

Rope: TypeAlias = tuple[str, ...]


def rope_add(rope: Rope, text: str) -> Rope:
    """Append, merging neighbours so that each piece is longer than the one after it.

    >>> rope_add(rope_add(("abcd",), "e"), "f")
    ('abcd', 'ef')
    """
    pieces = list(rope)
    while pieces and len(pieces[-1]) <= len(text):
        text = pieces.pop() + text
    pieces.append(text)
    return tuple(pieces)


# What model adapters yield, in lists (bursts): as many as one network read brought. A piece of text is a `str`.


@dataclass(slots=True)
class ReasoningFragment:
    text: str
    signature: str | None = None


@dataclass(slots=True)
class CallFragment:
    """A piece of a tool call; each field only where the provider gave it."""

    index: int | None = None
    provider_id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(slots=True)
class Finished:
    """The provider said that this was all. A stream that ends without one is a failure."""

    finish_reason: FinishReason
    usage: Usage = Usage()
    cost_usd: float | None = None
    cost_basis: CostBasis = "none"
    answered_by: str | None = None


@dataclass(slots=True)
class ImageFragment:
    """An image that the model has made, whole. `data` is base64 when `media_type` is set, otherwise a URL."""

    data: str
    media_type: str | None = None


Fragment: TypeAlias = str | ReasoningFragment | CallFragment | ImageFragment | Finished


@dataclass(frozen=True, slots=True)
class Block:
    """One open part of the message that is being written."""

    kind: Literal["text", "reasoning", "call"]
    rope: Rope = ()
    call_id: str = ""
    name: str = ""
    signature: str | None = None
    index: int | None = None
    provider_id: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.rope)


@dataclass(frozen=True, slots=True)
class Assembly:
    """The blocks of one model answer so far, in the order in which they began."""

    blocks: tuple[Block, ...] = ()
    images: tuple[Image, ...] = ()
    """Beside the blocks: nobody sees one grow, and a block is known by its number. In the message they stand last."""

    def add(self, kind: Literal["text", "reasoning"], text: str, signature: str | None = None) -> tuple[Assembly, int]:
        """Grow the last block if it is of this kind, else begin one. Returns the assembly and the block's number."""
        number = len(self.blocks) - 1
        if number >= 0 and self.blocks[number].kind == kind and not self.blocks[number].signature:
            old = self.blocks[number]
            rope = rope_add(old.rope, text)
            grown = Block(old.kind, rope, old.call_id, old.name, signature, old.index, old.provider_id)
            return Assembly((*self.blocks[:number], grown), self.images), number
        return Assembly((*self.blocks, Block(kind, (text,), signature=signature)), self.images), number + 1

    def join(self, piece: CallFragment, call_id_prefix: str) -> tuple[Assembly, int]:
        """Put a piece of a call where it belongs. Returns the assembly and the block's number."""
        calls = [(number, block) for number, block in enumerate(self.blocks) if block.kind == "call"]
        number = _find(calls, piece) if calls else None
        if number is None:
            last = calls[-1][1] if calls else None
            name = piece.name or ("" if piece.provider_id or last is None or last.index != piece.index else last.name)
            begun = (piece.arguments,) if piece.arguments else ()
            block = Block(
                "call", begun, f"{call_id_prefix}{len(calls) + 1}", name, None, piece.index, piece.provider_id
            )
            return Assembly((*self.blocks, block), self.images), len(self.blocks)
        old = self.blocks[number]
        rope = () if _is_placeholder(old, piece) else old.rope
        block = Block(
            "call",
            rope_add(rope, piece.arguments) if piece.arguments else rope,
            old.call_id,
            old.name or piece.name or "",
            old.signature,
            piece.index if old.index is None else old.index,
            old.provider_id or piece.provider_id,
        )
        return Assembly((*self.blocks[:number], block, *self.blocks[number + 1 :]), self.images), number

    def show(self, piece: ImageFragment) -> Assembly:
        return Assembly(self.blocks, (*self.images, Image(piece.data, piece.media_type)))

    def parts(self, *, with_calls: bool = True) -> tuple[Part, ...]:
        """The message's parts; empty text is no part. A call that never got a name keeps its empty one."""
        parts: list[Part] = []
        for block in self.blocks:
            part = _part(block) if with_calls or block.kind != "call" else None
            if part is not None:
                parts.append(part)
        return (*parts, *self.images)

    @property
    def has_content(self) -> bool:
        return bool(self.images) or any(block.kind == "call" or any(block.rope) for block in self.blocks)


NOTHING = Assembly()
"""Before a model has said anything."""


def _find(calls: list[tuple[int, Block]], piece: CallFragment) -> int | None:
    """The number of the block that the piece belongs to; None: it begins a call. There are calls already."""
    candidates = calls if piece.index is None else [(n, b) for n, b in calls if b.index == piece.index]
    if piece.provider_id:
        for number, block in calls:
            if block.provider_id == piece.provider_id:
                return number
        if candidates and candidates[-1][1].provider_id:
            return candidates[-1][0] if _only_goes_on(candidates[-1][1], piece) else None
    elif not candidates and calls[-1][1].index is None:
        candidates = calls
    if not candidates or _begins_another(candidates[-1][1], piece):
        return None
    return candidates[-1][0]


def _only_goes_on(block: Block, piece: CallFragment) -> bool:
    """It stands at the index of a call in the middle of its arguments, and has nothing that a call begins with."""
    is_open = bool(block.rope) and block.rope[-1].rstrip()[-1:] != "}"
    return piece.index is not None and is_open and not piece.name and _goes_on(piece.arguments)


def _goes_on(arguments: str) -> bool:
    return bool(arguments) and not arguments.lstrip().startswith("{")


def _is_placeholder(block: Block, piece: CallFragment) -> bool:
    is_bare = piece.index is not None and not piece.provider_id and not piece.name
    return is_bare and piece.arguments.lstrip().startswith("{") and block.rope == ("{}",)


def _begins_another(block: Block, piece: CallFragment) -> bool:
    if piece.name and block.name and piece.name != block.name:
        return True
    if not piece.arguments.lstrip().startswith("{") or _is_placeholder(block, piece):
        return False
    # Only text that ends like an object is worth parsing: long arguments would else cost the square of their pieces.
    end = block.rope[-1].rstrip() if block.rope else "-"
    return (not end or end[-1] == "}") and _is_whole(block.text)


def _is_whole(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


def _part(block: Block) -> Part | None:
    if block.kind == "call":
        return ToolCall(block.call_id, block.name, block.text, block.provider_id)
    text = block.text
    if not text and not block.signature:
        return None
    return Text(text) if block.kind == "text" else Reasoning(text, block.signature)


def assemble(fragments: Iterable[Fragment]) -> tuple[Part, ...]:
    """All fragments at once: what tests and one-shot callers want.

    >>> assemble(["Hel", "lo", CallFragment(0, "a", "f", '{"x":'), CallFragment(0, None, None, "1}")])
    (Text(text='Hello', type='text'), ToolCall(call_id='call_1', name='f', arguments_text='{"x":1}', provider_id='a', type='tool_call'))
    """
    assembly = Assembly()
    for fragment in fragments:
        if isinstance(fragment, str):
            assembly, _ = assembly.add("text", fragment)
        elif isinstance(fragment, ReasoningFragment):
            assembly, _ = assembly.add("reasoning", fragment.text, fragment.signature)
        elif isinstance(fragment, CallFragment):
            assembly, _ = assembly.join(fragment, "call_")
        elif isinstance(fragment, ImageFragment):
            assembly = assembly.show(fragment)
    return assembly.parts()
