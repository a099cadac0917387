"""A stream of events over HTTP: every way to cut it, to break it and to leave it."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adapters.byte_server import Answer, ByteServer, byte_server, plain
from tests.adapters.streams import quickest
from turncell.adapters.event_lines import Event, EventLines
from turncell.adapters.http_stream import Patience, Post, check_url, proxy_of
from turncell.adapters.provider_failures import retry_after, said_failure
from turncell.errors import ModelFailure, UsageError
from turncell.testing import ProviderServer, reply, serve

pytestmark = pytest.mark.feature("G2")

KEY = "sk-very-secret-0123456789"


def read(pieces: Sequence[bytes]) -> list[Event]:
    lines = EventLines()
    found = [event for piece in pieces for event in lines.events(piece)]
    return found + lines.end()


def payloads(pieces: Sequence[bytes]) -> list[bytes]:
    lines = EventLines()
    found = [payload for piece in pieces for payload in lines.payloads(piece)]
    return found + [data for _, data in lines.end()]


ODD = (
    "\ufeff\n: hello\n\nevent: start\ndata: {\"a\": \"zwölf 🌦\"}\n\n\n\ndata:no blank\n\n:\n\ndata: two\ndata: lines\n\n"
    "id: 7\nretry: 10\ndata: x\nevent: late\n\nevent: without data\n\ndata\n\ndata: \n\nnonsense\n\ndata: last"
)  # fmt: skip
ODD_EVENTS = [
    (b"start", '{"a": "zwölf 🌦"}'.encode()), (b"", b"no blank"), (b"", b"two\nlines"), (b"late", b"x"), (b"", b"last"),
]  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_events_are_the_same_however_they_are_cut(newline: str, size: int) -> None:
    wire = ODD.replace("\n", newline).encode()
    pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
    assert read(pieces) == ODD_EVENTS
    assert payloads(pieces) == [data for _, data in ODD_EVENTS]


@given(st.lists(st.integers(0, len(ODD.encode()) + 60), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
@settings(max_examples=200, deadline=None)
def test_events_are_the_same_at_any_cuts(cuts: list[int], newline: str) -> None:
    wire = ODD.replace("\n", newline).encode()
    ends = sorted({*cuts, len(wire)})
    assert read([wire[a:b] for a, b in zip([0, *ends], ends, strict=False)]) == ODD_EVENTS


def test_an_event_is_given_as_soon_as_its_last_byte_is_there() -> None:
    for newline in (b"\n", b"\r\n", b"\r"):
        lines = EventLines()
        wire = b"data: x" + newline * 2
        found = [lines.payloads(wire[at : at + 1]) for at in range(len(wire))]
        # A CR needs not wait for the LF that may follow it.
        assert found[-2 if newline == b"\r\n" else -1] == [b"x"]


def test_ten_megabytes_in_one_line_cost_no_square() -> None:
    wire = b"data: " + b"x" * 10_000_000 + b"\n\n"

    def cost(wire: bytes) -> float:
        began = time.thread_time()
        assert len(payloads([wire[at : at + 1000] for at in range(0, len(wire), 1000)])[0]) == len(wire) - 8
        return time.thread_time() - began

    small = cost(b"data: " + wire[6:1_000_006] + b"\n\n")
    assert cost(wire) < 40 * max(small, 0.005)


def test_a_json_value_is_one_payload() -> None:
    wire = b' \n {"choices":\n\n []}\n'
    for size in (1, 3, 100):
        lines = EventLines()
        assert [lines.payloads(wire[at : at + size]) for at in range(0, len(wire), size)][-1] == []
        assert lines.kind == "json" and [data for _, data in lines.end()] == [b'{"choices":\n\n []}\n']


def test_nothing_is_nothing() -> None:
    assert (
        read([]) == read([b""]) == read([b"\n\r\n"]) == read([b"\xef\xbb\xbf"]) == read([b": only a comment\n\n"]) == []
    )


# Over the network.


async def collect(server: ByteServer, **more: Any) -> tuple[list[bytes], Post]:
    found: list[bytes] = []
    headers = {"Authorization": f"Bearer {KEY}"}
    async with Post("a/model", server.url, b"{}", headers, key=KEY, **more) as answer:
        async for burst in answer:
            assert burst
            found += burst
    return found, answer


def play(answer: Answer, **more: Any) -> tuple[list[bytes], Post]:
    async def main() -> tuple[list[bytes], Post]:
        async with byte_server(answer) as server:
            return await collect(server, **more)

    return asyncio.run(main())


def fail(answer: Answer, **more: Any) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        play(answer, **more)
    assert KEY not in str(caught.value)
    assert str(caught.value).startswith("a/model: ")
    return caught.value


def test_done_is_the_end_and_not_an_event() -> None:
    found, answer = play(plain(b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\ndata: 3\n\n"))
    assert found == [b"1", b"2"] and answer.is_over


def test_a_server_that_does_not_stream_is_read_too() -> None:
    found, _ = play(plain(b'{"a":', b" 1}"))
    assert found == [b'{"a": 1}']


def test_names_and_data_come_as_pairs() -> None:
    async def main() -> list[Event]:
        named = plain(b"event: ping\ndata: {}\n\n", b"event: stop\ndata: 1\n\n")
        async with byte_server(named) as server, Post("m", server.url, b"{}", {}) as answer:
            return [event async for burst in answer.events() for event in burst]

    assert asyncio.run(main()) == [(b"ping", b"{}"), (b"stop", b"1")]


def test_connections_are_used_again() -> None:
    """Also where the end of the body comes after the end of the answer, and where an error was answered."""

    async def main(answer: Answer) -> int:
        async with byte_server(answer) as server:
            for _ in range(3):
                with suppress(ModelFailure):
                    await collect(server)
                for _ in range(30):  # many turns of the loop, also where one of them comes late
                    await asyncio.sleep(0.01)
            return server.connections

    async def late_end(server: ByteServer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\ndata: [DONE]\n\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    for answer in (plain(b"data: 1\n\n"), late_end, plain(b"{}", status="500 Oh")):
        assert asyncio.run(main(answer)) == 1


@pytest.mark.feature("A11")
def test_leaving_closes_the_connection_within_a_tenth_of_a_second() -> None:
    async def leave(server: ByteServer) -> None:
        async with Post("m", server.url, b"{}", {}) as answer:
            async for _ in answer:
                break

    async def cancel(server: ByteServer) -> None:
        task = asyncio.ensure_future(collect(server))
        while not server.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def silent(server: ByteServer, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def main(answer: Answer, go: Any) -> float:
        async with byte_server(answer, watches=True) as server:
            await go(server)
            began = time.monotonic()
            while not server.gone_at:
                assert time.monotonic() - began < 30
                await asyncio.sleep(0.001)
            return server.gone_at[0] - began

    text = plain(b"data: 1\n\n", ends=False)
    for answer, go in ((text, leave), (text, cancel), (silent, cancel)):
        assert quickest(lambda answer=answer, go=go: asyncio.run(main(answer, go))) < 0.1  # type: ignore[misc]


@pytest.mark.feature("A13")
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("400 Bad", b'{"error": {"message": "no", "type": "invalid_request_error"}}', "bad_request"),
        ("400 Bad", b'{"error": {"message": "no", "code": "context_length_exceeded"}}', "context_length"),
        ("400 Bad", b'{"object": "error", "message": "maximum context length is 8 tokens"}', "context_length"),
        ("400 Bad", b'{"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}', "context_length"),
        ("400 Bad", b'{"error": {"message": "no", "code": "content_filter"}}', "filter"),
        ("400 Bad", b'{"error": {"message": "no", "code": "tool_use_failed", "failed_generation": "f{}"}}', "protocol"),
        ("401 No", b'{"error": {"message": "Incorrect API key provided: %b"}}' % KEY.encode(), "auth"),
        ("403 No", b"", "auth"),
        ("404 No", b'{"detail": "Not Found"}', "not_found"),
        ("408 Late", b"", "timeout"),
        ("413 Big", b"", "context_length"),
        ("422 Odd", b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', "bad_request"),
        ("429 Slow", b'{"error": "slow down"}', "rate_limit"),
        ("429 Slow", b'{"error": {"message": "pay", "code": "insufficient_quota"}}', "auth"),
        ("500 Oh", b"<html><title>Internal</title></html>", "overloaded"),
        ("503 Busy", b"plain words", "overloaded"),
        ("504 Late", b"", "timeout"),
        ("529 Busy", b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', "overloaded"),
    ],
)
def test_statuses_and_words_have_a_kind(status: str, body: bytes, kind: str) -> None:
    found = fail(plain(body, status=status) if body else plain(status=status))
    assert (found.kind, found.status_code) == (kind, int(status[:3]))
    said = {
        b"failed_generation": "no: f{}",
        b"field required": "field required",
        b"<title>": "Internal",
        b"plain words": "plain words",
    }
    assert all(words in str(found) for start, words in said.items() if start in body)


@pytest.mark.feature("A13")
def test_a_refusal_without_a_word_is_told_by_its_status() -> None:
    assert str(fail(plain(b"{}", status="429 Slow"))).endswith(": status 429")


@pytest.mark.feature("A13")
def test_what_does_not_speak_http_is_said_in_words() -> None:
    async def garbage(server: ByteServer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()
        writer.close()

    found = fail(garbage)
    assert found.kind == "connection" and "does not speak HTTP" in str(found) and "\n" not in str(found)
    packed = fail(plain(b"\x0b\x02\x80hello\x03", headers="Content-Encoding: br\r\n"))
    assert "content-encoding" in str(packed) and "does not speak HTTP" not in str(packed)


@pytest.mark.feature("A13")
def test_how_long_to_wait_is_told() -> None:
    assert fail(plain(b"{}", status="429 Slow", headers="Retry-After: 7\r\n")).retry_after_s == 7.0
    both = "Retry-After: 7\r\nretry-after-ms: 250\r\n"
    assert fail(plain(b"{}", status="429 Slow", headers=both)).retry_after_s == 0.25
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    assert 200 < (retry_after({"Retry-After": at}) or 0) <= 300
    assert retry_after({"Retry-After": format_datetime(datetime(2001, 1, 1, tzinfo=UTC))}) == 0.0
    assert retry_after({"Retry-After": "soon"}) is None


@pytest.mark.feature("A13")
@pytest.mark.parametrize(
    "headers",
    [{"retry-after-ms": "inf"}, {"Retry-After": "9" * 400}, {"Retry-After": "1763816734"},
     {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}],
)  # fmt: skip
def test_a_pause_of_years_is_none(headers: dict[str, str]) -> None:
    """A batch would wait for it."""
    assert retry_after(headers) is None
    assert retry_after(headers | {"Retry-After": "3", "retry-after-ms": "inf"}) == 3.0


@pytest.mark.feature("A13")
def test_the_pause_may_stand_in_an_error_frame() -> None:
    error = {"code": "rate_limit_exceeded", "message": "Rate limit reached for m. Please try again in 1.2s."}
    assert said_failure("m", {"error": error}).retry_after_s == 1.2
    assert said_failure("m", {"error": {"message": "Try again in 3s", "code": "invalid_request"}}).retry_after_s is None


@pytest.mark.feature("A13")
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("auth", {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}),
        (
            "auth",
            {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"},
        ),
        ("not_found", {"message": "The model `x` does not exist", "code": "model_not_found"}),
        ("not_found", {"message": "Model Not Exist", "type": "invalid_request_error"}),
        ("not_found", {"message": "x/y is not a valid model ID", "code": 400}),
        ("bad_request", {"message": "temperature is not a number", "type": "invalid_request_error"}),
    ],
)
def test_a_bad_request_may_be_one_of_this_model_alone(kind: str, error: dict[str, Any]) -> None:
    assert said_failure("m", {"error": error}, status_code=400).kind == kind


@pytest.mark.parametrize(
    ("error", "kind", "status_code", "words"),
    [
        ({"error": {"code": 502, "message": "Provider returned error", "metadata": {"raw": "upstream died"}}},
         "overloaded", 502, "upstream died"),
        ({"error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded", None, "Overloaded"),
        ({"error": {"type": "rate_limit_error", "message": "wait"}}, "rate_limit", None, "wait"),
        ({"error": "the model crashed"}, "unknown", None, "the model crashed"),
        ([{"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}], "bad_request", 400, "bad"),
        ({"error": {}}, "unknown", None, "{"),
        (None, "unknown", None, "without a word"),
    ],
)  # fmt: skip
def test_error_frames_have_a_kind(error: Any, kind: str, status_code: int | None, words: str) -> None:
    found = said_failure("m", error)
    assert (found.kind, found.status_code) == (kind, status_code)
    assert words in str(found)


@pytest.mark.feature("A13")
def test_a_connection_that_is_lost() -> None:
    def reset(*pieces: bytes) -> Answer:
        async def answer(server: ByteServer, writer: asyncio.StreamWriter) -> None:
            if pieces:
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                writer.write(head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
                await writer.drain()
                await asyncio.sleep(0.1)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

        return answer

    before, after = fail(reset()), fail(reset(b"data: 1\n\n"))
    assert before.kind == after.kind == "connection"
    assert "cannot reach http://127.0.0.1" in str(before) and "base_url" in str(before)
    assert "lost the connection to http://127.0.0.1" in str(after)
    assert before.__cause__ is not None and after.__cause__ is not None


@pytest.mark.feature("A13")
def test_nobody_listens_and_nobody_is_known() -> None:
    async def main(url: str) -> ModelFailure:
        with pytest.raises(ModelFailure) as caught:
            async with Post("m", url, b"{}", {}):
                pass
        return caught.value

    refused, unknown = asyncio.run(main("http://127.0.0.1:9/v1")), asyncio.run(main("http://no.such.host.invalid/v1"))
    assert refused.kind == unknown.kind == "connection"
    assert "refused" in str(refused)
    assert "'no.such.host.invalid'" in str(unknown)


@pytest.mark.feature("A13")
def test_silence_ends_in_a_timeout() -> None:
    async def silent(server: ByteServer, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    for answer, patience in (
        (silent, Patience(first_s=0.2, connect_s=0.5)),
        (plain(ends=False), Patience(first_s=0.3)),
        (plain(b"data: 1\n\n", ends=False), Patience(between_s=0.3)),
    ):
        began = time.monotonic()
        found = fail(answer, patience=patience)
        assert found.kind == "timeout" and "timeout_s" in str(found)
        assert time.monotonic() - began < 20


def test_each_of_many_answers_has_its_own_patience() -> None:
    """One timer looks after all of a loop, whoever comes first or goes first."""

    async def asked(server: ByteServer, between_s: float) -> tuple[str, float]:
        began = time.monotonic()
        try:
            await collect(server, patience=Patience(between_s=between_s))
        except ModelFailure as failure:
            return failure.kind, time.monotonic() - began
        return "", time.monotonic() - began

    async def main() -> list[tuple[str, float]]:
        slow = plain(b"data: 1\n\n", b"data: 2\n\n", gap_s=2.0)
        async with byte_server(slow) as server:
            together = await asyncio.gather(*(asked(server, between_s) for between_s in (60.0, 0.6, 0.2, 60.0)))
            return [*together, await asked(server, 0.2)]

    ends, times_s = zip(*asyncio.run(main()), strict=True)
    assert ends == ("", "timeout", "timeout", "", "timeout")
    assert 0.6 <= times_s[1] < 2.0 and 0.2 <= times_s[2] < times_s[1] and 0.2 <= times_s[4] < 2.0


@pytest.mark.parametrize("is_in_time", [True, False])
def test_who_is_cancelled_while_it_waits_for_a_status_is_cancelled_and_not_late(is_in_time: bool) -> None:
    async def silent(server: ByteServer, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def main() -> tuple[str, int]:
        async with byte_server(silent) as server:
            task = asyncio.current_task()
            assert task is not None
            patience = Patience(connect_s=0.2, first_s=60.0 if is_in_time else 0.2)
            cancelling = asyncio.get_running_loop().call_later(0.1, task.cancel) if is_in_time else None
            try:
                await collect(server, patience=patience)
            except asyncio.CancelledError:
                return "cancelled", task.uncancel()
            except ModelFailure as failure:
                assert cancelling is None
                return failure.kind, task.cancelling()
            return "nothing", 0

    assert asyncio.run(main()) == ("cancelled" if is_in_time else "timeout", 0)


def test_who_goes_on_talking_is_not_silent() -> None:
    slow = plain(*[b"data: 1\n\n", b": still here\n\n"] * 4, gap_s=0.15)
    found, _ = play(slow, patience=Patience(first_s=1.0, between_s=1.0))
    assert len(found) == 4


def test_a_reader_that_is_busy_elsewhere_is_not_kept_waiting() -> None:
    async def main() -> int:
        count, patience = 0, Patience(between_s=0.2)
        two = plain(b"data: 1\n\n", b"data: 2\n\n", gap_s=0.05)
        async with byte_server(two) as server, Post("m", server.url, b"{}", {}, patience=patience) as answer:
            async for burst in answer:
                count += len(burst)
                await asyncio.sleep(0.6)
        return count

    assert asyncio.run(main()) == 2


@pytest.mark.feature("A13")
def test_what_came_while_the_process_stood_still_is_not_too_late() -> None:
    """As after a closed laptop: the limit is over when the bytes are there, and nobody has read them yet."""

    async def main(server: ProviderServer) -> int:
        loop, count = asyncio.get_running_loop(), 0
        real = loop.time

        def stand_still(answer: Post) -> None:
            assert answer._response is not None and answer._response.connection is not None
            wire = answer._response.connection.transport.get_extra_info("socket")  # type: ignore[union-attr]
            select.select([wire], [], [], 60)
            loop.time = lambda: real() + 1_000  # type: ignore[method-assign]

        patience = Patience(between_s=900)
        body = b'{"stream": true, "messages": []}'
        async with Post("m", f"{server.base_url}/chat/completions", body, {}, patience=patience) as answer:
            async for burst in answer:
                if not count:
                    loop.call_soon(loop.call_soon, stand_still, answer)  # when it waits for more
                count += len(burst)
        return count

    with serve([reply("12345678" * 10, delay_s=0.05)]) as server:
        assert asyncio.run(main(server)) > 10


def test_a_web_page_is_not_an_answer() -> None:
    found = fail(plain(b"<!doctype html><html></html>"))
    assert found.kind == "protocol" and "web page" in str(found) and "base_url" in str(found)


def test_the_key_is_not_carried_elsewhere() -> None:
    found = fail(plain(status="307 Moved", headers="Location: http://127.0.0.1:9/other\r\n"))
    assert found.kind == "not_found" and "http://127.0.0.1:9/other" in str(found)


def test_a_key_that_no_header_can_have() -> None:
    async def main() -> ModelFailure:
        with pytest.raises(ModelFailure) as caught:
            async with Post("m", "http://127.0.0.1:9", b"{}", {"Authorization": "Bearer a\nb"}):
                pass
        return caught.value

    assert "'Authorization'" in str(asyncio.run(main()))


def test_tls_that_fails_is_said(tmp_path: Any) -> None:
    async def main(url: str) -> ModelFailure:
        with pytest.raises(ModelFailure) as caught:
            async with Post("m", url, b"{}", {}):
                pass
        return caught.value

    def make_certificate() -> None:
        command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost"
        command += " -addext subjectAltName=DNS:localhost"
        subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True)

    async def not_tls() -> ModelFailure:
        server = await asyncio.start_server(
            lambda reader, writer: writer.write(b"HTTP/1.1 400 Bad\r\n\r\n"), "127.0.0.1", 0
        )
        async with server:
            return await main(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")

    async def unknown_issuer() -> ModelFailure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
        async with server:
            return await main(f"https://localhost:{server.sockets[0].getsockname()[1]}/v1")

    make_certificate()
    plain_text, issuer = asyncio.run(not_tls()), asyncio.run(unknown_issuer())
    assert plain_text.kind == issuer.kind == "connection"
    assert "TLS failed" in str(plain_text)
    assert "certificate" in str(issuer) and "SSL_CERT_FILE" in str(issuer)


def test_proxies_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    assert proxy_of("https://api.example.org/v1") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example.org")
    assert proxy_of("https://api.example.org/v1") == "http://proxy:3128"
    assert proxy_of("https://inside.example.org/v1") is None
    assert proxy_of("https://localhost/v1") is proxy_of("https://127.0.0.1:1/v1") is None
    assert proxy_of("http://api.example.org/v1") is None


def test_requests_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[list[bytes], bytes]:
        async with byte_server(plain(b"data: 1\n\n")) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
            target = ByteServer(plain())
            target.url = "http://api.example.invalid/v1"
            found, _ = await collect(target)
            return found, proxy.requests[0][0]

    found, head = asyncio.run(main())
    assert found == [b"1"] and head.startswith(b"POST http://api.example.invalid/v1 ")


def test_an_address_that_is_none_is_refused() -> None:
    assert check_url("http://localhost:1234/v1/") == "http://localhost:1234/v1"
    for url in ("localhost:1234", "ftp://x/y", "", "https://"):
        with pytest.raises(UsageError, match="base_url"):
            check_url(url)


PROCESS = """
import asyncio, os, sys
sys.path.insert(0, {root!r})
from tests.adapters.byte_server import byte_server, plain
from turncell.adapters.http_stream import Post
async def ask(url):
    async with Post("m", url, b"{{}}", {{}}) as answer:
        return [one async for burst in answer for one in burst]
{code}
"""


def run_python(code: str) -> str:
    root = os.getcwd()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROCESS.format(root=root, code=code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "nclosed" not in done.stderr and "Error" not in done.stderr, done.stderr
    return done.stdout.strip()


def test_a_process_ends_without_a_complaint() -> None:
    """Whether its loop was closed, was left open, or runs in a thread."""
    code = """
