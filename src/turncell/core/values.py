"""`evolve`: what `dataclasses.replace` does, for the slotted values of the core, at half its price.

The fold makes some forty new values in a step, so this is most of what a step costs. It copies slots without running
`__init__`, which has nothing to check here: values are typed inside, and what comes from outside was validated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

V = TypeVar("V")


def evolve(value: V, **changes: Any) -> V:
    """A copy of a slotted dataclass with some fields changed. KeyError for a field that it does not have.

    >>> from turncell.core.parts import Text
    >>> evolve(Text("a"), text="b")
    Text(text='b', type='text')
    """
    kind = type(value)
    read, setters, setter_of = _known.get(kind) or _slots(kind)
    copy = object.__new__(kind)
    for put, old in zip(setters, read(value), strict=True):
        put(copy, old)
    for name, new in changes.items():
        setter_of[name](copy, new)
    return copy


_Slots: TypeAlias = tuple[
    Callable[[Any], tuple[Any, ...]], tuple[Callable[..., None], ...], dict[str, Callable[..., None]]
]
_known: dict[type, _Slots] = {}


def _slots(kind: type[Any]) -> _Slots:
    """How to read all fields of a class, how to write all, and how to write each."""
    names = [field.name for field in fields(kind)]
    if len(names) < 2:
        raise TypeError(f"{kind.__name__} has fewer than two fields: make a new one")
    setters = {name: getattr(kind, name).__set__ for name in names}
    known = _known[kind] = (attrgetter(*names), tuple(setters.values()), setters)
    return known
