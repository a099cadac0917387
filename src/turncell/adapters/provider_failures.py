"""What providers say when they fail, as `ModelFailure`: one kind, a readable message, no keys.

A status alone does not tell: a prompt that is too long is a 400 with a code, or only with words; an error may come inside
an answer that began with 200.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from turncell.adapters.chat_format import clean, encode
from turncell.adapters.halves import decode
from turncell.errors import FailureKind, ModelFailure

BY_STATUS: dict[int, FailureKind] = {
    400: "bad_request", 401: "auth", 402: "auth", 403: "auth", 404: "not_found", 408: "timeout", 409: "overloaded",
    413: "context_length", 422: "bad_request", 429: "rate_limit", 504: "timeout",
}  # fmt: skip
_BY_CODE: tuple[tuple[str, FailureKind], ...] = (
    # Groq's, of a call that the model has written wrongly: it may write it well the next time.
    ("tool_use_failed", "protocol"),
    ("context_length|context_window|request_too_large|string_above_max_length", "context_length"),
    ("content_filter|content_policy|safety|responsibleaipolicy|moderation", "filter"),
    # Waiting does not fill an account.
    ("insufficient_quota|billing|credit|invalid_api_key|authentication|permission|unauthorized", "auth"),
    ("rate_limit|too_many_requests|resource_exhausted|throttl", "rate_limit"),
    ("not_found|model_not_exist", "not_found"),
    ("timeout|deadline", "timeout"),
    ("overload|server_error|unavailable|api_error|internal", "overloaded"),
    ("invalid_request|invalid_argument|bad_request|unsupported|invalid_value", "bad_request"),
)
_TOO_LONG = re.compile(
    r"context.{0,12}(length|window|size|limit)|maximum.{0,20}(context|tokens)|maximum (prompt|input|model) length"
    r"|(prompt|input|request).{0,40}too (long|large)|too many (input )?tokens(?!, please wait)|reduce the length"
    r"|exceeds? the (available )?(context|model's|maximum)|exceeded model token limit|prompt.{0,40}exceeds (the limit|max)"
    r"|range of input length|inputs` tokens \+",
    re.I,
)
_OF_ANOTHER_STATUS: tuple[tuple[re.Pattern[str], FailureKind], ...] = (
    (re.compile(r"credit balance|api key not valid|invalid api key", re.I), "auth"),
    (re.compile(r"\bmodel not exist|not a valid model id|\binvalid model: ", re.I), "not_found"),
)
"""Words of Anthropic, Google, DeepSeek, OpenRouter and Mistral for what they call a bad request: another model may answer it."""
MOST_PAUSE_S = 86_400.0
"""A longer one is a mistake, such as a time of day in seconds since 1970, and batches would wait for it."""
_PAUSE = re.compile(r"(?:retryDelay\W{1,4}|(?:try again|retry) (?:in|after) )(\d+(?:\.\d+)?) ?(ms|s\b|sec)", re.I)
_BUSY = re.compile(r"overloaded|server_error|service unavailable|internal (server )?error|at capacity", re.I)


def said_failure(
    model: str, error: Any, *, status_code: int | None = None, retry_after_s: float | None = None, key: str | None = None,
) -> ModelFailure:  # fmt: skip
    """What a provider said in an error body, or in an error frame in the middle of an answer.

    `error` is the decoded JSON, in any of the shapes in use: `{"error": {...}}`, `{"error": "text"}`, the inner object,
    `{"message": ...}`, `{"detail": ...}`, a list of these; or plain text.
    """
    text, codes, said = _read(error)
    if status_code is None:
        status_code = said
    kind = _kind(status_code, codes, text)
    if retry_after_s is None and kind in ("rate_limit", "overloaded"):
        retry_after_s = said_pause(text)
    message = shown(text, key) or (f"status {status_code}" if status_code else "an error without a word about it")
    if kind == "not_found":
        message += f"; check the name in {model!r}, and base_url if you gave one"
    return ModelFailure(kind, f"{model}: {message}", status_code=status_code, retry_after_s=retry_after_s)


def body_failure(
    model: str, status_code: int, headers: Mapping[str, str], body: bytes, *, key: str | None = None
) -> ModelFailure:
    """An answer whose status was an error."""
    error: Any
    try:
        error = decode(body)
    except ValueError:
        error = body.decode("utf-8", "replace")
        if "<" in error[:200]:
            title = re.search(r"<title[^>]*>(.*?)</title>", error, re.I | re.S)
            error = f"status {status_code}, with a web page" + (f" ({title[1].strip()})" if title else "")
    pause_s = retry_after(headers)
    if pause_s is None and status_code in (429, 503):
        pause_s = said_pause(body.decode("utf-8", "replace"))
    return said_failure(model, error, status_code=status_code, retry_after_s=pause_s, key=key)


def kind_of_bad_request(text: str) -> FailureKind:
    """What a status of 400 means, by its words: some have it where others have 401 or 404."""
    return next((kind for words, kind in _OF_ANOTHER_STATUS if words.search(text)), "bad_request")


def is_too_long(status_code: int | None, text: str) -> bool:
    """Whether these words say that the prompt does not fit: each server has its own."""
    return status_code in (None, 400, 413, 422, 500) and _TOO_LONG.search(text) is not None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as `retry-after-ms` or `Retry-After` (seconds, or a date) say; None where neither does.

    >>> retry_after({"Retry-After": "2.5"}), retry_after({"retry-after-ms": "40"}), retry_after({})
    (2.5, 0.04, None)
    """
    lower = {str(name).lower(): str(value) for name, value in headers.items()}
    pauses = (_seconds(lower.get("retry-after-ms", ""), 1000), _seconds(lower.get("retry-after", "")))
    return next((pause_s for pause_s in pauses if pause_s is not None and pause_s <= MOST_PAUSE_S), None)


