"""LiteLLM's proxy as a peer that speaks OpenAI's format and that we have not written; behind it our server on loopback.

It has an environment of its own, which takes three minutes to install: TURNCELL_PROXY names a `litellm` that is there.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from turncell import Agent, tool
from turncell.adapters.direct_chat import DirectChat
from turncell.core.parts import Json
from turncell.testing import ProviderServer, Reply, call, fault, reply, serve

pytestmark = [pytest.mark.full, pytest.mark.feature("G1"), pytest.mark.timeout(900)]

LONG = "Word after word. " * 100


@dataclass
class Behind:
    """A proxy, and the provider behind it, which answers as the test says."""

    base_url: str
    key: str
    provider: ProviderServer
    answers: list[Reply | str]

    def model(self, **options: Any) -> DirectChat:
        return DirectChat("m", base_url=self.base_url, **{"api_key": self.key} | options)


def installed(folder: Path) -> Path:
    if os.environ.get("TURNCELL_PROXY"):
        return Path(os.environ["TURNCELL_PROXY"])
    venv.create(folder, with_pip=True)
    wanted = f"litellm[proxy]=={metadata.version('litellm')}"
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", wanted]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "bin" / "litellm"


def wait_until_up(process: subprocess.Popen[bytes], origin: str, log: Path) -> None:
    until = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{origin}/health/liveliness", timeout=1):
                return
        except OSError:
            time.sleep(0.2)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("proxy")
    program = installed(folder / "venv")
    port = free_port()
    answers: list[Reply | str] = []
    with serve(lambda body: answers.pop(0)) as provider:
        config = {
            "model_list": [
                {"model_name": "m", "litellm_params": {
                    "model": "openai/m", "api_base": provider.base_url, "api_key": "behind", "max_retries": 0}}
            ],
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        }  # fmt: skip
        (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        key = f"sk-{secrets.token_hex(24)}"
        quiet = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": key,
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
        }
        log = folder / "log.txt"
        words = [
            program,
            "--config",
            folder / "config.yaml",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--telemetry",
            "False",
        ]
        with log.open("wb") as out:
            process = subprocess.Popen(
                list(map(str, words)), env=quiet, stdout=out, stderr=out, cwd=folder, start_new_session=True
            )
        try:
            wait_until_up(process, f"http://127.0.0.1:{port}", log)
            yield Behind(f"http://127.0.0.1:{port}/v1", key, provider, answers)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


@pytest.fixture
def proxy(running: Behind) -> Behind:
    running.answers.clear()
    running.provider.requests.clear()
    return running


@tool(effect="read")
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


def test_text_comes_in_pieces_with_its_tokens(proxy: Behind) -> None:
    proxy.answers[:] = [reply("Grüße 🌦, wie geht's?", piece_chars=3)]
    run = Agent(proxy.model(), instructions="Be kind.").run_sync("Hello")
    assert (run.status, run.text) == ("completed", "Grüße 🌦, wie geht's?")
    usage = run.state.steps[0].usage
    assert usage.input_tokens and usage.output_tokens
    assert [one["role"] for one in proxy.provider.requests[0]["messages"]] == ["system", "user"]


def test_calls_and_results_go_through_it(proxy: Behind) -> None:
    proxy.answers[:] = [reply(calls=[call("weather", city="Oslo"), call("weather", city="Ærø")]), "Wet."]
    run = Agent(proxy.model(), tools=[weather]).run_sync("How is it?")
    assert (run.status, run.text) == ("completed", "Wet.")
    sent: Json = proxy.provider.requests[1]["messages"]
    results = [one["content"] for one in sent if one["role"] == "tool"]
    assert results == ["Rain in Oslo.", "Rain in Ærø."]


def test_reasoning_is_told_apart(proxy: Behind) -> None:
    proxy.answers[:] = [reply("21.", reasoning="Half of 42.")]
    run = Agent(proxy.model()).run_sync("Half of 42?")
    assert [(part.type, part.text) for part in run.state.steps[0].message.parts] == [  # type: ignore[union-attr]
        ("reasoning", "Half of 42."), ("text", "21."),
    ]  # fmt: skip


@pytest.mark.parametrize(("status_code", "kind"), [(400, "bad_request"), (404, "not_found"), (401, "auth")])
def test_what_the_provider_refuses_is_told(proxy: Behind, status_code: int, kind: str) -> None:
    proxy.answers[:] = [fault(status_code, "no, thank you")] * 3
    run = Agent(proxy.model()).run_sync("Hello")
    assert (run.status, run.state.error_kind) == ("failed", kind)
    assert "no, thank you" in str(run.state.error)


def test_a_wrong_key_is_told_without_it(proxy: Behind) -> None:
    run = Agent(proxy.model(api_key="sk-wrong-0123456789")).run_sync("Hello")
    # Without a database the proxy does not look the key up, and says so with a 400.
    assert run.status == "failed" and run.state.error_kind in ("auth", "bad_request")
    assert "sk-wrong" not in str(run.state.error)


def test_a_stream_that_breaks_off_is_no_answer(proxy: Behind) -> None:
    proxy.answers[:] = [reply(LONG, resets_after=5)] * 3
    run = Agent(proxy.model()).run_sync("Hello")
    assert run.status == "failed" and run.state.error_kind in ("connection", "protocol", "overloaded")


def test_who_stops_is_gone_behind_it_too(proxy: Behind) -> None:
    proxy.answers[:] = [reply(LONG, piece_chars=4, delay_s=0.05)]
    run = Agent(proxy.model()).start("Tell me everything")
    proxy.provider.wait_until_open()
    until = time.monotonic() + 60
    while not run.text and time.monotonic() < until:
        time.sleep(0.02)
    run.cancel("enough")
    assert run.result(60).status == "cancelled"
    proxy.provider.wait_until_closed(timeout_s=60)
