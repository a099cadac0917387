"""`evolve`: what `dataclasses.replace` does, for the values of the core, at a tenth of its price.

The loop makes some twenty-five such copies in a step, a good part of what it costs. The values that change often (the
states) therefore have a `__dict__`, whose copy costs the same for thirty fields as for three; slotted values are
copied slot by slot. Neither runs `__init__`, which has nothing to check here: values are typed inside, and what comes
from outside was validated.

`copied`: the JSON inside such a value is not frozen; what code of other people may change is not what the loop goes by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

V = TypeVar("V")
_put_dict = object.__setattr__


def evolve(value: V, **changes: Any) -> V:
    """A copy of a frozen dataclass with some fields changed. KeyError for a field that it does not have.

    >>> from turncell.core.parts import Text
    >>> evolve(Text("a"), text="b")
    Text(text='b', type='text')
    """
    kind = type(value)
    copy = object.__new__(kind)
    old = getattr(value, "__dict__", None)
    if old is None:
        read, setters, setter_of = _slots(kind)  # type: ignore[arg-type]  # a class is hashable
        for put, field in zip(setters, read(value), strict=True):
            put(copy, field)
        for name, new in changes.items():
            setter_of[name](copy, new)
        return copy
    new = old | changes  # a copy of the whole at once; filling an empty one takes twice as long
    if len(new) != len(old):
        raise KeyError(f"{kind.__name__} has no field {', '.join(changes.keys() - old.keys())}")
    _put_dict(copy, "__dict__", new)
    return copy


def copied(value: Any) -> Any:
    """A JSON value with lists and objects of its own: what is handed to code of other people, who may change it.

    >>> given = {"to": ["ana"]}
    >>> copied(given)["to"].append("bo")
    >>> given
    {'to': ['ana']}
    """
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


@cache
def _slots(kind: type) -> tuple[attrgetter[Any], tuple[Callable[..., None], ...], dict[str, Callable[..., None]]]:
    names = [field.name for field in fields(kind)]
    if len(names) < 2:
        raise TypeError(f"{kind.__name__} has fewer than two fields: make a new one")
    setters = {name: getattr(kind, name).__set__ for name in names}
    return attrgetter(*names), tuple(setters.values()), setters
