"""Characters that a server has cut in two: those beyond U+FFFF, where text is cut by the units of UTF-16.

The halves come as lone surrogates, in two pieces of one text. orjson refuses to read them, and nothing can encode them: no
journal, no page, no later request. They become the one character again where they follow each other, whatever the text is;
so the half that a piece ends with waits for the next piece. A half that stays alone becomes U+FFFD. One that an answer breaks off with
is never said.

What is whole costs nothing: readings take orjson's way until it refuses an event, and only from then on look at what they say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

import orjson

from turncell.adapters.chat_format import clean
from turncell.core.deltas import CallFragment, Fragment, ReasoningFragment


def decode(data: bytes) -> Any:
    """JSON of a provider, with what orjson refuses and a reader can live with: halves of characters, what is no UTF-8
    (U+FFFD, as the HTML standard has it for events), NaN. ValueError, orjson's own, for what is no JSON.

    >>> decode(b'{"content": "\\\\ud83d"}') == {"content": chr(0xD83D)}
    True
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise error from None


class Halves:
    """Makes the pieces of one answer whole, in the order in which they come."""

    def __init__(self) -> None:
        self._waiting: dict[_Place, tuple[str, Fragment]] = {}
        """What the latest piece of a text has ended with, and how it is said if it stays alone."""

    def joined(self, fragments: Iterable[Fragment]) -> list[Fragment]:
        """The pieces without halves, as far as nothing of them must wait."""
        found: list[Fragment] = []
        for fragment in fragments:
            if isinstance(fragment, str | ReasoningFragment | CallFragment):
                self._join(fragment, found)
            else:
                found += self.rest()
                found.append(fragment)
        return found

    def rest(self) -> list[Fragment]:
        """What still waits when nothing comes any more."""
        found = [alone for _, alone in self._waiting.values()]
        self._waiting.clear()
        return found

    def _join(self, piece: _Piece, found: list[Fragment]) -> None:
        if isinstance(piece, str) and not self._waiting and piece.isascii():
            found.append(piece)
            return
        place, text = _place(piece), _text(piece)
        for other in list(self._waiting):
            # Calls are written side by side; other texts end where something else begins.
            if other == place:
                half, alone = self._waiting.pop(place)
                if "\udc00" <= text[:1] <= "\udfff":
                    text = half + text
                else:
                    found.append(alone)
            elif other[0] is not CallFragment:
                found.append(self._waiting.pop(other)[1])
        is_closed = isinstance(piece, ReasoningFragment) and piece.signature
        if "\ud800" <= text[-1:] <= "\udbff" and not is_closed:
            self._waiting[place] = text[-1], _alone(piece)
            text = text[:-1]
        whole = _with(piece, clean(text))
        if whole not in _NOTHING:
            found.append(whole)


_Piece: TypeAlias = str | ReasoningFragment | CallFragment
_Place: TypeAlias = tuple[type, int | None]


def _place(piece: _Piece) -> _Place:
    return type(piece), piece.index if isinstance(piece, CallFragment) else None


def _text(piece: _Piece) -> str:
    if isinstance(piece, str):
        return piece
    return piece.arguments if isinstance(piece, CallFragment) else piece.text


def _with(piece: _Piece, text: str) -> _Piece:
    if isinstance(piece, str):
        return text
    if isinstance(piece, ReasoningFragment):
        return ReasoningFragment(text, piece.signature and clean(piece.signature))
    name, provider_id = piece.name and clean(piece.name), piece.provider_id and clean(piece.provider_id)
    return CallFragment(piece.index, provider_id, name, text)


def _alone(piece: _Piece) -> Fragment:
    if isinstance(piece, CallFragment):
        return _with(CallFragment(piece.index, piece.provider_id), _REPLACED)
    return _with(piece, _REPLACED)


_REPLACED = "\ufffd"
_NOTHING = ("", ReasoningFragment(""))
