"""A server on loopback that sends exactly these bytes, on the loop of the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[["ByteServer", asyncio.StreamWriter], Awaitable[None]]


class ByteServer:
    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.requests: list[tuple[bytes, bytes]] = []
        """Head and body of what was asked."""
        self.connections = 0
        self.gone_at: list[float] = []
        """When clients were seen to be gone, on `time.monotonic`."""
        self._answer = answer

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
                )
                self.requests.append((head, await reader.readexactly(int(length.split(b":")[1]))))
                answering = asyncio.ensure_future(self._answer(self, writer))
                # Nothing more is asked before the answer, so that a read ends when the client goes.
                going = asyncio.ensure_future(reader.read(1)) if self.watches else None
                if going is not None:
                    await going
                    self.gone_at.append(time.monotonic())
                    answering.cancel()
                    break
                await answering
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    watches = False


@asynccontextmanager
async def byte_server(answer: Answer, *, watches: bool = False) -> AsyncIterator[ByteServer]:
    """With `watches` the server looks out for the client's going, and keeps no connection alive."""
    one = ByteServer(answer)
    one.watches = watches
    server = await asyncio.start_server(one.handle, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield one
    finally:
        server.close()


def plain(*pieces: bytes, status: str = "200 OK", headers: str = "", ends: bool = True, gap_s: float = 0.0) -> Answer:
    """These pieces, each in a chunk of its own; without `ends` the body is left open."""

    async def answer(server: ByteServer, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode())
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            if gap_s:
                await asyncio.sleep(gap_s)
        if ends:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        else:
            await asyncio.sleep(30)

    return answer
