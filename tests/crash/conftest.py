"""The stores, and one template process for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.conftest import postgres_server
from tests.crash.scene import Template

__all__ = ["postgres_server", "template"]


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    template = Template()
    yield template
    template.close()
