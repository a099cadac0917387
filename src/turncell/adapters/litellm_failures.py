"""What LiteLLM raises, as `ModelFailure`: one kind, a readable message, no keys.

Its classes alone do not tell: a refused connection is an InternalServerError, a missing key is an APIConnectionError
with a traceback in its text. So the whole chain of causes is read, what the network said first.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any

from turncell.adapters.keys import remedy
from turncell.adapters.provider_failures import (
    BY_STATUS,
    hide_keys,
    is_too_long,
    kind_of_bad_request,
    retry_after,
    said_pause,
)
from turncell.errors import FailureKind, ModelFailure

_BY_CLASS: dict[str, FailureKind] = {
    "ContextWindowExceededError": "context_length",
    "ContentPolicyViolationError": "filter",
    "AuthenticationError": "auth",
    "PermissionDeniedError": "auth",
    "NotFoundError": "not_found",
    "RateLimitError": "rate_limit",
    "UnsupportedParamsError": "bad_request",
    "JSONSchemaValidationError": "protocol",
}
_LOST = {
    "ConnectError", "ReadError", "WriteError", "RemoteProtocolError", "ClientConnectorError", "ClientConnectorDNSError",
    "ServerDisconnectedError", "ClientOSError", "ClientPayloadError", "ConnectionResetError", "ConnectionRefusedError",
    "BrokenPipeError", "gaierror",
}  # fmt: skip
_TIMED_OUT = {
    "Timeout",
    "APITimeoutError",
    "ReadTimeout",
    "ConnectTimeout",
    "TimeoutError",
    "SocketTimeoutError",
}
_NO_KEY = re.compile(
    r"missing (credentials|.{0,40}\bkey\b)|no .{0,20}api key|unable to locate credentials|api_key client option",
    re.I,
)
_PREFIX = re.compile(r"^(?:(?:litellm\.)?(?:[A-Z]\w*)?(?:Error|Exception|Timeout)\s*(?::|-)\s*|Timeout Error: )+")


def to_failure(
    error: BaseException,
    *,
    model: str,
    where: str | None,
    key: str | None,
    has_begun: bool,
    missing: list[str],
) -> ModelFailure:
    """`error` as a failure of `model` at `where` (a URL). `missing` are variables that the provider would read."""
    chain = list(_chain(error))
    names = {type(one).__name__ for one in chain}
    text = hide_keys(_text(chain), key)
    status_code = _status(chain)
    kind = _kind(chain, names, text, status_code)
    if kind == "connection":
        status_code = None
        what = "lost the connection to" if has_begun else "cannot reach"
        text = f"{what} {_place(chain, where)}: {hide_keys(_cause(chain), key)}"
        if not has_begun:
            text += "; check the address (base_url), the network and whether the server runs"
    elif kind == "timeout" and status_code is None:
        text = f"no answer from {_place(chain, where)} in time; raise `timeout_s` if the model needs longer"
    if missing and not has_begun and kind in ("auth", "connection"):
        what_to_do = remedy(missing, model.split("/", 1)[0])
        text = f"no key: {what_to_do}" if _NO_KEY.search(text) else f"{text} ({what_to_do})"
    if kind == "not_found":
        text += f"; check the name after the provider in {model!r}, and base_url if you gave one"
    if names & {"ModuleNotFoundError", "ImportError"}:
        text += "; this provider needs a package that is not installed"
    pause_s = _retry_after(chain)
    if pause_s is None and kind == "rate_limit":
        pause_s = said_pause(text)
    return ModelFailure(kind, f"{model}: {text}", status_code=status_code, retry_after_s=pause_s)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen and len(seen) < 12:
        seen.add(id(error))
        yield error
        inner = getattr(error, "original_exception", None)
        error = (
            inner
            if isinstance(inner, BaseException) and id(inner) not in seen
            else error.__cause__ or error.__context__
        )


def _text(chain: list[BaseException]) -> str:
    """The provider's own words."""
    for error in chain:
        if type(error).__name__ == "MidStreamFallbackError" and len(chain) > 1:
            continue
        text = str(getattr(error, "message", "") or error).split("\nTraceback", 1)[0]
        text = re.sub(r"^\w+Exception(?: \w+)? - ", "", _PREFIX.sub("", text.strip()))
        text = re.sub(r"^\w+Exception - ", "", _PREFIX.sub("", text)).strip()
        if text:
            return text if len(text) <= 600 else text[:599] + "…"
    return type(chain[0]).__name__


