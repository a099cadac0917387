"""A coroutine on a loop that is in the middle of a callback, in processes of their own: one way patches asyncio."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
from turncell.notebook.reentry import run_here

async def inner():
    await asyncio.sleep(0.01)
    return asyncio.get_running_loop() is loop

async def cell():
    print("inner", run_here(loop, inner()))   # a cell that blocks its own loop
    await asyncio.sleep(0)
    print("outer", asyncio.current_task() is not None)

loop = asyncio.new_event_loop()
{before}
loop.run_until_complete(cell())
print("nest_asyncio" in sys.modules)
"""


def said(before: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(before=before)], capture_output=True, text=True)
    return [*done.stdout.split("\n")[:-1], *done.stderr.strip().split("\n")[-1:]]


@pytest.mark.feature("D11")
def test_asyncio_is_left_as_it_is() -> None:
    assert said("") == ["inner True", "outer True", "False", ""]


@pytest.mark.feature("D11")
def test_where_a_private_name_has_gone_nest_asyncio_is_applied() -> None:
    assert said("del asyncio.tasks._leave_task")[:3] == ["inner True", "outer True", "True"]


@pytest.mark.feature("D11")
def test_a_loop_that_cannot_says_so() -> None:
    told = said("del asyncio.tasks._leave_task; sys.modules['nest_asyncio'] = None")
    assert (
        "CannotReenter: the notebook's loop is _UnixSelectorEventLoop, which cannot go on while a cell waits"
        in told[-1]
    )
