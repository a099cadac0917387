"""The page's code, once for each kernel: every widget names the libraries that hold its bundle (see `js/src/loader.ts`).

A front end is sent `_esm` and `_css` with each instance of a widget: without the loader thirty runs would send the bundle
thirty times. A page that is reloaded gets the libraries from the kernel with the other widgets, and a notebook that saves
widgets saves them once.
"""

from __future__ import annotations

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


def _text(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
