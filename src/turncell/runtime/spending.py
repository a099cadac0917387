"""What a model call may take, reserved before it."""

from __future__ import annotations

import asyncio
import time

from turncell.core.parts import Usage
from turncell.runtime.budget import Budget, Refusal, Reservation
from turncell.runtime.ports import Model, ModelRequest
from turncell.runtime.tokens import message_tokens, text_tokens

OUTPUT_GUESS_TOKENS = 1_000
"""What is reserved for an answer whose length nothing bounds."""


WAIT_S = 0.02
"""How often it is looked whether others have given back what they had set aside."""


async def reserve(
    budget: Budget,
    model: Model,
    request: ModelRequest,
    *,
    steps: int = 1,
    messages_tokens: int | None = None,
    patience_s: float = 0.0,
) -> Reservation | Refusal:
    """Input as it is estimated, output as bounded or guessed. `messages_tokens` where the messages were estimated before.

    Model calls that go on beside it have set aside what was guessed, and most take less. Where that stands in the way,
    their ends are waited for, at most `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while True:
        tokens, usd = 0, 0.0
        if budget.is_limited:
            if messages_tokens is None:
                messages_tokens = sum(map(message_tokens, request.messages))
            tokens, usd = _wanted(budget, model, request, messages_tokens + text_tokens(request.instructions))
        reserved = budget.reserve(steps=steps, tokens=tokens, usd=usd)
        if not isinstance(reserved, Refusal) or not reserved.is_for_now or time.monotonic() >= deadline:
            return reserved
        await asyncio.sleep(WAIT_S)


def _wanted(budget: Budget, model: Model, request: ModelRequest, input_tokens: int) -> tuple[int, float]:
    output_tokens = request.max_tokens or OUTPUT_GUESS_TOKENS
    price = getattr(model, "price_usd", None)
    tokens, usd = input_tokens + output_tokens, (price(input_tokens, output_tokens) if callable(price) else None) or 0.0
    if request.max_tokens is None:
        # The length of the answer is a guess: one that is too high must not stop a run that has something left.
        left = budget.left()
        tokens = tokens if left.tokens is None else min(tokens, max(input_tokens + 1, left.tokens))
        usd = usd if not left.usd else min(usd, left.usd)
    return tokens, usd


def spent_tokens(usage: Usage | None) -> int | None:
    """None where nobody said how many."""
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)
