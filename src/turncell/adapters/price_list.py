"""What tokens cost at a provider itself, and what its models can do: from the list that LiteLLM brings along.

It is read without importing LiteLLM.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from turncell.adapters.price import Price
from turncell.runtime.ports import Capabilities

_FILE = "model_prices_and_context_window_backup.json"
_LONG = re.compile(r"input_cost_per_token(_above_(\d+)k_tokens)")
"""At some models all tokens of a long request cost more."""


def list_price(provider: str, model: str, input_tokens: int = 0) -> Price | None:
    """The price of a request of so many tokens; None where there is no list, or the model is not in it.

    `model` is the provider's own name for it, `provider` is LiteLLM's word for who is asked.
    """
    steps = _steps(provider, model)
    _, suffix = max((one for one in steps if input_tokens > one[0] * 1000), default=(0, "")) if steps else (0, "")
    return _price(provider, model, suffix)


@lru_cache(1024)
def _steps(provider: str, model: str) -> tuple[tuple[int, str], ...]:
    """From how many thousand tokens on a request costs more, and how its prices are called then."""
    entry = _entry(provider, model) or {}
    return tuple((int(found[2]), found[1]) for found in map(_LONG.fullmatch, entry) if found)


@lru_cache(1024)
def _price(provider: str, model: str, suffix: str) -> Price | None:
    entry = _entry(provider, model)
    if entry is None:
        return None

    def usd(name: str) -> float | None:
        value = entry.get(name + suffix, entry.get(name))
        return value * 1e6 if isinstance(value, int | float) else None

    input_usd, output_usd = usd("input_cost_per_token"), usd("output_cost_per_token")
    if input_usd is None or output_usd is None:
        return None
    return Price(input_usd, output_usd, usd("cache_read_input_token_cost"))


@lru_cache(1024)
def listed_capabilities(provider: str, model: str, *, schema: bool = False, images: bool | None = None) -> Capabilities:
    """With what the list says of this model's limits, and of images where `images` is None. Without it: nothing is known."""
    entry = _entry(provider, model) or {}
    sees = entry.get("supports_vision") if images is None else images

    def count(name: str) -> int | None:
        found = entry.get(name)
        return found if isinstance(found, int) and found > 0 else None

    return Capabilities(
        schema=schema,
        context_tokens=count("max_input_tokens"),
        max_output_tokens=count("max_output_tokens"),
        images=sees if isinstance(sees, bool) else None,
    )


def listed_models(provider: str = "") -> list[str]:
    """The names by which the list's chat models can be asked for, of one provider or of all, in order."""
    found = set()
    for name, entry in _entries().items():
        if not isinstance(entry, dict) or entry.get("mode") not in ("chat", "responses"):
            continue
        of = str(entry.get("litellm_provider"))
        if not provider or of.startswith(provider):
            found.add(name if name.startswith(f"{of}/") else f"{of}/{name}")
    return sorted(found)


def is_listed_to(provider: str, model: str, what: str) -> bool:
    """Whether the list says that this model can do it: "supports_prompt_caching", "supports_response_schema"."""
    return (_entry(provider, model) or {}).get(what) is True


def _entry(provider: str, model: str) -> dict[str, Any] | None:
    for name in (model, f"{provider}/{model}"):
        entry = _entries().get(name)
        # "bedrock_converse", "vertex_ai-language-models": the list tells apart what names do not.
        if provider and isinstance(entry, dict) and str(entry.get("litellm_provider")).startswith(provider):
            return entry
    return None


@lru_cache(1)
def _entries() -> dict[str, Any]:
    """A file of three megabytes: 30 ms, once in a process."""
    try:
        found = importlib.util.find_spec("litellm")
        folders = (found.submodule_search_locations if found else None) or ()
        entries = orjson.loads(Path(next(iter(folders)), _FILE).read_bytes())
    except (ImportError, ValueError, OSError, StopIteration):
        return {}
    return entries if isinstance(entries, dict) else {}


def list_cache_write_usd(provider: str, model: str) -> float | None:
    """US dollars for a million tokens that are written to the provider's cache; None where the list has no such price."""
    value = (_entry(provider, model) or {}).get("cache_creation_input_token_cost")
    return value * 1e6 if isinstance(value, int | float) else None
