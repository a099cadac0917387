"""Messages and tools in the shape of OpenAI's chat completions, which most providers and LiteLLM take."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson

from turncell.adapters.kept_bytes import Encoded, Kept, KeptTalks, encoded_list
from turncell.adapters.seals import ANTHROPIC, BLOCK, NO_SIGNATURE, REDACTED, THOUGHT, seal_of
from turncell.core.codec import decode_finite
from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import TOOL_CHOICES, ToolSpec

_LEGAL_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""OpenAI's chat completions refuse more, others from 64 on; vLLM makes longer ones itself."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def legal_id(text: str) -> str:
    """The id itself where every provider accepts it, otherwise one made from it. A thought inside it is left out.

    >>> legal_id("call_1"), legal_id("functions.f:0")
    ('call_1', 'functions_f_0_d6bdd4de')
    """
    text = text.split(THOUGHT)[0] or text
    if _LEGAL_ID.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:31] + "_" + digest


class Dialect(NamedTuple):
    """Where those who take chat completions differ. Nobody is given what another has sealed: it would be refused."""

    sealed_by: str = ""
    """Whose seals go back as LiteLLM's `thinking_blocks`."""
    details_by: str = ""
    """Whose seals go back as OpenRouter's `reasoning_details`."""
    thoughts_in: str | None = None
    """The field in which thoughts go back as text."""
    has_signed_calls: bool = False
    """Google's, which refuses a call without the signature that it came with."""
    wants_signatures: bool = False
    """Gemini's from 3 on, which refuses a step whose first call has none: those of other models get a stand-in."""
    wire_id: Callable[[str], str] = legal_id
    """Makes the id of a tool call from the provider's own."""
    answers_results: bool = False
    """Mistral's, which refuses what a person says right after results, whoever serves it: a word of the model stands between."""


LITELLM = Dialect(ANTHROPIC)
_MISTRAL = re.compile(r"(mis|minis|magis|devs|codes|mix|pix|vox)tral", re.I)
_GEMINI = re.compile(r"gemini-(\d+)")
_BETWEEN: dict[str, Json] = {"role": "assistant", "content": "OK."}


def is_mistral(model: str) -> bool:
    """
    >>> is_mistral("mistralai/Devstral-Small-2-24B-Instruct-2512"), is_mistral("gpt-5")
    (True, False)
    """
    return _MISTRAL.search(model) is not None


def wants_signatures(model: str) -> bool:
    """
    >>> [wants_signatures(name) for name in ("google/gemini-3.1-pro-preview", "gemini-2.5-pro", "gpt-5")]
    [True, False, False]
    """
    found = _GEMINI.search(model)
    return found is not None and int(found[1]) >= 3


def chat_messages(
    messages: Iterable[Message], instructions: str = "", dialect: Dialect = LITELLM
) -> list[dict[str, Json]]:
    """The messages as chat completions take them, the instructions first."""
    chat = [_system(instructions)] if instructions else []
    ids: dict[str, str] = {}
    before: Message | None = None
    for message in messages:
        if dialect.answers_results and _is_gap(before, message):
            chat.append(_BETWEEN)
        chat += _message(message, ids, dialect)
        before = message
    return chat


def _is_gap(before: Message | None, message: Message) -> bool:
    return before is not None and before.role == "tool" and message.role == "user"


class MessageBytes:
    """`chat_messages` as JSON, each message encoded once; see `KeptTalks`."""

    def __init__(self, dialect: Dialect = LITELLM, limit_bytes: int = 16 << 20) -> None:
        self._talks = KeptTalks(lambda: _Chat(dialect), limit_bytes)
        self._system = "", b""

    def encode(self, messages: Sequence[Message], instructions: str = "") -> bytes:
        pieces = self._talks.tell(messages).pieces
        if not instructions:
            return encoded_list(pieces).data
        said, system = self._system
        if said != instructions:
            system = encode(_system(instructions))
            self._system = instructions, system
        return encoded_list((system, *pieces)).data

    def tools(self, tools: Sequence[ToolSpec]) -> bytes:
        return self._talks.tools(tools, lambda tools: encode(chat_tools(tools)))


class _Chat:
    def __init__(
        self,
        dialect: Dialect,
        pieces: Iterable[bytes] = (),
        ids: Mapping[str, str] | None = None,
        before: Message | None = None,
    ) -> None:
        self._dialect, self.pieces, self._ids, self._before = dialect, list(pieces), dict(ids or {}), before

    def copy(self) -> _Chat:
        return _Chat(self._dialect, self.pieces, self._ids, self._before)

    def add(self, message: Message, kept: Kept[bytes] | None) -> Kept[bytes]:
        if self._dialect.answers_results and _is_gap(self._before, message):
            self.pieces.append(encode(_BETWEEN))
        self._before = message
        if kept is None:
            ids = {} if message.role == "assistant" else self._ids
            data = b",".join(map(encode, _message(message, ids, self._dialect)))
            kept = Kept(message, data, len(data), ids if message.role == "assistant" else {})
        if kept.ids:
            self._ids.update(kept.ids)
        if kept.made:
            self.pieces.append(kept.made)
        return kept


