"""What LiteLLM's parser of a provider says, without what LiteLLM puts around it.

Some formats only LiteLLM can read (Gemini's, Bedrock's, Anthropic's through others). Its stream object costs some 260 µs a
chunk; the parser inside it (`completion_stream`) a tenth of that, and gives the same chunks before anything is made up. It
is taken where it is there, gives what LiteLLM calls a ModelResponseStream, and nobody's callbacks wait for the whole answer.
Otherwise the stream object is left as it was found, first chunk and all.

The parser of Gemini's format costs as much as the stream object, for it builds some ten objects for each piece of text and
counts all tokens anew. An event that is text and nothing else is therefore read here; all others, the first and the last
among them, go to the parser, which never learns that there were more. So do lines that are of no event: Google sends an error
in the middle of a stream as bare JSON.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import orjson


class Parsed(AsyncIterator[Any]):
    """The chunks of one stream, read by LiteLLM's parser alone; lists of texts in between, where `lines` are given."""

    def __init__(
        self, litellm: Any, model: str, provider: str, kind: type, stream: Any, lines: Lines | None = None
    ) -> None:
        self.intermittent_finish_reason: str | None = None
        """Always None; what looks for an end in LiteLLM's stream object looks for both."""
        self._litellm, self._model, self._provider, self._kind = litellm, model, provider, kind
        self._stream, self._lines = aiter(stream), lines
        self._first: Any = None
        self._reason: str | None = None

    @property
    def received_finish_reason(self) -> str | None:
        """None too where LiteLLM's parser made one up: that of Gemini's format says "stop" at each chunk."""
        return None if self._lines is not None and self._lines.lacks_end else self._reason

    async def begin(self) -> Any:
        """Read up to the first chunk with anything in it. None: it is one for us; else it is given back."""
        first = await self._next()
        if first is None or isinstance(first, self._kind):
            self._first = first
            return None
        return first

    async def __anext__(self) -> Any:
        chunk, self._first = self._first, None
        if chunk is None:
            if texts := await self._texts():
                return texts
            chunk = await self._next()
        if chunk is None:
            raise StopAsyncIteration
        if isinstance(chunk, dict):
            chunk = self._of_generic(chunk)
        for choice in chunk.choices[:1]:
            self._reason = choice.finish_reason or self._reason
        return chunk

    def _of_generic(self, said: dict[str, Any]) -> Any:
        """LiteLLM's older form of a chunk, which some of its parsers end a stream with."""
        tools = [said["tool_use"]] if said.get("tool_use") else None
        delta = {"content": said.get("text") or None, "tool_calls": tools}
        ends = said.get("finish_reason") if said.get("is_finished") else None
        chunk = self._kind(choices=[{"index": said.get("index") or 0, "delta": delta, "finish_reason": ends or None}])
        if said.get("usage"):
            chunk.usage = said["usage"]
        return chunk

    async def _texts(self) -> list[str]:
        """What can be read here before the parser has its turn."""
        if self._lines is None:
            return []
        try:
            return await self._lines.texts()
        except Exception as error:
            raise _mapped(self._litellm, self._model, self._provider, error) from error

    async def _next(self) -> Any:
        """None at the end."""
        try:
            while True:
                chunk = await anext(self._stream)
                if not _is_empty(chunk):
                    return chunk
        except StopAsyncIteration:
            return None
        except Exception as error:
            raise _mapped(self._litellm, self._model, self._provider, error) from error


_SILENT = {b"", b"event", b"id", b"retry"}
"""Fields that say nothing here; a comment is a field without a name."""
_ENDS = (b'"finishReason"', b'"blockReason"')


class Lines(AsyncIterator[str]):
    """The lines that a parser reads, from the bytes of its response; some are taken before it sees them."""

    def __init__(self, data: AsyncIterator[bytes]) -> None:
        self._data = data
        self._pieces: list[bytes] = []
        """Of a line that is not whole yet."""
        self._waiting: deque[bytes] = deque()
        self._is_over = self._has_candidates = self._has_end = False

    @property
    def lacks_end(self) -> bool:
        """Events in Gemini's format have come, and none said why the answer ends."""
        return self._has_candidates and not self._has_end

    async def _fill(self) -> None:
        """Until something waits, or nothing comes any more."""
        while not self._waiting and not self._is_over:
            data = await anext(self._data, None)
            self._is_over = data is None
            lines = b"".join(self._pieces).splitlines() if data is None else self._whole(data)
            self._waiting.extend(line for line in lines if line.partition(b":")[0] not in _SILENT)

    def _whole(self, data: bytes) -> list[bytes]:
        """The lines that this piece has made whole. A CR counts at once: an LF after it ends an empty line, which says nothing."""
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end:
            self._pieces.append(data)
            return []
        whole = b"".join((*self._pieces, data[:end]))
        self._pieces = [data[end:]]
        return whole.splitlines()

    async def texts(self) -> list[str]:
        """Of the events that come next and are text alone, as many as are there; none where the next one is another."""
        await self._fill()
        found = []
        while self._waiting and (text := _text_of(self._waiting[0])) is not None:
            found.append(text)
            self._waiting.popleft()
        return found

    async def __anext__(self) -> str:
        await self._fill()
        if not self._waiting:
            raise StopAsyncIteration
        line = self._waiting.popleft()
        self._has_candidates = self._has_candidates or b'"candidates"' in line
        self._has_end = self._has_end or any(name in line for name in _ENDS)
        return line.decode("utf-8", "replace")

    async def aclose(self) -> None:
        if (close := getattr(self._data, "aclose", None)) is not None:
            await close()


