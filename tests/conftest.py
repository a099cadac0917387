"""Every test has a history of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from turncell import settings


@pytest.fixture(autouse=True)
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "history.sqlite"
    monkeypatch.setenv("TURNCELL_STORE", str(path))
    settings.use(settings.Settings.from_environment())
    yield path
    monkeypatch.undo()
    settings.use(settings.Settings.from_environment())
