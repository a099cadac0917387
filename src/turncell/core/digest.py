"""Digests: the name of exactly this call of this tool with exactly these arguments.

An approval is bound to a digest, never to a position or a name: what a person saw is what runs.
"""

from __future__ import annotations

import hashlib
import json
import re

import orjson

from turncell.core.parts import Json


def canonical_json(value: Json) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII only.

    >>> canonical_json({"b": 1, "a": "\\u00e9"})
    '{"a":"\\\\u00e9","b":1}'
    """
    try:
        quick = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        if quick.isascii() and not _DIFFERS.search(quick):
            return quick.decode()
    except TypeError:
        pass
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


_DIFFERS = re.compile(rb"null|\d[eE]")
"""Where orjson, at a tenth of the price, writes another text than the standard library: floats with an exponent, and NaN,
which becomes null. (And what is not ASCII.)"""


def call_digest(tool: str, arguments: Json) -> str:
    """SHA-256 (hex) over the tool's name and its validated arguments.

    >>> call_digest("mail", {"to": "a", "n": 1}) == call_digest("mail", {"n": 1, "to": "a"})
    True
    """
    return hashlib.sha256(canonical_json([tool, arguments]).encode()).hexdigest()
