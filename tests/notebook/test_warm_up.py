"""LiteLLM is imported while nothing runs, and only where the default model needs it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("%load_ext turncell")
from turncell.notebook import extension
pauses = []
for _ in range(8):  # cells that follow each other for longer than it waits
    began = time.monotonic()
    time.sleep(0.2)
    shell.run_cell("1")
    pauses.append(time.monotonic() - began)
print("busy", "litellm" in sys.modules and max(pauses) < extension.IDLE_S)  # no cell came too late
until = time.monotonic() + float(sys.argv[1])
while "litellm.llms.openai.openai" not in sys.modules and time.monotonic() < until:
    time.sleep(0.05)
print("idle", "litellm" in sys.modules)
timer = extension._WarmUp._current._timer
shell.run_cell("%unload_ext turncell")
left = {one.__qualname__ for name in ("pre_run_cell", "post_run_cell") for one in shell.events.callbacks[name]}
print("left", sorted(one for one in left if "WarmUp" in one))
timer.join(60)  # an interpreter that ends in the middle of an import may crash
"""


@pytest.mark.feature("G1")
@pytest.mark.parametrize(("model", "is_needed"), [("groq/llama-3.3-70b-versatile", True), ("openai/gpt-4o", False)])
def test_litellm_is_imported_when_nobody_waits(model: str, is_needed: bool) -> None:
    seconds = "60" if is_needed else "3"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, seconds],
        capture_output=True,
        text=True,
        env={**os.environ, "TURNCELL_MODEL": model},
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith(("busy", "idle", "left"))]
    assert said == ["busy False", f"idle {is_needed}", "left []"]
