"""Files that only their owner may read: a history tells what was said. What is there already is left as it is."""

from __future__ import annotations

import os
from pathlib import Path


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=opener)`. Where a system has no such modes, as Windows, its own rules hold."""
    return os.open(path, flags, 0o600)


def make_folder(path: Path) -> None:
    """With those around it that are missing. OSError where it cannot be made."""
    if not path.parent.exists():
        make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
