"""Settings: one frozen value, read once, replaceable in code.

Each setting is a key of `settings.toml` in the user's config folder, and an environment variable `TURNCELL_<NAME>`, which
stands over it; what code passes explicitly always wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from turncell.core.policy import MODES, Mode
from turncell.errors import SettingError

NotebookContext: TypeAlias = Literal["none", "cells", "all"]
StoreKind: TypeAlias = Literal["sqlite", "postgresql", "markdown"]
_POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_MARKDOWN = "markdown:"
_SQLITE = "sqlite:"
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+")
_KINDS = ("markdown", "sqlite", "postgres", "postgresql", "postgresql+psycopg")
_STORES = "a path (SQLite), 'sqlite:<path>', 'postgresql://...' or 'markdown:<folder>'"
META_DIRNAME = ".turncell"


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults of this process: from `settings.toml` and the environment (`TURNCELL_<NAME>`)."""

    model: str = "embedded"
    """The model of agents that name none. "embedded" needs no key and no network; it is rules, not a language model."""
    mode: Mode = "ask"
    """What happens to calls that no rule names: ask, edits, plan, auto, never."""
    unattended: str = "deny"
    """What happens to calls that ask where nobody is there to answer: deny or allow."""
    max_steps: int = 40
    """The most model calls of a run."""
    request_timeout_s: float = 3600.0
    """How long a request waits for a person, in seconds."""
    store: str = ""
    """Path of the SQLite file (also `sqlite:<path>`), `postgresql://user:password@host/database`, or `markdown:<folder>`
    (`markdown:` alone: `~/.turncell/sessions`). Empty: `history.sqlite` in the user's data directory."""
    context: NotebookContext = "cells"
    """What a `%%agent` cell tells of its notebook: "cells" (the code of the cells above), "all" (also tables, figures and the
    last error), "none"."""
    meta_dirname: str = META_DIRNAME
    """Name of the folder for what belongs to a project or a home: links to documents, and, with `markdown:` alone, all."""
    echo: str = ""
    """Path of a file (or pipe) that gets each turn as plain text while it happens: for logs of unattended runs."""
    own_store: str | None = None
    """The user's `store`, where a project has put another in its place. No variable of the environment sets it."""

    def __post_init__(self) -> None:
        check_types({name: getattr(self, name) for name in _NAMES}, _NAMES)
        if not self.model or re.search(r"\s", self.model):
            raise SettingError(
                f"setting 'model' is {self.model!r}; use 'embedded' or a name like 'openai/gpt-5' (provider/model)"
            )
        if self.mode not in get_args(Mode):
            raise SettingError(f"setting 'mode' is {self.mode!r}; use one of {', '.join(MODES)}")
        if self.unattended not in ("deny", "allow"):
            raise SettingError(f"setting 'unattended' is {self.unattended!r}; use 'deny' or 'allow'")
        if self.context not in ("none", "cells", "all"):
            raise SettingError(f"setting 'context' is {self.context!r}; use 'none', 'cells' or 'all'")
        if not 0 < self.request_timeout_s < float("inf"):
            raise SettingError(f"setting 'request_timeout_s' is {self.request_timeout_s}; use seconds, more than 0")
        if self.max_steps < 1:
            raise SettingError(f"setting 'max_steps' is {self.max_steps}; use 1 or more")
        check_meta_dirname(self.meta_dirname)
        kind, colon, _ = self.store.partition(":")
        is_known = self.store.startswith((*_POSTGRES, _MARKDOWN, _SQLITE))
        # A letter and a colon is a drive of Windows.
        if not is_known and (_KIND.fullmatch(kind) if colon else kind.lower() in _KINDS):
            meant = {"markdown": "'markdown:<folder>'", "sqlite": "'sqlite:<path>'"}.get(
                kind.lower(), "'postgresql://user:password@host/database'" if kind.lower() in _KINDS else ""
            )
            raise SettingError(
                f"setting 'store' begins with {kind + colon!r}; use {meant or _STORES} (a file: './{kind}...')"
            )

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)} | {
            name: without_secrets(address)
            for name in ("store", "own_store")
            if isinstance(address := getattr(self, name), str)
        }
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    @classmethod
    def of_user(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Those of the user's file (`user_file()`), and over them the environment. SettingError for what does not fit."""
        return cls.from_environment(environment, base=cls.from_file(user_file()))

    @classmethod
    def from_file(cls, path: Path) -> Settings:
        """Read a TOML file with settings by their names. One that is not there says nothing.

        SettingError where it cannot be read or understood, has a key that is no setting, or a value that does not fit.
        """
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except OSError as error:
            raise SettingError(f"{path} cannot be read: {error.strerror or error}") from error
        import tomllib

        try:
            said = tomllib.loads(data.decode("utf-8"))
        except ValueError as error:
            raise SettingError(f"{path} is no TOML: {error}") from error
        try:
            check_types(said, _NAMES)
            return cls(**said)
        except SettingError as error:
            raise SettingError(f"{path}: {error}") from error

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, base: Settings | None = None
    ) -> Settings:
        """Read `TURNCELL_*` over `base`. SettingError for a value that does not fit; other variables are ignored.

        >>> Settings.from_environment({"TURNCELL_MAX_STEPS": "5"}).max_steps
        5
        """
        environment = os.environ if environment is None else environment
        values: dict[str, object] = {}
        for field in fields(cls):
            raw = environment.get(f"TURNCELL_{field.name.upper()}")
            if raw is None or raw == "" or field.name == "own_store":
                continue
            try:
                values[field.name] = _KIND_OF[field.name](raw)
            except ValueError:
                needed = (
                    "an integer" if _KIND_OF[field.name] is int else "a number"
                )  # no text is unfit for the other settings
                raise SettingError(f"TURNCELL_{field.name.upper()} is {raw!r}; {needed} is needed") from None
        return replace(base or cls(), **values)  # type: ignore[arg-type]

    @property
    def store_kind(self) -> StoreKind:
        """Where the history is: "sqlite", "postgresql" or "markdown"."""
        if self.store.startswith(_POSTGRES):
            return "postgresql"
        return "markdown" if self.store.startswith(_MARKDOWN) else "sqlite"

    @property
    def store_path(self) -> Path:
        """The SQLite file or the folder of Markdown documents. With a server it is the default's, which is then not
        used itself: other files of this user stand beside it."""
        if self.store_kind == "markdown":
            return Path(self.store.removeprefix(_MARKDOWN) or f"~/{self.meta_dirname}/sessions").expanduser()
        if self.store.removeprefix(_SQLITE) and self.store_kind == "sqlite":
            path = self.store.removeprefix(_SQLITE)
            # As in the URLs of SQLAlchemy: three slashes and a path, four for an absolute one.
            is_url = path != self.store and path.startswith("///")
            return Path(path.removeprefix("///") if is_url else path).expanduser()
        from platformdirs import user_data_path

        return user_data_path("turncell", appauthor=False) / "history.sqlite"

    @property
    def personal_folder(self) -> Path:
        """Where stands what this user has remembered and accepted: beside their own history, never beside a project's."""
        own = self if self.own_store is None else replace(self, store=self.own_store, own_store=None)
        return own.store_path.parent

    @property
    def store_name(self) -> str:
        """Where the history is, for people: a path, or an address without its password."""
        return without_secrets(self.store) if self.store_kind == "postgresql" else str(self.store_path)


