"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from turncell.errors import SettingError
from turncell.settings import Settings, without_secrets


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAX_STEPS", "many", "TURNCELL_MAX_STEPS is 'many'; an integer is needed"),
        ("REQUEST_TIMEOUT_S", "soon", "TURNCELL_REQUEST_TIMEOUT_S is 'soon'; a number is needed"),
        (
            "STORE",
            "mysql://ada:secret@host/db",
            "setting 'store' begins with 'mysql:'; use a path (SQLite), 'sqlite:<path>', 'postgresql://...' or 'markdown:<folder>' (a file: './mysql...')",
        ),
        ("MAX_STEPS", "0", "setting 'max_steps' is 0; use 1 or more"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_what_is_needed(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.from_environment({f"TURNCELL_{name}": value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("max_steps", "5", "a whole number"),
        ("max_steps", True, "a whole number"),
        ("request_timeout_s", "60", "a number"),
        ("store", Path("h.sqlite"), "a text in quotes"),
        ("model", None, "a text in quotes"),
        ("meta_dirname", 3, "a text in quotes"),
    ],
)
def test_in_code_too_a_value_of_another_type_is_refused(name: str, value: Any, needed: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"setting {name!r} is {value!r}; use {needed}"


@pytest.mark.feature("C8")
@pytest.mark.parametrize(
    ("value", "kind", "name"),
    [
        ("/data/h.sqlite", "sqlite", "/data/h.sqlite"),
        ("~/h.sqlite", "sqlite", f"{Path.home()}/h.sqlite"),
        ("markdown:/data/notes", "markdown", "/data/notes"),
        ("markdown:", "markdown", f"{Path.home()}/.turncell/sessions"),
        ("postgresql://ada:secret@host/db", "postgresql", "postgresql://ada:***@host/db"),
    ],
)
def test_a_store_is_a_path_a_server_or_a_folder(value: str, kind: str, name: str) -> None:
    chosen = Settings.from_environment({"TURNCELL_STORE": value})
    assert (chosen.store_kind, chosen.store_name) == (kind, name)


@pytest.mark.feature("C13")
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ada:secret@host/db",
        "postgresql://ada:sec/ret@se@cret@host:5432/db?sslmode=require",
        "postgres://:secret@host/db",
        "postgresql://host/db?user=ada&password=secret&sslmode=require",
        "postgresql://ada@host/db?sslpassword=secret&options=-c%20secret",
    ],
)
def test_a_password_is_never_shown(address: str) -> None:
    shown = Settings(store=address)
    for text in (repr(shown), str(shown), shown.store_name, without_secrets(address)):
        assert "sec" not in text.replace("secrets", "") and "cret" not in text.replace("secrets", "")
        assert "host" in text
    assert shown.store == address
