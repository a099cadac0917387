"""Seals: what a provider has signed its thoughts with, and who that was.

A session may change its model, and every provider refuses what another has sealed. So a `Reasoning.signature` begins with
who sealed it and a colon, and goes back to nobody else. Journals of before have Anthropic's without a name.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from turncell.core.parts import Reasoning

ANTHROPIC = "anthropic"
"""Also of its models at other providers, which take each other's seals."""
GEMINI = "gemini"
RESPONSES = "responses"
"""OpenAI's own responses: the id of an item, a colon and its sealed content. Azure's are another's (`sealer_at`)."""
PHASE = "phase"
"""What OpenAI's responses called the text that follows ("commentary", "final_answer"): no seal, but wanted back as one."""
REDACTED = "redacted:"
"""Begins the seal of a block that Anthropic sent sealed as a whole: the rest is its data."""
BLOCK = "block:"
"""Begins the seal of a block of a tool that runs at Anthropic, its call or its result: the rest is the block, as JSON."""

THOUGHT = "__thought__"
"""After this word the id of a call has Gemini's signature of it, as LiteLLM keeps them; nobody else wants it."""

NO_SIGNATURE = "skip_thought_signature_validator"
"""What Google takes in place of a signature, for calls that its model has not made.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures, the questions about other models at its end.
"""


def seal(by: str, text: str) -> str:
    """
    >>> seal(ANTHROPIC, "c2Vh")
    'anthropic:c2Vh'
    """
    return f"{by}:{text}"


def seal_of(part: Reasoning, by: str) -> str | None:
    """The seal, if it is of `by`.

    >>> seal_of(Reasoning("", "gemini:abc"), GEMINI), seal_of(Reasoning("", "gemini:abc"), ANTHROPIC)
    ('abc', None)
    """
    who, colon, text = (part.signature or "").partition(":")
    if not colon or who == "redacted":
        who, text = ANTHROPIC, part.signature or ""
    return text if text and who == by else None


def sealer_at(base_url: str) -> str:
    """Who seals where only the address tells.

    >>> sealer_at("https://team.openai.azure.com/openai/v1"), sealer_at("http://[::1]:8000/v1")
    ('team.openai.azure.com', '__1')
    """
    return (urlsplit(base_url).hostname or "").replace(":", "_")


def sealer(provider: str, model: str) -> str:
    """Who seals what `model` thinks, if LiteLLM asks `provider` for it.

    >>> sealer("bedrock", "us.anthropic.claude-sonnet-4-5"), sealer("vertex_ai", "gemini-2.5-pro"), sealer("groq", "qwen3")
    ('anthropic', 'gemini', 'groq')
    """
    if provider == ANTHROPIC or "claude" in model:
        return ANTHROPIC
    return GEMINI if provider == GEMINI or "gemini" in model else provider
