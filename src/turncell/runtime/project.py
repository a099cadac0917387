"""Settings of a project: `.turncell/settings.toml` in its folder, with the names of `Settings` as keys.

    mode = "plan"
    max_steps = 10
    model = "openai/gpt-5"

A file that was found can make turncell more careful, and never less. So a mode that asks or refuses more, a lower
`max_steps`, and `unattended = "deny"` count at once; a looser one never does, also where the folder was accepted. What
changes where words go (`model`, `store`, `echo`) or how long a person is waited for counts in an accepted folder only,
and what the user has set in the environment stands.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from turncell import settings
from turncell.core.policy import Mode
from turncell.errors import SettingError, StoreError
from turncell.runtime.trust import Project, read_project
from turncell.settings import Settings

FILE = "settings.toml"
_CARE: tuple[Mode, ...] = ("auto", "edits", "ask", "plan", "never")
"""From the loosest on."""
_TIGHTENING = ("mode", "unattended", "max_steps")
_ACCEPTED = ("model", "store", "echo", "request_timeout_s")


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """Settings with what a project says of them; `used` are the keys that count, `unused` says why others do not."""

    settings: Settings
    used: tuple[str, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name} = {getattr(self.settings, name)!r}" for name in self.used]
        return "\n".join([*lines, *(f"{name}: not used, {why}" for name, why in self.unused.items())])


def with_project(
    base: Settings, folder: str | os.PathLike[str] = ".", environment: Mapping[str, str] | None = None
) -> ProjectSettings:
    """What applies in a folder. SettingError for a file that cannot be understood, or names what is no setting.

    `environment` is what the user has set, which no project changes but to tighten it.
    """
    project = read_project(folder)
    data = next((data for name, data in project.files.items() if name.endswith(FILE)), None)
    if data is None:
        return ProjectSettings(base, (), {})
    where = project.folder / f"{base.meta_dirname}/{FILE}"
    try:
        said = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise SettingError(f"{where} is no TOML: {error}") from error
    known = [*_TIGHTENING, *_ACCEPTED]
    if unknown := [name for name in said if name not in known]:
        raise SettingError(f"{where} has {', '.join(map(repr, unknown))}; a project can set {', '.join(known)}")
    for name, value in said.items():
        _check(where, name, value, base)
    return _applied(project, base, said, os.environ if environment is None else environment)


def use_project(folder: str | os.PathLike[str] = ".") -> str:
    """Let what a folder says count in this process; what counts and what does not, in words, or "" where it says nothing.

    A file that cannot be understood changes nothing, and the words say so.
    """
    try:
        found = with_project(settings.current(), folder)
    except (SettingError, StoreError) as error:
        return f"the settings of this project do not count: {error}"
    if found.used:
        settings.use(found.settings)
    return str(found)


def _applied(
    project: Project, base: Settings, said: Mapping[str, Any], environment: Mapping[str, str]
) -> ProjectSettings:
    used: dict[str, Any] = {}
    unused: dict[str, str] = {}
    for name, value in said.items():
        now = getattr(base, name)
        if value == now:
            continue
        if name in _TIGHTENING:
            if _is_tighter(name, value, now):
                used[name] = value
            else:
                unused[name] = f"{value!r} is looser than {now!r}, and a project can only tighten"
        elif not project.is_trusted:
            unused[name] = "this folder is not accepted"
        elif environment.get(f"TURNCELL_{name.upper()}"):
            unused[name] = f"TURNCELL_{name.upper()} is set"
        else:
            used[name] = value
    names = tuple(used)
    if "store" in used and base.own_store is None:
        # Rules and consents stay the user's: a file beside a project's store may come from anybody.
        used["own_store"] = base.store
    return ProjectSettings(replace(base, **used), names, unused)


def _is_tighter(name: str, value: Any, now: Any) -> bool:
    if name == "mode":
        return _CARE.index(value) > _CARE.index(now)
    return bool(value == "deny" if name == "unattended" else value < now)


def _check(where: object, name: str, value: Any, base: Settings) -> None:
    kind = {one.name: type(getattr(base, one.name)) for one in fields(base)}[name]
    is_number = kind is float and isinstance(value, int)
    if not (isinstance(value, kind) or is_number) or isinstance(value, bool):
        raise SettingError(f"{where}: {name} is {value!r}; use {'a number' if kind in (int, float) else 'a text'}")
    try:
        replace(base, **{name: value})
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from error
