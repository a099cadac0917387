"""Two generations of ipykernel can be started from one environment."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import kernel_manager

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("version", ["7.4.0", "6.31.0"])
def test_the_kernel_of_a_spec_runs_the_ipykernel_it_is_named_after(version: str) -> None:
    subprocess.run([sys.executable, HERE / "make_kernels.py", version], check=True)
    manager = kernel_manager(f"py-{version}")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        code = "import sys, ipykernel"
        expressions = {"version": "ipykernel.__version__", "python": "sys.executable", "sum": "1+1"}
        reply = client.execute_interactive(code, user_expressions=expressions, timeout=60)
        found = {k: v["data"]["text/plain"] for k, v in reply["content"]["user_expressions"].items()}
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert found == {"version": repr(version), "python": repr(sys.executable), "sum": "2"}