def _seconds(value: str, per_second: int = 1) -> float | None:
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return max(0.0, float(value) / per_second)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(at.tzinfo or UTC).replace(tzinfo=at.tzinfo)).total_seconds())


def said_pause(text: str) -> float | None:
    """Seconds to wait, where only the words tell: Google's RetryInfo, or those of the message.

    >>> said_pause("Please try again in 160ms."), said_pause("Please retry after 20 seconds."), said_pause("try again later")
    (0.16, 20.0, None)
    """
    found = _PAUSE.search(text)
    return None if found is None else float(found[1]) / (1000 if found[2] == "ms" else 1)


def shown(text: str, key: str | None = None) -> str:
    """Without keys, and not longer than anybody reads."""
    text = hide_keys(clean(text).strip(), key)
    return text if len(text) <= 600 else text[:599] + "…"


def hide_keys(text: str, key: str | None = None) -> str:
    """The text without anything that looks like, or is, a key.

    >>> hide_keys("Incorrect API key provided: sk-abcdef1234567890.")
    'Incorrect API key provided: [key].'
    """
    secrets = [key] if key and len(key) > 3 else []  # a placeholder would be found in words
    secrets += [v for name, v in os.environ.items() if re.search(r"KEY|TOKEN|SECRET|PASSWORD", name) and len(v) >= 8]
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "[key]")
    text = re.sub(r"\b(?:sk|pk|rk|gsk|xai|AIza|hf|key)[-_][\w*-]{6,}\w|\bAIza[\w-]{10,}", "[key]", text)
    text = re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}", r"\1 [key]", text)
    text = re.sub(r"(?i)([?&](?:api[_-]?)?(?:key|token|sig|signature)=)[^&\s'\"]+", r"\1[key]", text)
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)


def _read(error: Any) -> tuple[str, str, int | None]:
    """The text, the codes in lower case, and the status that stands inside."""
    for _ in range(4):
        if isinstance(error, list) and error:
            error = error[0]
        elif isinstance(error, dict) and error.get("error"):
            outer, error = error, error["error"]
            if isinstance(error, str):
                error = {**outer, "error": None, "message": error}
        else:
            break
    if not isinstance(error, dict):
        return ("" if error is None else str(error)), "", None
    text = next((t for t in (error.get(n) for n in ("message", "msg", "detail", "title", "reason")) if t), "")
    text = text if isinstance(text, str) else encode(text).decode()
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str) and raw.strip():  # OpenRouter: what the provider behind it said
        text += f": {raw[:300]}"
    if isinstance(wrong := error.get("failed_generation"), str) and wrong.strip():
        text += f": {wrong[:300]}"
    codes = [error.get(name) for name in ("code", "type", "status")]
    inner = error.get("innererror")
    codes.append(inner.get("code") if isinstance(inner, dict) else None)
    numbers = [int(str(code)) for code in codes if str(code).isdigit() and 400 <= int(str(code)) <= 599]
    if not text:
        text = ", ".join(str(code) for code in codes if code) or (encode(error).decode() if error else "")
    return text, " ".join(str(code) for code in codes if code).lower(), numbers[0] if numbers else None


def _kind(status_code: int | None, codes: str, text: str) -> FailureKind:
    by_code = next((kind for pattern, kind in _BY_CODE if re.search(pattern, codes)), None)
    if by_code in ("context_length", "filter", "protocol"):
        return by_code
    if is_too_long(status_code, text):
        return "context_length"
    if by_code == "auth" and status_code == 429:
        return "auth"
    if status_code == 400:
        if by_code in ("auth", "not_found"):
            return by_code
        return kind_of_bad_request(text)
    if status_code is not None:
        return BY_STATUS.get(status_code, "overloaded" if status_code >= 500 else "bad_request")
    if by_code is not None:
        return by_code
    return "overloaded" if _BUSY.search(text) else "unknown"
