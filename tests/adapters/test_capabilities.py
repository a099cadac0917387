"""What is known of a model before it is asked, and who asks it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from turncell.adapters.chat_format import Dialect, chat_messages
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_model import DirectModel
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.adapters.price_list import listed_capabilities
from turncell.core.parts import Message, Reasoning, Text
from turncell.runtime import defaults
from turncell.runtime.ports import Capabilities, Model, capabilities_of

pytestmark = pytest.mark.feature("G1")


@pytest.mark.parametrize(
    "model",
    [
        DirectChat("openai/gpt-4o", base_url="https://api.openai.com/v1"),
        DirectResponses("gpt-5", base_url="https://api.openai.com/v1"),
        DirectAnthropic("claude-sonnet-4-5", base_url="https://api.anthropic.com"),
        LiteLLMModel("gemini/gemini-2.5-flash"),
        LiteLLMModel("openai/gpt-4o"),
    ],
    ids=repr,
)
def test_the_limits_of_known_models_are_known(model: Model) -> None:
    found = capabilities_of(model)
    assert found.context_tokens and found.context_tokens >= 100_000
    assert found.max_output_tokens and found.max_output_tokens >= 8_000
    assert found.images is True


@pytest.mark.parametrize(
    "model",
    [
        DirectChat("gpt-4o", base_url="http://localhost:8000/v1"),
        LiteLLMModel("openai/gpt-4o", base_url="http://localhost:8000/v1"),
        LiteLLMModel("ollama_chat/nobody-knows-it"),
    ],
    ids=repr,
)
def test_of_a_server_of_ones_own_nothing_is_assumed(model: Model) -> None:
    assert capabilities_of(model) == Capabilities()


def test_who_knows_better_says_so() -> None:
    assert DirectChat("m", base_url="http://localhost:1/v1", sees_images=False).capabilities.images is False
    assert listed_capabilities("openai", "gpt-4o", images=False).images is False


def test_asking_what_it_can_does_not_import_litellm() -> None:
    program = (
        "import sys; from turncell.adapters.litellm_model import LiteLLMModel;"
        "print(LiteLLMModel('openai/gpt-4o').capabilities.context_tokens, 'litellm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "128000 False\n"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openai/gpt-5", DirectChat), ("openai/gpt-5.4", DirectResponses), ("openai/gpt-5.3-codex", DirectResponses),
        ("openai/o3-pro", DirectResponses), ("openai/responses/gpt-5", DirectResponses),
        ("openai/gpt-3.5-turbo-instruct", LiteLLMModel),
    ],
)  # fmt: skip
def test_openais_models_are_asked_where_they_answer(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Model | DirectModel]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nobody-0123456789")
    assert isinstance(defaults.model(name), kind)
    monkeypatch.delenv("OPENAI_API_KEY")
    if kind is DirectResponses:
        assert isinstance(defaults.model(name), LiteLLMModel)


def test_a_seal_goes_to_nobody_but_who_has_made_it() -> None:
    thoughts = (
        Reasoning("old", "c2Vh"), Reasoning("new", "anthropic:c2Vi"), Reasoning("flash", "gemini:c2Vj"),
        Reasoning("o", "responses:rs_1:c2Vk"), Reasoning("", "phase:commentary"), Reasoning("open"),
    )  # fmt: skip
    said = [Message("user", (Text("?"),)), Message("assistant", (*thoughts, Text("!")))]

    def sent(sealed_by: str) -> list[str]:
        return [one["signature"] for one in chat_messages(said, "", Dialect(sealed_by))[1].get("thinking_blocks", [])]

    assert (sent("anthropic"), sent("gemini"), sent("groq")) == (["c2Vh", "c2Vi"], ["c2Vj"], [])
