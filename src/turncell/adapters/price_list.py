"""What tokens cost at a provider itself, from the list that LiteLLM brings along; read without importing LiteLLM."""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from turncell.adapters.direct_chat import Price

_FILE = "model_prices_and_context_window_backup.json"
_LONG = re.compile(r"input_cost_per_token(_above_(\d+)k_tokens)")
"""At some models all tokens of a long request cost more."""


def list_price(provider: str, model: str, input_tokens: int = 0) -> Price | None:
    """The price of a request of so many tokens; None where there is no list, or the model is not in it.

    `model` is the provider's own name for it, `provider` is LiteLLM's word for who is asked.
    """
    entry = _entries().get(model)
    if not isinstance(entry, dict) or entry.get("litellm_provider") != provider:
        return None
    long = [(int(found[2]), found[1]) for found in map(_LONG.fullmatch, entry) if found]
    _, suffix = max((one for one in long if input_tokens > one[0] * 1000), default=(0, ""))

    def usd(name: str) -> float | None:
        value = entry.get(name + suffix, entry.get(name))
        return value * 1e6 if isinstance(value, int | float) else None

    input_usd, output_usd = usd("input_cost_per_token"), usd("output_cost_per_token")
    if input_usd is None or output_usd is None:
        return None
    return Price(input_usd, output_usd, usd("cache_read_input_token_cost"))


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
