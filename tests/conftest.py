"""Every test has a history and secrets of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from turncell import settings
from turncell.runtime import secrets


@pytest.fixture(autouse=True)
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "history.sqlite"
    monkeypatch.setenv("TURNCELL_STORE", str(path))
    settings.use(settings.Settings.from_environment())
    yield path
    monkeypatch.undo()
    settings.use(settings.Settings.from_environment())


@pytest.fixture(autouse=True)
def own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is no secret in the next one; nothing else takes back a declaration."""
    monkeypatch.setattr(secrets, "_declared", {})
    monkeypatch.setattr(secrets, "_patterns", [])
    monkeypatch.setattr(secrets, "_redactor", None)
