"""`shell`: IPython in this process, as a cell sees it."""

from __future__ import annotations

import builtins
import signal
from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from turncell.notebook.bridge import KernelBridge
from turncell.notebook.context import CellErrors


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    # Doctests leave one behind, and a shell keeps its own `_` away from it.
    monkeypatch.delattr(builtins, "_", raising=False)
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    # A shell starts what it puts into the background with SIGINT ignored, and so would these tests be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    shell = InteractiveShell.instance(config=config)
    CellErrors.of(shell)
    yield shell
    CellErrors.of(shell).close()
    KernelBridge.current().close()
    InteractiveShell.clear_instance()
    signal.signal(signal.SIGINT, before)
