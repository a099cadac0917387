"""LiteLLM as a guest of the process: what is imported when, and what of it is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.feature("G1")


def run_python(code: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if "LITELLM" not in name and "TIKTOKEN" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_adapter_does_not_import_litellm() -> None:
    code = (
        "import sys, turncell.adapters.litellm_model, turncell.testing\n"
        "print([name for name in ('litellm', 'openai', 'httpx', 'aiohttp', 'mcp') if name in sys.modules])"
    )
    assert run_python(code) == "[]"


GUEST = """
import os, sys, socket, gc
def refuse(*args, **kwargs):
    raise AssertionError(f"network: {args[:1]}")
socket.getaddrinfo = refuse
open(os.path.join(os.getcwd(), ".env"), "w").write("FROM_DOTENV=1")
from turncell.adapters.litellm_model import warm_up
before = dict(os.environ)
litellm = warm_up()
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert gc.isenabled()
assert litellm.suppress_debug_info is False
assert "mcp" not in sys.modules
print("polite")
"""


def test_importing_litellm_leaves_no_trace(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no variables, no `.env`, nothing printed; a user's own variables stay."""
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join(os.path.abspath(each) for each in sys.path if each)
    assert run_python(GUEST, PYTHONPATH=path, TIKTOKEN_CACHE_DIR="/mine") == "polite"


def test_where_litellm_only_builds_no_more_of_it_is_imported_than_that_takes(tmp_path: Any) -> None:
    code = (
        "import gc, os, sys, turncell\n"
        "from turncell.adapters.litellm_model import LiteLLMModel\n"
        "from turncell.testing import serve\n"
        "before = dict(os.environ)\n"
        "with serve(['Quick.', 'Whole.']) as server:\n"
        "    for is_whole in (False, True):\n"
        "        model = LiteLLMModel('openai/m', api_key='none', base_url=server.base_url, is_whole=is_whole)\n"
        "        print(turncell.Agent(model).run_sync('hi').text, 'openai.resources.chat.completions' in sys.modules)\n"
        "assert dict(os.environ) == before and gc.isenabled()"
    )
    said = run_python(code, TURNCELL_STORE=str(tmp_path / "history.sqlite"))
    assert said.split() == ["Quick.", "False", "Whole.", "True"]