def _status(chain: list[BaseException]) -> int | None:
    """The status that the provider gave; LiteLLM invents 500 where there was none."""
    for error in chain:
        body = getattr(error, "body", None)
        if type(error).__name__ == "APIError" and isinstance(body, dict):
            said = str(body.get("code"))
            return int(said) if said.isdigit() and 400 <= int(said) <= 599 else None
    for error in chain:
        response = getattr(error, "response", None)
        code = getattr(response, "status_code", None)
        # A response that the provider sent has headers; one that was made up has none.
        if isinstance(code, int) and code >= 400 and (getattr(response, "headers", None) or _headers(error)):
            return code
        if isinstance(getattr(error, "status_code", None), int) and _headers(error):
            return int(error.status_code)  # type: ignore[attr-defined]
    return None


def _kind(chain: list[BaseException], names: set[str], text: str, status_code: int | None) -> FailureKind:
    for error in chain:
        named = _BY_CLASS.get(type(error).__name__)
        if named:
            return named
    codes = " ".join(str(getattr(error, "code", "")) for error in chain)
    if re.search("content_policy|content_filter|safety", codes):
        return "filter"
    if "context_length" in codes or ("BadRequestError" in names and is_too_long(status_code, text)):
        return "context_length"
    if names & _TIMED_OUT or any(isinstance(error, asyncio.TimeoutError) for error in chain):
        return "timeout"
    # LiteLLM's own APIConnectionError means anything; that of the OpenAI client means what it says.
    if names & _LOST or any(f"{type(e).__module__}.{type(e).__name__}" == "openai.APIConnectionError" for e in chain):
        return "connection"
    if _NO_KEY.search(text):
        return "auth"
    if status_code == 400:
        return kind_of_bad_request(text)
    if status_code is not None:
        return BY_STATUS.get(status_code, "overloaded" if status_code >= 500 else "bad_request")
    if re.search(r"overloaded|server_error|service unavailable|internal (server )?error", text, re.I):
        return "overloaded"
    if names & {"JSONDecodeError", "UnicodeDecodeError", "ValidationError"}:
        return "protocol"
    if "BadRequestError" in names:
        return "bad_request"
    return "unknown"


def _cause(chain: list[BaseException]) -> str:
    """What the network said, without the client's framing."""
    for error in reversed(chain):
        if isinstance(error, OSError) and error.strerror:
            return f"{error.strerror} (errno {error.errno})" if error.errno else error.strerror
    if any(type(error).__name__ == "ClientPayloadError" for error in chain):
        return "it was closed in the middle of the answer"
    return " ".join(str(chain[-1]).split())[:200] or type(chain[-1]).__name__


def _headers(error: BaseException) -> Mapping[str, str]:
    for holder in (error, getattr(error, "response", None)):
        for name in ("litellm_response_headers", "headers"):
            headers = getattr(holder, name, None)
            if isinstance(headers, Mapping) and headers:
                return headers
    return {}


def _retry_after(chain: list[BaseException]) -> float | None:
    return next((found for error in chain if (found := retry_after(_headers(error))) is not None), None)


def _place(chain: list[BaseException], where: str | None) -> str:
    if where:
        return re.sub(r"\?.*", "", hide_keys(where))
    for error in chain:
        host: Any = getattr(error, "host", None)
        if isinstance(host, str):
            return f"{host}:{getattr(error, 'port', '') or ''}".rstrip(":")
    return "the provider"
