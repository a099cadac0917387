"""Every test has a history and secrets of its own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from turncell import settings
from turncell.runtime import defaults, secrets

# The same examples every time, so that a run tells of the change and not of chance; `make test-full` tries new ones. How
# long one takes is the machine's matter.
hypothesis_settings.register_profile(
    "turncell",
    derandomize="TURNCELL_FULL" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("turncell")


_journals: deque[str] = deque()
MOST_JOURNALS = 100
"""Each has three open files, and `select`, which some libraries still use, knows 1,024. The runs of the oldest have long ended."""


@pytest.fixture(autouse=True)
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path, before = tmp_path / "history.sqlite", {*defaults._journals}
    monkeypatch.setenv("TURNCELL_STORE", str(path))
    settings.use(settings.Settings.from_environment())
    yield path
    monkeypatch.undo()
    settings.use(settings.Settings.from_environment())
    _journals.extend(defaults._journals.keys() - before)
    while len(_journals) > MOST_JOURNALS:
        defaults._journals.pop(_journals.popleft()).close()


@pytest.fixture(autouse=True)
def own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is no secret in the next one; nothing else takes back a declaration."""
    monkeypatch.setattr(secrets, "_declared", {})
    monkeypatch.setattr(secrets, "_patterns", [])
    monkeypatch.setattr(secrets, "_redactor", None)
