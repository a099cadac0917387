"""What tokens cost."""

from __future__ import annotations

from dataclasses import dataclass

from turncell.core.parts import Usage
from turncell.errors import UsageError
from turncell.runtime.options import number


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. Tokens read from the provider's cache cost `cached_usd`, or else the same as others."""

    input_usd: float
    output_usd: float
    cached_usd: float | None = None

    def __post_init__(self) -> None:
        for name in ("input_usd", "output_usd", "cached_usd"):
            value = getattr(self, name)
            if number(name, value, has_zero=True) is None and name != "cached_usd":
                raise UsageError(f"{name} is {value!r}; use a number, 0 or more")

    def of(self, usage: Usage) -> float | None:
        """What these tokens cost; None where their number is not known.

        >>> Price(2.0, 8.0, cached_usd=0.5).of(Usage(1_000_000, 500_000, cache_read_tokens=400_000))
        5.4
        """
        if usage.input_tokens is None and usage.output_tokens is None:
            return None
        cached = min(usage.cache_read_tokens or 0, usage.input_tokens or 0) if self.cached_usd is not None else 0
        new = (usage.input_tokens or 0) - cached
        usd = new * self.input_usd + cached * (self.cached_usd or 0.0) + (usage.output_tokens or 0) * self.output_usd
        return usd / 1_000_000


def as_price(given: object) -> Price | None:
    """UsageError for what is no Price: it would fail only after the first answer was paid for."""
    if not isinstance(given, Price | None):
        raise UsageError(f"price is {given!r}; use Price(input_usd, output_usd), US dollars for a million tokens")
    return given
