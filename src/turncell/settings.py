"""Settings: one frozen value, read from the environment once, replaceable in code.

Each setting is an environment variable `TURNCELL_<NAME>`; what code passes explicitly always wins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

from turncell.core.policy import MODES, Mode
from turncell.errors import SettingError


@dataclass(frozen=True, slots=True)
class Settings:
    """What applies where nothing else is said."""

    model: str = "embedded"
    """The model of agents that name none. "embedded" needs no key and no network; it is rules, not a language model."""
    mode: Mode = "ask"
    """What happens to calls that no rule names: ask, edits, plan, auto, never."""
    unattended: str = "deny"
    """What happens to calls that ask where nobody is there to answer: deny or allow."""
    max_steps: int = 40
    request_timeout_s: float = 3600.0
    """How long a request waits for a person, in seconds."""
    store: str = ""
    """Path of the SQLite file; empty: `history.sqlite` in the user's data directory."""
    echo: str = ""
    """Path of a file (or pipe) that gets each turn as plain text while it happens: for logs of unattended runs."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise SettingError(f"setting 'mode' is {self.mode!r}; use one of {', '.join(MODES)}")
        if self.unattended not in ("deny", "allow"):
            raise SettingError(f"setting 'unattended' is {self.unattended!r}; use 'deny' or 'allow'")
        if not 0 < self.request_timeout_s < float("inf"):
            raise SettingError(f"setting 'request_timeout_s' is {self.request_timeout_s}; use seconds, more than 0")
        if self.max_steps < 1:
            raise SettingError(f"setting 'max_steps' is {self.max_steps}; use 1 or more")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read `TURNCELL_*`. Raises SettingError for a value that does not fit; other variables are ignored.

        >>> Settings.from_environment({"TURNCELL_MAX_STEPS": "5"}).max_steps
        5
        """
        environment = os.environ if environment is None else environment
        values: dict[str, object] = {}
        for field in fields(cls):
            raw = environment.get(f"TURNCELL_{field.name.upper()}")
            if raw is None or raw == "":
                continue
            kind = type(getattr(cls(), field.name))
            try:
                values[field.name] = kind(raw)
            except ValueError:
                needed = "an integer" if kind is int else "a number"  # no text is unfit for the other settings
                raise SettingError(f"TURNCELL_{field.name.upper()} is {raw!r}; {needed} is needed") from None
        return cls(**values)  # type: ignore[arg-type]

    @property
    def store_path(self) -> Path:
        if self.store:
            return Path(self.store).expanduser()
        from platformdirs import user_data_path

        return user_data_path("turncell", appauthor=False) / "history.sqlite"


_current: Settings | None = None


def current() -> Settings:
    """The settings of this process."""
    global _current
    if _current is None:
        _current = Settings.from_environment()
    return _current


def use(settings: Settings) -> None:
    """Replace the settings of this process."""
    global _current
    _current = settings
