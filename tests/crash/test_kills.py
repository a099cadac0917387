"""A session is killed at any moment, on every store; nothing that was seen is lost, and no write runs twice.

Each case is one child process, a scripted session of some seconds, and one SIGKILL: at a write to the store (by the
store itself, before or after), or at a random moment (from here). Cases run side by side: they mostly sleep.
"""

from __future__ import annotations

import os
import platform
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.adapters.postgres_server import PostgresServer
from tests.crash.aftermath import Found, check
from tests.crash.scene import Template, lines_of, wait_for_end

pytestmark = pytest.mark.feature("B6", "B11", "C7", "C8", "C11")

SIDE_BY_SIDE = 10
SEED = 20
SESSION_S = 4.3
"""How long a session takes that nobody kills."""
CHANGES = 18
"""How often a session changes its store, about: what is recorded at the same time goes together."""
TABLE = Path(__file__).parents[2] / "docs" / "crash.md"


@pytest.fixture(params=["sqlite", "markdown", "postgres"])
def place(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Where the history of a case is, from the case's folder."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return lambda folder: server.url
    return lambda folder: str(folder / ("history.sqlite" if request.param == "sqlite" else "history"))


Cases = dict[str, Callable[[Path], Found | None]]
"""By name, each with a folder of its own."""


class Kills:
    """The cases of one store."""

    def __init__(self, template: Template, place: Callable[[Path], str]) -> None:
        self._template, self._place = template, place

    def at_change(self, nth: int, is_before: bool) -> Cases:
        def case(folder: Path) -> Found | None:
            where = self._place(folder)
            wait_for_end(self._template.child(where=where, folder=str(folder), nth=nth, is_before=is_before))
            changes = folder / "changes"
            if len(lines_of(changes)) < nth:
                return None  # the session made fewer
            return check(folder, where, changes.stat().st_mtime, nth)

        return {f"{'before' if is_before else 'after'} change {nth}": case}

    def at_moment(self, after_s: float, seed: int) -> Cases:
        def case(folder: Path) -> Found:
            where = self._place(folder)
            pid = self._template.child(where=where, folder=str(folder))
            time.sleep(after_s)
            killed_at = time.time()
            with suppress(ProcessLookupError):  # it was done already
                os.kill(pid, signal.SIGKILL)
            wait_for_end(pid)
            return check(folder, where, killed_at, seed)

        return {f"after {after_s:.3f} s (seed {seed})": case}


def play(cases: Cases, folder: Path) -> dict[str, Found]:
    """All of them side by side; fails with everything that failed."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        futures = {}
        for number, (name, case) in enumerate(cases.items()):
            (own := folder / f"case-{number}").mkdir()
            futures[name] = pool.submit(case, own)
    failed = {name: error for name, future in futures.items() if (error := future.exception()) is not None}
    assert not failed, "\n".join(f"killed {name}: {type(error).__name__}: {error}" for name, error in failed.items())
    return {name: found for name, future in futures.items() if (found := future.result()) is not None}


@pytest.fixture
def kills(template: Template, place: Callable[[Path], str]) -> Kills:
    return Kills(template, place)


def test_a_sample_of_kills(kills: Kills, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    cases: Cases = {}
    for nth in dice.sample(range(1, CHANGES + 1), 10):
        cases |= kills.at_change(nth, dice.random() < 0.5)
    for seed in range(10):
        cases |= kills.at_moment(dice.uniform(0.0, SESSION_S), seed)
    found = play(cases, tmp_path)
    assert sum(one.in_doubt for one in found.values()), "no write was ever in doubt: the kills come at the wrong times"


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_every_write_point_and_200_moments(kills: Kills, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    dice = random.Random(SEED)
    points: Cases = {}
    for nth in range(1, CHANGES + 6):
        points |= kills.at_change(nth, True) | kills.at_change(nth, False)
    moments: Cases = {}
    for seed in range(200):
        moments |= kills.at_moment(dice.uniform(0.0, SESSION_S), seed)
    for kind, cases in (("write point", points), ("random moment", moments)):
        (folder := tmp_path / kind.replace(" ", "-")).mkdir()
        write_row(request.node.callspec.params["place"], kind, list(play(cases, folder).values()))


HEAD = """# Killed sessions

A scripted session (two runs; reads, writes with approvals, an idempotent call, streamed text) is killed with SIGKILL, before
and after each change of the store ("write point") and at seeded random moments. Then another process loads and resumes it.
A case is counted here only if all of this holds, and otherwise the test fails:

- the record has no gap, and no write ran twice;
- every write with an intent and without a result was in doubt;
- everything that was on the screen for longer than a second was in the history ("oldest loss": how old the oldest lost piece was);
- the session went on to its end, with messages that providers accept.

A kill is not a power failure: what the operating system had taken is still there, so this says nothing about fsync. Written by
`TURNCELL_FULL=1 pytest tests/crash`, on {system}.

| store | killed at | cases | run was open | of these in doubt | run again / has happened / skipped | oldest loss, s | date |
|---|---|---|---|---|---|---|---|
"""


def write_row(store: str, kind: str, found: list[Found]) -> None:
    """Put a row into docs/crash.md, in the place of the one that was there."""
    answers = Counter(answer for one in found for answer in one.answers)
    begin = f"| {store} | {kind} |"
    row = (
        f"{begin} {len(found)} | {sum(one.status not in ('none', 'nothing') for one in found)} | "
        f"{sum(one.in_doubt > 0 for one in found)} | {answers['approve']} / {answers['result']} / {answers['deny']} | "
        f"{max(one.lost_s for one in found):.2f} | {time.strftime('%Y-%m-%d')} |"
    )
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:] if TABLE.exists() else []
    rows = sorted([*(old for old in rows if not old.startswith(begin)), row])
    system = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"
    TABLE.write_text(HEAD.format(system=system) + "\n".join(rows) + "\n")