def encode(value: Json) -> bytes:
    """JSON; lone surrogates are replaced, and integers may be of any size. What is `Encoded` stays as it is."""
    try:
        return orjson.dumps(value, default=_as_it_is)
    except TypeError:
        return clean(json.dumps(value, ensure_ascii=False, default=_decoded)).encode()


def _as_it_is(value: object) -> orjson.Fragment:
    if isinstance(value, Encoded):
        return orjson.Fragment(value.data)
    raise TypeError


def _decoded(value: object) -> Json:
    if isinstance(value, Encoded):
        return json.loads(value.data)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _system(instructions: str) -> dict[str, Json]:
    return {"role": "system", "content": clean(instructions)}


def _message(message: Message, ids: dict[str, str], dialect: Dialect) -> list[dict[str, Json]]:
    """The messages that one becomes. `ids` are those on the wire of the calls so far; an assistant's are added."""
    chat: list[dict[str, Json]] = []
    if message.role == "assistant":
        chat.append(_assistant(message, ids, dialect))
    elif message.role != "tool":
        chat.append({"role": message.role, "content": _content(message.parts)})
    has_images = False
    for part in message.parts:
        if isinstance(part, ToolResult):
            call_id = ids.get(part.call_id) or dialect.wire_id(part.provider_id or part.call_id)
            chat.append({"role": "tool", "tool_call_id": call_id, "content": clean(part.content)})
            has_images = has_images or bool(part.images)
        elif isinstance(part, Image):
            has_images = True
    if has_images and (beside := beside_images(message)) is not None:
        if dialect.answers_results and message.role == "tool":
            chat.append(_BETWEEN)
        chat.append({"role": "user", "content": _content(beside.parts)})
    return chat


def mark_prefixes(chat: list[dict[str, Json]], tools: list[dict[str, Json]], mark: Json) -> None:
    """Say where prefixes end that are worth keeping in a provider's cache, as LiteLLM takes it for Anthropic's models.

    Four marks, the most there may be: see direct_anthropic_format.
    """
    if tools:
        tools[-1]["cache_control"] = mark
    if chat and chat[0]["role"] == "system":
        _mark(chat[0], mark)
    ends = [
        message
        for message, after in zip(chat, [*chat[1:], None], strict=True)
        if message["role"] in ("user", "tool") and (after is None or after["role"] == "assistant")
    ]
    for message in ends[-2:]:
        _mark(message, mark)


def _mark(message: dict[str, Json], mark: Json) -> None:
    content = message["content"]
    if message["role"] == "tool":
        message["cache_control"] = mark
    elif isinstance(content, list):
        content[-1]["cache_control"] = mark
    elif content.strip():  # a mark on nothing is refused
        message["content"] = [{"type": "text", "text": content, "cache_control": mark}]


def beside_images(message: Message) -> Message | None:
    """The images of results, or of an answer, as a message of the user after them: nobody takes them from anybody else."""
    parts: list[Part] = []
    made: list[Part] = []
    has_calls = False
    for part in message.parts:
        if isinstance(part, ToolResult):
            if part.images:
                parts += [Text(f"[what {part.name} has returned]"), *part.images]
        elif isinstance(part, Image):
            made.append(part)
        elif isinstance(part, ToolCall):
            has_calls = True
    if made and message.role == "assistant" and not has_calls:
        parts += [Text("[what you have made]"), *made]
    return Message("user", tuple(parts)) if parts else None


def chat_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Json]]:
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": clean(t.description), "parameters": t.schema},
        }
        for t in tools
    ]


def chat_tool_choice(choice: str) -> Json:
    """
    >>> chat_tool_choice("required"), chat_tool_choice("add")
    ('required', {'type': 'function', 'function': {'name': 'add'}})
    """
    return choice if choice in TOOL_CHOICES else {"type": "function", "function": {"name": choice}}