_KIND_OF: dict[str, Any] = {field.name: type(field.default) for field in fields(Settings) if field.name != "own_store"}
_NAMES = tuple(_KIND_OF)


def user_file() -> Path:
    """`settings.toml` in the user's config folder, such as `~/.config/turncell`."""
    from platformdirs import user_config_path

    return user_config_path("turncell", appauthor=False) / "settings.toml"


def check_types(said: Mapping[str, object], known: Sequence[str]) -> None:
    """SettingError for keys that are not among those known, and for values of another type than their setting."""
    if unknown := [name for name in said if name not in known]:
        raise SettingError(f"{', '.join(map(repr, unknown))} cannot be set here; use {', '.join(known)}")
    for name, value in said.items():
        kind = _KIND_OF[name]
        is_number = kind is float and isinstance(value, int)
        if not (isinstance(value, kind) or is_number) or isinstance(value, bool):
            needed = "a whole number" if kind is int else "a number" if kind is float else "a text in quotes"
            raise SettingError(f"setting {name!r} is {value!r}; use {needed}")


def check_meta_dirname(name: str) -> None:
    """SettingError for what is not the name of one folder."""
    if name in ("", ".", "..") or re.search(r"[/\\:\0]", name):
        raise SettingError(f"meta_dirname is {name!r}; use the name of one folder, like '.turncell'")


def without_secrets(address: str) -> str:
    """An address with its password, and parameters that may be secrets, as ***. Hides too much rather than too little.

    >>> without_secrets("postgresql://ada:se/cr@t@db.example:5432/notes?password=again&sslmode=require")
    'postgresql://ada:***@db.example:5432/notes?password=***&sslmode=require'
    """
    hidden = re.sub(r"(?s)(://[^:@]*:).*(@)", r"\1***\2", address)
    return re.sub(r"(?i)([?&](?:\w*pass\w*|\w*secret\w*|\w*token\w*|options)=)[^&]*", r"\1***", hidden)


_current: Settings | None = None


def current() -> Settings:
    """The settings of this process."""
    global _current
    if _current is None:
        _current = Settings.of_user()
    return _current


def use(settings: Settings) -> None:
    """Replace the settings of this process."""
    global _current
    _current = settings
