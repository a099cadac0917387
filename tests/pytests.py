"""A pytest that a test starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run_pytest(
    folder: Path, *arguments: str, plugins: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """With these plugins alone: to import all that are installed here takes longer than most tests."""
    named = [word for plugin in plugins for word in ("-p", plugin)]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *named, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
    )
