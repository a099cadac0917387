"""`evolve`: what `dataclasses.replace` does, for the slotted values of the core, at half its price.

The fold makes some forty new values in a step, so this is most of what a step costs. It copies slots without running
`__init__`, which has nothing to check here: values are typed inside, and what comes from outside was validated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

V = TypeVar("V")


def evolve(value: V, **changes: Any) -> V:
    """A copy of a slotted dataclass with some fields changed. KeyError for a field that it does not have.

    >>> from turncell.core.parts import Text
    >>> evolve(Text("a"), text="b")
    Text(text='b', type='text')
    """
    kind = type(value)
    read, setters, setter_of = _slots(kind)  # type: ignore[arg-type]  # a class is hashable
    copy = kind.__new__(kind)
    for put, old in zip(setters, read(value), strict=True):
        put(copy, old)
    for name, new in changes.items():
        setter_of[name](copy, new)
    return copy


@cache
def _slots(kind: type) -> tuple[attrgetter[Any], tuple[Callable[..., None], ...], dict[str, Callable[..., None]]]:
    names = [field.name for field in fields(kind)]
    if len(names) < 2:
        raise TypeError(f"{kind.__name__} has fewer than two fields: make a new one")
    setters = {name: getattr(kind, name).__set__ for name in names}
    return attrgetter(*names), tuple(setters.values()), setters