async def main():
    async with byte_server(plain(b"data: 1\\n\\n")) as server:
        return [await ask(server.url) for _ in range(2)]
print(asyncio.run(main()))
import threading
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
print(asyncio.run_coroutine_threadsafe(main(), loop).result())
"""
    assert run_python(code) == "[[b'1'], [b'1']]\n[[b'1'], [b'1']]"


def test_a_forked_child_has_connections_of_its_own() -> None:
    code = """
import threading
up, servers = threading.Event(), []
async def serve():
    async with byte_server(plain(b"data: 1\\n\\n")) as server:
        servers.append(server)
        up.set()
        await asyncio.sleep(60)
threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
up.wait()
url = servers[0].url
loop = asyncio.new_event_loop()
loop.run_until_complete(ask(url))
child = os.fork()
if child == 0:
    print(asyncio.run(ask(url)), flush=True)
    sys.exit()
os.waitpid(child, 0)
print(loop.run_until_complete(ask(url)), servers[0].connections, flush=True)
"""
    assert run_python(code) == "[b'1']\n[b'1'] 2"


@pytest.mark.feature("C4")
@pytest.mark.parametrize(
    ("status_code", "text"),
    [
        (400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),  # xAI
        (400, "Invalid request: Your request exceeded model token limit: 262144 (requested: 291351)"),  # Moonshot
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),  # vLLM
        (400, "prompt token count of 128001 exceeds the limit of 128000"),  # GitHub Copilot
        (400, "Prompt exceeds max length"),  # Zhipu
        (400, "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]"),  # DashScope
        (
            422,
            "`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 100",
        ),  # TGI, Together
        (400, "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."),  # Gemini
        (400, "the request exceeds the available context size, try increasing it"),  # llama.cpp
        (400, "prompt too long; exceeded max context length by 12 tokens"),  # Ollama
        (400, "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length"),
        (400, "invalid params, context window exceeds limit (2013)"),  # MiniMax
        (413, "Request too large for model `m`: Limit 6000, Requested 9000, please reduce your message size"),  # Groq
    ],
)
def test_what_is_too_long_is_known_in_the_words_of_all(status_code: int, text: str) -> None:
    assert said_failure("m", {"error": {"message": text}}, status_code=status_code).kind == "context_length"
    assert said_failure("m", {"error": {"message": text}}, status_code=429).kind == "rate_limit"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "bad_request",
            "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude-3-5",
        ),
        ("bad_request", "max_tokens is too large: 100000. This model supports at most 16384 completion tokens"),
        ("bad_request", "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        ("rate_limit", "Too many tokens, please wait before trying again."),  # Bedrock
    ],
)
def test_what_asks_for_too_much_is_not_too_long(kind: str, text: str) -> None:
    error = {"error": {"message": text, "code": "throttling" if kind == "rate_limit" else ""}}
    assert said_failure("m", error, status_code=None if kind == "rate_limit" else 400).kind == kind


@pytest.mark.feature("A13")
@pytest.mark.parametrize(
    ("body", "pause_s"),
    [
        (b'[{"error": {"code": 429, "message": "Quota exceeded.", "details": ['
         b'{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]}}]', 34.0),
        (b'{"error": {"message": "Rate limit reached for m. Please try again in 1.5s."}}', 1.5),
        (b'{"error": {"message": "Rate limit reached for m. Please try again in 160ms."}}', 0.16),
        (b'{"error": {"code": "429", "message": "Please retry after 20 seconds."}}', 20.0),
        (b'{"error": {"message": "Please try again in 6m0s."}}', None),
        (b'{"error": {"message": "Please try again later."}}', None),
    ],
)  # fmt: skip
def test_the_pause_may_stand_in_the_body(body: bytes, pause_s: float | None) -> None:
    """Google names it nowhere else."""
    assert fail(plain(body, status="429 Slow")).retry_after_s == pause_s
    assert fail(plain(body, status="429 Slow", headers="Retry-After: 3\r\n")).retry_after_s == 3.0
