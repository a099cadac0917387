"""The file of a history, read with tools that people have: Datasette and DuckDB, each as its package index gives it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.test_build import fresh_venv, must, run
from turncell import Journal, Session, SQLStore, history

pytestmark = [pytest.mark.full, pytest.mark.timeout(600), pytest.mark.feature("E1")]

RECORDED = Path(__file__).parents[2] / "notebooks" / "recorded"
# The versions that were tried. The extension is made for one version of DuckDB only.
PACKAGES = ("datasette==0.65.5", "duckdb==1.5.5", "duckdb-extensions==1.5.5", "duckdb-extension-sqlite-scanner==1.5.5")

SERVED = """
    import asyncio, json, sys
    from datasette.app import Datasette

    async def main():
        datasette = Datasette([sys.argv[1]])
        await datasette.invoke_startup()
        found = {}
        for view in ("runs", "steps", "calls"):
            answer = await datasette.client.get(f"/history/{view}.json?_shape=array&_size=max")
            page = await datasette.client.get(f"/history/{view}")
            assert answer.status_code == page.status_code == 200, answer.text
            found[view] = answer.json()
        print(json.dumps(found))

    asyncio.run(main())
"""
ATTACHED = """
    import json, sys
    import duckdb, duckdb_extensions

    connection = duckdb.connect()
    duckdb_extensions.import_extension("sqlite_scanner", con=connection)
    connection.execute("LOAD sqlite_scanner")
    connection.execute(f"ATTACH '{sys.argv[1]}' AS h (TYPE sqlite, READ_ONLY)")
    found = {}
    for view in ("runs", "steps", "calls"):
        rows = connection.sql(f"SELECT * FROM h.{view}")
        found[view] = [dict(zip(rows.columns, row)) for row in rows.fetchall()]
    by_model = "SELECT model, sum(CAST(cost_usd AS DOUBLE)) FROM h.steps GROUP BY model"
    found["usd"] = dict(connection.sql(by_model).fetchall())
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    python, _ = fresh_venv(folder / "venv")
    must(run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES, cwd=folder))
    return python


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "history.sqlite"
    journal = Journal(lambda: SQLStore.sqlite(path))
    for one in sorted(RECORDED.glob("*.jsonl")):
        Session.import_file(one, journal)
    journal.close()
    return path


@pytest.mark.parametrize("script", [SERVED, ATTACHED], ids=["Datasette", "DuckDB"])
def test_a_tool_reads_from_the_file_what_the_tables_say(python: Path, file: Path, script: str) -> None:
    code = textwrap.dedent(script)
    found: dict[str, Any] = json.loads(must(run(python, "-c", code, file, cwd=file.parent)).splitlines()[-1])
    whole = history(file)
    runs, steps, calls = whole.runs(), whole.steps(), whole.calls()
    assert {one["run_id"]: one["prompt"] for one in found["runs"]} == dict(zip(runs.run_id, runs.prompt, strict=True))
    assert sum(int(one["output_tokens"] or 0) for one in found["steps"]) == steps.output_tokens.sum()
    assert sorted(one["content"] or "" for one in found["calls"]) == sorted(calls.content.fillna(""))
    for model, usd in found.get("usd", {}).items():
        costs = steps.cost_usd[steps.model == model]
        assert usd == (pytest.approx(costs.sum()) if costs.notna().any() else None)
