"""What the tests of the direct models have in common: a model at a server of ours, and what holds for each format."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

import pytest

from tests.adapters.streams import KEY, hear, quickest, seconds_until_gone
from turncell import Agent, tool
from turncell.adapters.direct_model import DirectModel
from turncell.core.parts import Part
from turncell.errors import ModelFailure
from turncell.runtime.ports import ModelRequest
from turncell.testing import ProviderServer, Reply, fault, reply, serve


@tool(effect="read")
def add(a: int) -> str:
    """Add one."""
    return f"= {a + 1}"


class Direct:
    """How a model of one format is made: `model(server)`."""

    def __init__(self, kind: type[DirectModel], name: str, *, has_v1: bool, said_after: int) -> None:
        self.said_after = said_after
        """How many events there are before and with the first eight characters of an answer."""
        self._kind, self._name, self._has_v1 = kind, name, has_v1

    def __call__(self, server: ProviderServer, name: str | None = None, **more: Any) -> DirectModel:
        base_url = server.base_url if self._has_v1 else server.origin
        return self._kind(name or self._name, **{"api_key": KEY, "base_url": base_url, "timeout_s": 20, **more})

    def answer(self, one: Reply, request: ModelRequest | None = None, **more: Any) -> tuple[tuple[Part, ...], Any]:
        with serve([one]) as server:
            return asyncio.run(hear(self(server, **more), request))


class DirectRuns:
    """Whole runs; a class of tests of each format inherits these."""

    model: ClassVar[Direct]

    @pytest.mark.feature("A13")
    @pytest.mark.parametrize("first", [fault(429, retry_after_s=0.2), fault(529), reply("x", resets_after=0)])
    def test_what_fails_before_any_text_is_asked_again(self, first: Reply) -> None:
        with serve([first, "Fine."]) as server:
            began = time.monotonic()
            run = Agent(self.model(server)).run_sync("How are you?")
            took_s = time.monotonic() - began
            count = len(server.requests)
        assert (run.status, run.text, count) == ("completed", "Fine.", 2)
        assert took_s >= (first.retry_after_s or 0)

    @pytest.mark.feature("A13")
    def test_what_was_said_before_a_reset_is_kept(self) -> None:
        script = [reply("12345678 and more", resets_after=self.model.said_after), "never asked for"]
        with serve(script) as server:
            run = Agent(self.model(server)).run_sync("How are you?")
            assert len(server.requests) == 1
        assert (run.status, run.text) == ("failed", "12345678")

    @pytest.mark.feature("A13")
    @pytest.mark.parametrize("has_begun", [False, True])
    def test_silence_times_out(self, has_begun: bool) -> None:
        began = time.monotonic()
        with serve([reply("some text", hangs_after=has_begun * self.model.said_after)]) as server:
            _, found = asyncio.run(hear(self.model(server, timeout_s=0.3)))
            server.wait_until_closed()
        assert isinstance(found, ModelFailure) and found.kind == "timeout"
        assert time.monotonic() - began < 20

    @pytest.mark.feature("A11")
    @pytest.mark.parametrize("has_begun", [False, True])
    def test_the_server_sees_at_once_that_a_run_was_cancelled(self, has_begun: bool) -> None:
        def once() -> float:
            with serve([reply("some text", hangs_after=has_begun * self.model.said_after)]) as server:
                run = Agent(self.model(server)).start("How are you?")
                server.wait_until_open()
                time.sleep(0.2)
                run.cancel()
                took_s = server.wait_until_closed()
                assert run.result().status == "cancelled"
                return took_s

        assert quickest(once) < 0.1

    @pytest.mark.feature("A11")
    def test_cancelling_the_stream_itself_closes_the_connection(self) -> None:
        def once() -> float:
            with serve([reply("some text", hangs_after=3)]) as server:
                return asyncio.run(seconds_until_gone(lambda: hear(self.model(server)), server))

        assert quickest(once) < 0.1
