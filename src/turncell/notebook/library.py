"""The page's code, once for each kernel: every widget names the libraries that hold its bundle (see `js/src/loader.ts`).

A front end is sent `_esm` and `_css` with each instance of a widget: without the loader thirty runs would send the bundle
thirty times. A page that is reloaded gets the libraries from the kernel with the other widgets, and a notebook that saves
widgets saves them once.

marimo is the exception. It closes a widget with the cell that made it, gives none to the other pages of an app, and answers
no message of a page before all cells have run; but it serves a module by address, and a page fetches each address once.
There the code stands in the module (`module`), and no library is opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import ipywidgets
import traitlets

Name = Literal["widget", "kit"]
STATIC = Path(__file__).parent / "static"
LOADER = STATIC / "loader.js"


class Library(ipywidgets.Widget):
    """A bundle and its style sheet. Never shown."""

    code = traitlets.Unicode("").tag(sync=True)
    sheet = traitlets.Unicode("").tag(sync=True)

    def __init__(self, name: Name) -> None:
        super().__init__(code=_text(f"{name}.js"), sheet=_text(f"{name}.css"))


_open: dict[Name, Library] = {}


def library(name: Name) -> str:
    """The id of the library, which is made when it is first asked for, and again when somebody has closed it."""
    known = _open.get(name)
    if known is None or known.comm is None:
        known = _open[name] = Library(name)
    return str(known.model_id)


def by_id(library_id: str) -> Library | None:
    """The library of this id, for a host that cannot look it up by itself."""
    return next((each for each in _open.values() if each.comm is not None and each.model_id == library_id), None)


@cache
def module(names: Sequence[Name]) -> tuple[list[str], str]:
    """Ids for these bundles, and a module that brings them: the loader with their sources in front."""
    sources = {name: {"code": _text(f"{name}.js"), "sheet": _text(f"{name}.css")} for name in names}
    # By content: a page may hold what two versions have made.
    ids = {name: hashlib.sha256(json.dumps(source).encode()).hexdigest() for name, source in sources.items()}
    brought = "".join(f"at.set({json.dumps(ids[name])},{json.dumps(source)});" for name, source in sources.items())
    return list(
        ids.values()
    ), f'{{const at=globalThis[Symbol.for("turncell.brought")]??=new Map();{brought}}}\n' + LOADER.read_text("utf-8")


def _text(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
