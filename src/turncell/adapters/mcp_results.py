"""What an MCP server returns, as a result of a tool."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from turncell.core.parts import SEEN, Image
from turncell.errors import UsageError
from turncell.runtime.images import image
from turncell.runtime.output import DETAILS_LIMIT, Output, shorten, to_json

if TYPE_CHECKING:
    from mcp_types import CallToolResult


def output_of(result: CallToolResult) -> Output:
    """Texts for the model, images for it and for people, and structured content for programs."""
    said: list[str] = []
    shown: list[dict[str, Any]] = []
    for block in result.content:
        kind: Any = block
        if block.type == "text":
            said.append(kind.text)
        elif block.type == "image":
            said.append(_image(kind.data, kind.mime_type, shown))
        elif block.type == "audio":
            said.append(f"[audio, {kind.mime_type}, {_size_bytes(kind.data):,} bytes, not shown]")
        elif block.type == "resource_link":
            about = f": {kind.description}" if kind.description else ""
            said.append(f"[a resource that can be read: {kind.name}, {kind.uri}{about}]")
        elif block.type == "resource":
            said.append(_resource(kind.resource, shown))
    structured = result.structured_content
    if structured is not None and not said:
        said.append(json.dumps(to_json(structured), ensure_ascii=False))
    text = "\n\n".join(said) or "Done. The tool returned nothing."
    if structured is None:
        return Output(text, display=tuple(shown))
    details = to_json(structured)
    is_kept = len(json.dumps(details)) <= DETAILS_LIMIT
    return Output(text, details if is_kept else None, display=tuple(shown))


def error_of(result: CallToolResult) -> str:
    """What the server says of a call that has failed."""
    return shorten(output_of(result).content)


def _resource(resource: Any, shown: list[dict[str, Any]]) -> str:
    kind = resource.mime_type or "of an unknown type"
    if (text := getattr(resource, "text", None)) is not None:
        return f"[resource {resource.uri}, {kind}]\n{text}"
    if kind.startswith("image/"):
        return f"[resource {resource.uri}] {_image(resource.blob, kind, shown)}"
    return f"[resource {resource.uri}, {kind}, {_size_bytes(resource.blob):,} bytes, not shown]"


def _image(data: str, media_type: str, shown: list[dict[str, Any]]) -> str:
    try:
        made = image(Image(data, media_type))
        size_bytes = len(base64.b64decode(made.data))
    except (UsageError, binascii.Error) as error:
        return f"[an image, {media_type[:100]}, that cannot be shown: {str(error)[:200]}]"
    # By its bytes, not by what the server calls it.
    shown.append({made.media_type or media_type: made.data, SEEN: True})
    return f"[an image, {made.media_type}, {size_bytes:,} bytes]"


def _size_bytes(data: str) -> int:
    return len(data) * 3 // 4 - data[-2:].count("=")