def clean(text: str) -> str:
    """The text with lone surrogates replaced: they cannot be encoded, and one would fail every later request.

    >>> clean("a" + chr(0xD83D) + "b") == "a" + chr(0xFFFD) + "b"
    True
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _assistant(message: Message, ids: dict[str, str], dialect: Dialect) -> dict[str, Json]:
    asked: list[ToolCall] = []
    thoughts: list[Reasoning] = []
    texts: list[str] = []
    for part in message.parts:
        if isinstance(part, Text):
            texts.append(part.text)
        elif isinstance(part, ToolCall):
            asked.append(part)
        elif isinstance(part, Reasoning):
            thoughts.append(part)
    text = clean("".join(texts))
    chat: dict[str, Json] = {"role": "assistant", "content": text}
    if asked:
        calls: list[dict[str, Json]] = []
        chat |= {"content": text or None, "tool_calls": calls}
        taken: set[str] = set()
        for call in asked:
            call_id = dialect.wire_id(call.provider_id or call.call_id)
            if call_id in taken:
                # Some servers name all their calls alike; a result must still find its own.
                call_id = legal_id(call.call_id)
            taken.add(call_id)
            ids[call.call_id] = call_id
            calls.append(_call(call, call_id, dialect, is_first=not calls))
    if thoughts:
        told = without_last_thoughts(message.parts)
        if blocks := [block for part in told if (block := thinking_block(part, dialect.sealed_by)) is not None]:
            chat["thinking_blocks"] = blocks
        if details := [one for part in thoughts if (one := _detail(part, dialect.details_by)) is not None]:
            chat["reasoning_details"] = details
    if dialect.thoughts_in is not None:
        said = "".join(clean(part.text) for part in thoughts)
        if said or asked:
            # DeepSeek and Kimi refuse calls without a thought, such as those of a model that was asked before.
            chat[dialect.thoughts_in] = said or " "
    return chat


def _call(call: ToolCall, call_id: str, dialect: Dialect, *, is_first: bool) -> dict[str, Json]:
    said = {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments_text(call)}}
    signature = (call.provider_id or "").partition(THOUGHT)[2] if dialect.has_signed_calls else ""
    if not signature and is_first and dialect.wants_signatures:
        signature = NO_SIGNATURE
    return said | {"extra_content": {"google": {"thought_signature": signature}}} if signature else said


def arguments_of(call: ToolCall) -> dict[str, Json]:
    """The arguments as an object; what is none stands in it as text, so that the model sees what it wrote."""
    text = clean(call.arguments_text)
    if not text.strip():
        return {}
    found = _object(text)
    return {"arguments": text} if found is None else found


def arguments_text(call: ToolCall) -> str:
    """The arguments as they were written, if they are an object. vLLM, llama.cpp and Ollama read those of all calls again,
    and would refuse every later request of the conversation."""
    text = clean(call.arguments_text)
    return text if _object(text) is not None else encode(arguments_of(call)).decode()


def _object(text: str) -> dict[str, Json] | None:
    try:
        found = decode_finite(text)  # NaN and the infinities cannot be sent
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _detail(part: Reasoning, by: str) -> dict[str, Json] | None:
    """A sealed piece of OpenRouter's `reasoning_details`."""
    sealed = seal_of(part, by) if by else None
    if sealed is None:
        return None
    detail: dict[str, Json] = orjson.loads(sealed)
    return detail | {"text": clean(part.text)} if detail.get("type") == "reasoning.text" else detail


def without_last_thoughts(parts: Sequence[Part], served_by: str = "") -> Sequence[Part]:
    """Anthropic refuses an answer that ends with a thought, such as one that was cut while it thought. Blocks that are
    sealed by `served_by` are none."""
    said = [
        at
        for at, part in enumerate(parts, 1)
        if isinstance(part, ToolCall)
        or (isinstance(part, Text) and part.text.strip())
        or (served_by and served_block(part, served_by) is not None)
    ]
    return parts[: said[-1]] if said else ()


def thinking_block(part: Part, sealed_by: str = ANTHROPIC) -> dict[str, Json] | None:
    """A thought as Anthropic's format has it; None for what is none, or is not sealed by them."""
    signature = seal_of(part, sealed_by) if isinstance(part, Reasoning) else None
    if not isinstance(part, Reasoning) or signature is None or signature.startswith(BLOCK):
        return None
    if signature.startswith(REDACTED):
        return {"type": "redacted_thinking", "data": signature.removeprefix(REDACTED)}
    return {"type": "thinking", "thinking": clean(part.text), "signature": signature}


def served_block(part: Part, sealed_by: str = ANTHROPIC) -> dict[str, Json] | None:
    """What a tool that runs at the provider was asked or has said, in Anthropic's format; None for what is none, or another's."""
    signature = seal_of(part, sealed_by) if isinstance(part, Reasoning) else None
    if signature is None or not signature.startswith(BLOCK):
        return None
    try:
        block: dict[str, Json] = orjson.loads(signature.removeprefix(BLOCK))
    except orjson.JSONDecodeError:  # a secret was taken out of it
        return None
    return block


def _content(parts: Sequence[Part]) -> Json:
    """A plain string, or a list where there are images."""
    texts: list[str] = []
    has_images = False
    for part in parts:
        if isinstance(part, Text):
            texts.append(part.text)
        elif isinstance(part, Image):
            has_images = True
    if not has_images:
        return clean("".join(texts))
    blocks: list[Json] = []
    for part in parts:
        if isinstance(part, Text):
            blocks.append({"type": "text", "text": clean(part.text)})
        elif isinstance(part, Image):
            url = f"data:{part.media_type};base64,{part.data}" if part.media_type else part.data
            blocks.append({"type": "image_url", "image_url": {"url": url}})
    return blocks
