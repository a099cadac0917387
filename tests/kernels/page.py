"""The front end of one cell, as the kernel meets it: what the page in `js/` says and hears, without a browser."""

from __future__ import annotations

from typing import Any, TypeVar

from turncell.core import codec
from turncell.core import events as ev
from turncell.core.fold import RunState, fold

from .conftest import Kernel, Message

E = TypeVar("E")


def views(kernel: Kernel, cell: str) -> list[str]:
    """The comm ids of the views that a cell has opened."""
    opened = kernel.children(cell, "comm_open")
    return [content["comm_id"] for content in opened if "_esm" in content["data"]["state"]]


class Page:
    """The view of the first turn in a cell. It says hello as soon as it can, unless told not to."""

    def __init__(self, kernel: Kernel, cell: str, *, says_hello: bool = True) -> None:
        self.kernel, self.cell = kernel, cell
        self.comm_id = kernel.hear(lambda: views(kernel, cell), "the view")[0]
        if says_hello:
            self.say("hello")
            self.ready = self.say("ready", have=-1)
            """Idle with this message as its parent: what was sent before it has reached the kernel."""

    # -- saying

    def say(self, type: str, **content: Any) -> str:
        return self.kernel.click(self.comm_id, type=type, **content)

    def answer(self, request: ev.RequestOpened, decision: str, **content: Any) -> None:
        """Answer with the digest that the card shows, unless another is given."""
        said = {"request_id": request.request_id, "digest": request.digest, "decision": decision}
        self.say("answer", **{**said, **content})

    # -- what it was told

    @property
    def messages(self) -> list[Message]:
        return [
            msg["content"]["data"]["content"]
            for _, msg in self.kernel.heard
            if msg["header"]["msg_type"] == "comm_msg"
            and msg["content"]["comm_id"] == self.comm_id
            and msg["content"]["data"].get("method") == "custom"
        ]

    def of_type(self, type: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == type]

    def events(self, up_to_seq: int | None = None) -> list[ev.Event]:
        """Everything it was told of the run, in order."""
        batches = [m for m in self.of_type("events") if up_to_seq is None or m["seq"] <= up_to_seq]
        return [codec.event_adapter().validate_python(event) for batch in batches for event in batch["events"]]

    @property
    def state(self) -> RunState:
        return fold(self.events())

    # -- waiting

    def hear(self, kind: type[E], count: int = 1, timeout_s: float = 60.0) -> E:
        """The last of so many events of this kind."""

        def found() -> list[E]:
            of_kind = [event for event in self.events() if isinstance(event, kind)]
            return of_kind[count - 1 : count]

        return self.kernel.hear(found, f"{kind.__name__} number {count}", timeout_s)[0]

    def hear_text(self, text: str, timeout_s: float = 60.0) -> None:
        self.kernel.hear(lambda: text in self.state.text, f"the text {text!r}", timeout_s)

    def hear_message(self, type: str, count: int = 1, timeout_s: float = 60.0) -> Message:
        return self.kernel.hear(lambda: self.of_type(type)[count - 1 : count], f"a {type} message", timeout_s)[0]
