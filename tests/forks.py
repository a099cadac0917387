"""Programs that begin within milliseconds, for tests that kill them: each is forked from a process that has imported
everything."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection

from turncell import settings

PARENTS = multiprocessing.get_context("forkserver")


class Fork:
    """Runs `code` until it calls `held()`; there it waits to be killed."""

    def __init__(self, code: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        PARENTS.set_forkserver_preload(["pytest", "tests.preloaded"])
        self._here, there = PARENTS.Pipe()
        self._process = PARENTS.Process(target=_play, args=(code, arguments, dict(environment), there))
        self._process.start()
        there.close()
        self._here.recv()  # EOFError: it has failed, and said why on stderr
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._here.close()


def _play(code: str, arguments: tuple[str, ...], environment: dict[str, str], there: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    settings.use(settings.Settings.from_environment())
    sys.argv[1:] = arguments

    def held() -> None:
        there.send("ready")
        there.recv()

    exec(compile(code, "<fork>", "exec"), {"__name__": "__main__", "held": held})
