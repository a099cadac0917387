"""`{name}`, `{obj.attr}` and `{df['c']}` in a prompt, where the name exists in the notebook; any other brace stays as typed.

Only names, attributes and items are followed, and nothing is called. `{In[3]}`, `{Out[3]}` and `{Err[3]}` are the source,
the value and the error of a cell. Objects become text by their type, at most `OBJECT_CHARS` of each; figures become images.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from turncell.core.parts import Image
from turncell.notebook.objects import as_text, is_table, picture_of

MOST_FIELDS = 50
_FIELD = re.compile(r"\{([^\W\d](?:[^{}\n]*))\}")


def interpolate(prompt: str, names: Mapping[str, Any]) -> str | list[str | Image]:
    """The prompt as it is sent: a text, or texts and images in their order. Never raises.

    >>> interpolate("{a} of {d['k']}, {unknown}, {a b} and {}", {"a": 3, "d": {"k": [1, 2]}})
    '3 of [1, 2], {unknown}, {a b} and {}'
    """
    pieces: list[str | Image] = [""]
    place = fields = 0
    for match in _FIELD.finditer(prompt):
        if fields == MOST_FIELDS:
            break
        found, value = value_at(match[1], names)
        if not found:
            continue
        fields += 1
        pieces[-1] = f"{pieces[-1]}{prompt[place : match.start()]}"
        place = match.end()
        picture = picture_of(value)
        if picture is not None:
            pieces += [picture, ""]
        else:
            text = as_text(value)
            pieces[-1] = f"{pieces[-1]}\n{text}\n" if is_table(value) else f"{pieces[-1]}{text}"
    pieces[-1] = f"{pieces[-1]}{prompt[place:]}"
    if len(pieces) == 1:
        return str(pieces[0])
    return [piece for piece in pieces if piece != ""]


def value_at(path: str, names: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether there is something at `name.attr['item']`, and what. Whatever fails on the way is nothing there.

    >>> value_at("d['k'][0]", {"d": {"k": [7]}}), value_at("d.clear()", {"d": {}})
    ((True, 7), (False, None))
    """
    try:
        return True, _follow(ast.parse(path.strip(), mode="eval").body, names)
    except (Exception, SystemExit):  # no path, nothing there, or somebody's __getitem__ that fails
        return False, None


def _follow(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.Attribute):
        return getattr(_follow(node.value, names), node.attr)
    if isinstance(node, ast.Subscript):
        return _follow(node.value, names)[_index(node.slice)]
    raise ValueError(f"a {type(node).__name__} is no name, attribute or item")


def _index(node: ast.expr) -> Any:
    """A constant, or a slice of constants."""
    if isinstance(node, ast.Slice):
        return slice(
            *(None if part is None else ast.literal_eval(part) for part in (node.lower, node.upper, node.step))
        )
    return ast.literal_eval(node)
