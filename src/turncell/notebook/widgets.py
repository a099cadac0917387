"""Widgets: the wire's end in the kernel, and nothing else. What they show is decided in `js/`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from turncell.notebook.bridge import KernelBridge
from turncell.notebook.link import Link
from turncell.runtime.run import Run

STATIC = Path(__file__).parent / "static"


class RunView(anywidget.AnyWidget):
    """A run, live. The trait `snapshot` is what a page starts from; the rest comes as messages (see `wire`)."""

    _esm = STATIC / "widget.js"
    _css = STATIC / "widget.css"
    snapshot = traitlets.Unicode("").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        bridge = KernelBridge.current()
        comm_id = uuid.uuid4().hex
        self.link = Link(self.send, self._checkpoint)
        # Before the comm opens: the page's hello may come while the kernel is still in this line.
        bridge.register(comm_id, self.link.take)
        self._bridge = bridge
        super().__init__(model_id=comm_id, **traits)
        self.on_msg(lambda _, content, buffers: self.link.take(content, buffers))

    def follow(self, run: Run) -> None:
        """Show this run."""
        self.link.follow(run)

    def mimebundle(self) -> dict[str, Any]:
        """What a display of this view takes."""
        made: Any = self._repr_mimebundle_()
        return dict(made[0] if isinstance(made, tuple) else made)

    def close(self) -> None:
        if self.comm is not None:
            self._bridge.unregister(self.comm.comm_id)
        super().close()

    def _checkpoint(self, text: str) -> None:
        self.snapshot = text

    def __repr__(self) -> str:
        return "RunView()"
