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
from dataclasses import dataclass, field, replace
from typing import Any

from turncell import settings
from turncell.core.policy import Mode
from turncell.errors import SettingError, StoreError
from turncell.runtime.trust import Project, read_project
from turncell.settings import Settings, check_types

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
    try:
        check_types(said, [*_TIGHTENING, *_ACCEPTED])
        for name, value in said.items():
            replace(base, **{name: value})
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from error
    return _applied(project, base, said, os.environ if environment is None else environment)


def use_project(folder: str | os.PathLike[str] = ".") -> str:
    """Let what a folder says count in this process; what counts and what does not, in words, or "" where it says nothing.

    What an accepted folder has set before is taken back first, unless somebody has set it anew since; what made this
    process more careful stays. A file that cannot be understood changes nothing more, and the words say so.
    """
    current = settings.current()
    theirs = {name: before for name, (before, after) in _set.items() if getattr(current, name) == after}
    base = replace(current, **theirs)
    _set.clear()
    settings.use(base)
    try:
        found = with_project(base, folder)
    except (SettingError, StoreError) as error:
        return f"the settings of this project do not count: {error}"
    if found.used:
        settings.use(found.settings)
        accepted = [name for name in found.used if name in _ACCEPTED]
        _set.update({name: (getattr(base, name), getattr(found.settings, name)) for name in accepted})
    return str(found)


def unaccepted_servers() -> str:
    """That the MCP servers of this folder do not start, where that is so; else ""."""
    try:
        project = read_project(".")
    except StoreError:
        return ""  # said with the settings
    if project.is_trusted or not any(name.endswith("mcp.json") for name in project.files):
        return ""
    return "MCP servers of this folder do not start: it is not accepted; see %agent trust"


_set: dict[str, tuple[Any, Any]] = {}
"""What an accepted folder has set in this process, by name: what it was before, and since."""


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
