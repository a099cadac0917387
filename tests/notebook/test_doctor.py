"""`%agent doctor`, and keys: found where they may be, and told nowhere."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from turncell import Agent, Journal, SQLStore, settings
from turncell.adapters import keys
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.frames.transcript import mimebundle
from turncell.notebook import doctor
from turncell.notebook.doctor import PROVIDERS, answering_servers, report, suggestion
from turncell.runtime.ports import Model
from turncell.settings import Settings
from turncell.testing import fault, serve

pytestmark = pytest.mark.feature("G6")

KEY = "a-very-Secret-key-0123456789"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without keys, and a store of its own."""
    for variables, _ in PROVIDERS.values():
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("TURNCELL_MODEL", raising=False)
    before = settings.current()
    settings.use(Settings(store=str(tmp_path / "history.sqlite")))
    yield
    settings.use(before)


@pytest.fixture
def local_server() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": "llama3.2"}, {"id": "qwen3"}]}).encode()
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def keyring_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A `keyring` package that can be imported, and has the accounts of a JSON file."""
    file = tmp_path / "accounts.json"
    (tmp_path / "keyring.py").write_text(
        "import json\n"
        f"def get_password(service, account): return json.load(open({str(file)!r})).get(service + ' ' + account)\n"
        "class Plaintext: pass\n"
        "def get_keyring(): return Plaintext()\n"
    )
    file.write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    monkeypatch.setattr(keys, "_from_keyring", {})
    return file


class TestDoctor:
    def test_it_names_variables_and_never_values(self, bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        said = report({})
        assert "anthropic: ANTHROPIC_API_KEY" in said and KEY not in said
        assert "%%agent -m anthropic/claude-sonnet-4-5" in said

    def test_servers_of_this_machine_are_found_quickly(
        self, bare: None, local_server: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctor, "PATIENCE_S", 60)
        servers = {"Ollama": local_server, "vLLM": "http://127.0.0.1:9", "llama.cpp": local_server}
        (ollama, other) = answering_servers(servers)
        assert (ollama.name, ollama.models, other.name) == ("Ollama", ("llama3.2", "qwen3"), "llama.cpp")
        assert suggestion({}, [ollama]) == "ollama_chat/llama3.2"
        said = report(servers)
        assert f"Ollama at {local_server}: 2 models (llama3.2, qwen3)" in said
        assert f'turncell.model("openai/llama3.2", base_url="{local_server}/v1")' in said

    def test_without_anything_it_says_what_to_do(self, bare: None) -> None:
        said = report({})
        assert "none in the environment" in said and "none answers on this machine" in said
        assert "never write one into a cell" in said and "history.sqlite, 0 sessions" in said

    def test_a_model_without_its_key_is_told(self, bare: None, tmp_path: Path) -> None:
        settings.use(Settings(model="gemini/gemini-2.5-pro", store=str(tmp_path / "history.sqlite")))
        assert "GEMINI_API_KEY or GOOGLE_API_KEY is not set" in report({})

    def test_a_store_that_cannot_be_used_is_told(self, bare: None, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        settings.use(Settings(store=str(tmp_path / "file" / "history.sqlite")))
        assert "sqlite, cannot be used" in report({})

    def test_the_keyring_is_told_without_its_keys(self, bare: None, keyring_with: Path) -> None:
        assert "Plaintext, without a key of ours" in report({})
        keyring_with.write_text(json.dumps({"turncell groq": KEY}))
        said = report({})
        assert "Plaintext, with keys for groq" in said and KEY not in said


class TestKeyring:
    @pytest.mark.parametrize(
        ("model", "account"),
        [
            (DirectChat("gpt-4o", base_url="https://api.openai.com/v1"), "openai"),
            (DirectChat("gpt-4o", base_url="https://api.openai.com/v1"), "openai/gpt-4o"),
            (DirectChat("m", base_url="https://gateway.example.org:8443/v1"), "gateway.example.org:8443"),
            (DirectAnthropic("claude-sonnet-4-5", base_url="https://api.anthropic.com"), "anthropic"),
        ],
    )
    def test_a_key_is_found_by_provider_model_or_host(
        self, bare: None, keyring_with: Path, model: DirectChat | DirectAnthropic, account: str
    ) -> None:
        keyring_with.write_text(json.dumps({f"turncell {account}": KEY}))
        assert asyncio.run(model._key()) == KEY

    def test_what_is_kept_for_a_provider_goes_to_no_other_server(self, bare: None, keyring_with: Path) -> None:
        keyring_with.write_text(json.dumps({"turncell openai": KEY, "turncell anthropic": KEY}))
        with serve(["Hello.", "Hello."]) as server:
            models: list[Model] = [
                DirectChat("openai/gpt-4o", base_url=server.base_url),
                DirectAnthropic("claude-sonnet-4-5", base_url=server.origin),
            ]
            assert [Agent(model).run_sync("Hi").text for model in models] == ["Hello.", "Hello."]
            assert KEY not in repr(server.headers)

    def test_a_server_of_ones_own_has_its_own_key_at_litellm_too(self, bare: None, keyring_with: Path) -> None:
        with serve(["Hello."]) as server:
            host = server.origin.removeprefix("http://")
            keyring_with.write_text(json.dumps({f"turncell {host}": KEY}))
            assert Agent(LiteLLMModel("openai/m", base_url=server.base_url)).run_sync("Hi").text == "Hello."
            assert server.headers[0]["authorization"] == f"Bearer {KEY}"

    def test_one_that_breaks_is_one_without_keys(self, bare: None, keyring_with: Path) -> None:
        keyring_with.write_text("no JSON")
        run = Agent(DirectChat("gpt-4o", base_url="https://api.openai.com/v1")).run_sync("Hi")
        assert run.status == "failed" and "`keyring set turncell openai`" in str(run.state.error)


@pytest.mark.parametrize("given", ["text", "function", "async function"])
def test_a_key_is_written_down_nowhere(tmp_path: Path, given: str) -> None:
    """Not even where the provider or the model says it."""
    secret = f"k-{given.replace(' ', '-')}-0123456789abcdef"

    async def later() -> str:
        return secret

    key = {"text": secret, "function": lambda: secret, "async function": later}[given]
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "history.sqlite"))
    with serve([f"Your key is {secret}.", fault(401, f"wrong key {secret}")]) as server:
        model = DirectChat("m", base_url=server.base_url, api_key=key)
        agent = Agent(model, journal=journal)
        run = agent.run_sync("What is my key?")
        failed = agent.run_sync("And now?", session=run.session)
        assert server.headers[0]["authorization"] == f"Bearer {secret}"
    assert secret in run.text  # the truth, for the user's own code
    written = [
        repr(model),
        repr(agent),
        str(failed.state.error),
        repr(mimebundle(run.state)),
        repr(mimebundle(failed.state)),
    ]
    journal.close()
    written += [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()]
    assert not any(secret in text for text in written)
