"""Settings from the environment."""

from __future__ import annotations

import pytest

from turncell.errors import SettingError
from turncell.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAX_STEPS", "many", "TURNCELL_MAX_STEPS is 'many'; an integer is needed"),
        ("REQUEST_TIMEOUT_S", "soon", "TURNCELL_REQUEST_TIMEOUT_S is 'soon'; a number is needed"),
        ("MAX_STEPS", "0", "setting 'max_steps' is 0; use 1 or more"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_what_is_needed(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.from_environment({f"TURNCELL_{name}": value})
    assert str(caught.value) == message
