"""Events of earlier schema versions.

Whoever raises `events.SCHEMA_VERSION` adds the function that makes an event of the version before one of the new, and
keeps a sample of a file of the version before under tests/runtime/samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from turncell.core.events import SCHEMA_VERSION
from turncell.core.parts import Json

Upcaster = Callable[[dict[str, Json]], dict[str, Json]]

UPCASTERS: Mapping[int, Upcaster] = {}
"""By the version that they read; each gives the JSON of an event of the next one."""


def upcast(event: dict[str, Json], version: int) -> dict[str, Json]:
    """The JSON of an event that a turncell of this schema version has written, as one of today.

    >>> upcast({"type": "Resumed"}, SCHEMA_VERSION)
    {'type': 'Resumed'}
    """
    for earlier in range(version, SCHEMA_VERSION):
        event = UPCASTERS[earlier](event)
    return event
