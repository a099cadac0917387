"""Real stores: a file, a folder, and a PostgreSQL server that the tests start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adapters.postgres_server import PostgresServer
from turncell.adapters.markdown_store import MarkdownStore
from turncell.adapters.sql_store import SQLStore
from turncell.runtime.ports import Store

Make = Callable[[], Store]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.url


@pytest.fixture(params=["sqlite", "postgres", "markdown"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Opens the same store each time."""
    if request.param == "sqlite":
        return lambda: SQLStore.sqlite(tmp_path / "store.sqlite")
    if request.param == "markdown":
        return lambda: MarkdownStore(tmp_path / "sessions")
    url = request.getfixturevalue("postgres_url")
    return lambda: SQLStore.postgres(url)