def _text_of(line: bytes) -> str | None:
    return plain_text(line[5:]) if line.startswith(b"data:") else None


_EVENT = {"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"}
_CANDIDATE = {"content", "index"}
_CONTENT = {"parts", "role"}


def plain_text(payload: bytes) -> str | None:
    """The text of an event in Gemini's format that says nothing else. Its token counts are repeated by the last event.

    >>> plain_text(b'{"candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}}]}')
    'Hi'
    """
    try:
        event = orjson.loads(payload)
        (candidate,) = event["candidates"]
        content = candidate["content"]
        (part,) = content["parts"]
        text = part["text"]
    except (ValueError, KeyError, TypeError):
        return None
    is_plain = len(part) == 1 and _EVENT.issuperset(event) and _CANDIDATE.issuperset(candidate)
    if not is_plain or not _CONTENT.issuperset(content) or candidate.get("index"):
        return None
    return text if isinstance(text, str) and text else None


class _Rejoined(AsyncIterator[Any]):
    """A stream from which one chunk was taken, as it was before."""

    def __init__(self, first: Any, stream: Any) -> None:
        self._first, self._stream, self._rest = [first], stream, aiter(stream)

    async def __anext__(self) -> Any:
        return self._first.pop() if self._first else await anext(self._rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_LISTENERS = ("callbacks", "success_callback", "failure_callback", "_async_success_callback", "_async_failure_callback",
              "input_callback", "_async_input_callback")  # fmt: skip


def has_listeners(litellm: Any) -> bool:
    """Whether anybody's callbacks want whole answers.

    LiteLLM notes "cache" among them for a cache of its own (Gemini's), and the note stays for all later calls of the process;
    it means nothing unless the user has set one.
    """
    for name in _LISTENERS:
        for one in getattr(litellm, name, None) or ():
            if not isinstance(one, str) or one != "cache" or getattr(litellm, "cache", None) is not None:
                return True
    return False


async def parsed(litellm: Any, wrapper: Any, model: str, provider: str) -> Parsed | None:
    """The parser in LiteLLM's stream object; None where only the whole of it will do."""
    kind = getattr(importlib.import_module("litellm.types.utils"), "ModelResponseStream", None)
    if not isinstance(kind, type) or not hasattr(wrapper, "completion_stream"):
        return None
    if wrapper.completion_stream is None and hasattr(wrapper, "fetch_stream"):
        try:
            await wrapper.fetch_stream()
        except Exception as error:
            raise _mapped(litellm, model, provider, error) from error
    stream = wrapper.completion_stream
    if not hasattr(stream, "__aiter__"):
        return None
    found = Parsed(litellm, model, provider, kind, stream, _taken_lines(stream))
    other = await found.begin()
    if other is None:
        return found
    wrapper.completion_stream = _Rejoined(other, stream)
    return None


def _taken_lines(stream: Any) -> Lines | None:
    """The lines of the parser from now on, where the response that it reads them from is known."""
    data = getattr(getattr(stream, "response", None), "aiter_bytes", None)
    if data is None or not hasattr(stream, "streaming_response"):
        return None
    stream.streaming_response = lines = Lines(data())
    return lines


def _is_empty(chunk: Any) -> bool:
    """Lines without data become chunks that say nothing."""
    if chunk is None or chunk == "None":
        return True
    if not isinstance(chunk, dict):
        return False
    return not any(chunk.get(name) for name in ("text", "tool_use", "usage", "is_finished", "finish_reason"))


def _mapped(litellm: Any, model: str, provider: str, error: Exception) -> BaseException:
    """The error as LiteLLM would have raised it, where it still maps errors so."""
    try:
        litellm.exception_type(model=model, original_exception=error, custom_llm_provider=provider)
    except Exception as mapped:
        return mapped
    return error
