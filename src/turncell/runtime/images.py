"""Images, from what people and tools have in hand: files, bytes, PIL images, figures.

What an image is, its bytes say, not its name; and what no provider takes is refused here, in words, before a run begins.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from turncell.core.parts import Image, Message, Part, Text, ToolResult
from turncell.core.values import evolve
from turncell.errors import UsageError
from turncell.runtime.ports import Model, ModelRequest, capabilities_of

MOST_BYTES = 5_000_000
"""Of one image in a prompt: the least of what the great providers take."""
_FIRST_BYTES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF87a": "image/gif", b"GIF89a": "image/gif"}  # fmt: skip

_DRAWN_AS = {
    "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB", "RGBX": "RGB", "PA": "RGBA", "RGBa": "RGBA", "La": "LA",
}  # fmt: skip
"""Modes of PIL images that PNG does not have and that mean colours. Others (`F`, `I`) mean numbers, of any range."""


def image(source: Any) -> Image:
    """An image for a prompt, or for a tool to return: of a path, bytes, a URL, a PIL image or a matplotlib figure.

    UsageError for what is none, is no PNG, JPEG, GIF or WebP, or has more than 5 MB.

    >>> image("https://example.org/a.png")
    Image(data='https://example.org/a.png', media_type=None, type='image')
    """
    if isinstance(source, Image):
        return _checked(source)
    if isinstance(source, str) and source.startswith(("https://", "http://", "data:")):
        return _checked(Image(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _packed(bytes(source), "the bytes")
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        try:
            size_bytes = path.stat().st_size
            return _packed(path.read_bytes() if size_bytes <= MOST_BYTES else b"", str(path), size_bytes)
        except OSError as error:
            raise UsageError(f"the image {str(path)!r} cannot be read: {error.strerror or error}") from error
    data = png_of(source)
    if data is None and comes_from(source, "PIL", "Image"):
        raise UsageError(
            f"a PIL image of mode {source.mode!r} cannot be drawn as PNG; scale its values and use source.convert('RGB')"
        )
    if data is None:
        raise UsageError(
            f"an image is a path, bytes, a URL, a PIL image or a matplotlib figure; found {type(source).__name__}"
        )
    return _packed(data, f"the {type(source).__name__}")


def as_parts(prompt: Sequence[Any]) -> tuple[Part, ...]:
    """The parts of a prompt that is a list: texts, and what `image` takes but for a str."""
    return tuple(
        Text(item) if isinstance(item, str) else item if isinstance(item, Text) else image(item) for item in prompt
    )


def media_type_of(data: bytes) -> str | None:
    """
    >>> media_type_of(b"GIF89a..."), media_type_of(b"BM")
    ('image/gif', None)
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _FIRST_BYTES.items() if data.startswith(start)), None)


def png_of(value: Any) -> bytes | None:
    """What shows itself as PNG: a matplotlib figure (or axes, which is what `plot` returns), or by `_repr_png_`."""
    if comes_from(value, "matplotlib", "Axes", "SubFigure"):
        value = getattr(value.figure, "figure", value)  # of a part of a figure, the whole
    if comes_from(value, "matplotlib", "Figure"):
        buffer = BytesIO()
        value.savefig(buffer, format="png")
        return buffer.getvalue()
    if comes_from(value, "PIL", "Image") and value.mode in _DRAWN_AS:
        value = value.convert(_DRAWN_AS[value.mode])
    # Of the class: an object that answers to any attribute has no picture.
    if not comes_from(value, "PIL", "Image") and not callable(getattr(type(value), "_repr_png_", None)):
        return None
    try:
        data = value._repr_png_()
    except Exception:
        return None
    data = data[0] if isinstance(data, tuple) else data
    if isinstance(data, str):
        data = base64.b64decode(data)
    return data if isinstance(data, bytes) and media_type_of(data) == "image/png" else None


def comes_from(value: Any, package: str, *names: str) -> bool:
    """By the names of its classes, so that nothing is imported for it."""
    return any(kind.__name__ in names and kind.__module__.split(".")[0] == package for kind in type(value).__mro__)


def as_seen_by(model: Model, request: ModelRequest) -> ModelRequest:
    """The request as a model can take it: one that cannot see is told in words where an image stands."""
    if capabilities_of(model).images is not False:
        return request
    messages = tuple(_in_words(message) for message in request.messages)
    if all(new is old for new, old in zip(messages, request.messages, strict=True)):
        return request
    return evolve(request, messages=messages)


def _in_words(message: Message) -> Message:
    if not any(isinstance(part, Image) or (isinstance(part, ToolResult) and part.images) for part in message.parts):
        return message
    return evolve(message, parts=tuple(map(_words, message.parts)))


def _words(part: Part) -> Part:
    if isinstance(part, Image):
        what = (
            f"{part.media_type}, {len(part.data) * 3 // 4 - part.data[-2:].count('='):,} bytes"
            if part.media_type
            else part.data
        )
        return Text(f"[an image that this model cannot see: {what}]")
    if isinstance(part, ToolResult) and part.images:
        return evolve(part, images=())  # its text has said what it is
    return part


def _packed(data: bytes, name: str, size_bytes: int | None = None) -> Image:
    size_bytes = len(data) if size_bytes is None else size_bytes
    if size_bytes > MOST_BYTES:
        raise UsageError(f"{name}: an image of {size_bytes:,} bytes, where {MOST_BYTES:,} may be sent; make it smaller")
    kind = media_type_of(data)
    if kind is None:
        raise UsageError(
            f"{name}: no PNG, JPEG, GIF or WebP, which is what models see; it begins with {data[:12]!r}; "
            "convert it, for example with PIL"
        )
    return Image(base64.b64encode(data).decode("ascii"), kind)


def _checked(given: Image) -> Image:
    """One that was made by hand: base64 of a known kind, or a URL."""
    data: Any = given.data
    media_type = given.media_type
    if isinstance(data, str) and data.startswith("data:"):
        head, comma, data = data.partition(",")
        if not comma or not head.endswith(";base64"):
            raise UsageError(f"a data URL of an image is 'data:image/png;base64,...'; found {head[:60]!r}")
        media_type = head[5:-7]
    if not isinstance(data, str) or (media_type is None and not data.startswith(("https://", "http://"))):
        raise UsageError(
            f"an Image has base64 text and its media type, or a URL; found {str(data)[:40]!r}; "
            "turncell.image(...) makes one of a path or bytes"
        )
    if media_type is None:
        return given
    try:
        return _packed(base64.b64decode(data, validate=True), "the Image")
    except binascii.Error as error:
        raise UsageError(f"the data of an Image is no base64: {error}; turncell.image(...) makes one") from error
