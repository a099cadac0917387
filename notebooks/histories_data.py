"""Makes `notebooks/recorded/`, which 03-histories.ipynb reads: `python notebooks/histories_data.py`.

Six sessions, told by scripted models and by the embedded one, and recorded by the runtime as any others would be. Invented
are what the models say, their names, their counts of tokens and their prices; and afterwards the sessions are moved to days
of their own and stretched in time, because a scripted model answers in milliseconds.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recorded"
MONDAY = 1_788_768_000.0
"""2026-09-07 08:00:00 UTC."""
STRETCH = 24.0
PRICES = {"lab/large": (3.0, 15.0, 0.3, 3.75), "lab/small": (0.25, 1.25, 0.025, 0.3125)}
"""US dollars for a million tokens: in, out, read from the cache, written to it. Made up."""


def main() -> None:
    os.chdir(tempfile.mkdtemp())
    os.environ |= {"TURNCELL_STORE": str(Path("history.sqlite").resolve()), "TURNCELL_MODEL": "embedded"}
    from turncell import Agent, Rule, Session, ToolError, tool
    from turncell.core.deltas import Finished
    from turncell.core.parts import Usage
    from turncell.testing import ScriptedModel, call, say

    class Counted(ScriptedModel):
        """A scripted model with counts of tokens as a large model has them, most of them cached from the second step on."""

        async def stream(self, request: Any) -> AsyncIterator[list[Any]]:
            async for burst in super().stream(request):
                yield [self.counted(one, request.step) if isinstance(one, Finished) else one for one in burst]

        def counted(self, end: Any, step: int) -> Any:
            given, written = 2_400 + 60 * (end.usage.input_tokens or 0), 9 * (end.usage.output_tokens or 0)
            read = int(given * 0.8) if len(self.requests) > 1 else 0
            new = 0 if read else int(given * 0.75)
            if self.name not in PRICES:
                return replace(end, usage=Usage(given, written), cost_usd=None, cost_basis="none")
            a, b, c, d = PRICES[self.name]
            usd = ((given - read - new) * a + written * b + read * c + new * d) / 1e6
            return replace(end, usage=Usage(given, written, read, new), cost_usd=usd, cost_basis="prices")

    @tool(effect="read")
    def read_sales(quarter: str) -> str:
        """The sales of a quarter."""
        time.sleep(0.05)
        if quarter == "Q4":
            raise ToolError("the fourth quarter has not begun")
        return {"Q2": "north 412, south 388, west 296", "Q3": "north 432, south 391, west 242"}[quarter]

    @tool(effect="read")
    def refunds(region: str) -> str:
        """The refunds of a region."""
        time.sleep(0.03)
        return f"{region}: 280 orders of store 114, all of 14 August"

    @tool
    def send_report(to: str, text: str) -> str:
        """Send a report to somebody."""
        time.sleep(0.06)
        return f"sent to {to}"

    @tool(effect="read")
    def weather(city: str) -> dict[str, Any]:
        """The weather in a city."""
        return {"city": city, "temp_c": 3.5, "sky": "rain"}

    tools = [read_sales, refunds, send_report]

    def wait_and(answer: Callable[[Any], Any], run: Any, seconds: float) -> None:
        run.wait_request(10)
        time.sleep(seconds)
        answer(run)
        run.result(20)

    def counted(name: str, *script: Any) -> Any:
        return Counted(list(script), name, 0.004)

    large = counted(
        "lab/large",
        [say("I compare the two quarters."), call("read_sales", quarter="Q2"), call("read_sales", quarter="Q3")],
        [call("refunds", region="west")],
        "West fell by 18 %: store 114 refunded 280 orders after the outage of 14 August. North and south grew.",
        [call("send_report", to="Ana", text="West fell by 18 %, one store explains it.")],
        "Ana has it.",
    )
    session = Agent(large, tools=tools).session("Why did the west fall?")
    session.send("Why did sales in the west fall in Q3?").result(20)
    run = session.send("Send Ana a line about it.", is_attended=True)
    wait_and(lambda run: run.approve(), run, 0.25)
    sessions = [(0, session)]

    small = counted(
        "lab/small",
        [call("read_sales", quarter="Q3")],
        "North 432, south 391, west 242.",
        [call("read_sales", quarter="Q4")],
        "There is no fourth quarter yet.",
    )
    session = Agent(small, tools=tools).session("Numbers for the board")
    session.send("The regions in Q3, please.").result(20)
    session.send("And Q4?").result(20)
    sessions.append((1, session))

    large = counted(
        "lab/large",
        [call("send_report", to="everyone", text="West is falling.")],
        "Then I leave it.",
        [call("read_sales", quarter="Q2"), call("refunds", region="north")],
        "Nothing was refunded in the north that matters: its Q2 was 412.",
    )
    session = Agent(large, tools=tools).session("A report to all")
    run = session.send("Tell everyone that the west is falling.", is_attended=True)
    wait_and(lambda run: run.deny(reason="Not everyone. Only Ana."), run, 0.4)
    session.send("What of the north?").result(20)
    sessions.append((3, session))

    loops = counted(
        "lab/small",
        *[[call("read_sales", quarter=quarter)] for quarter in ("Q2", "Q3", "Q2", "Q3", "Q2", "Q3")],
        "I went round in circles: Q3 is better in the north, Q2 in the west.",
    )
    session = Agent(loops, tools=tools, max_steps=6).session("Round and round")
    session.send("Which quarter is the best?").result(20)
    sessions.append((4, session))

    local = counted("local/llama", [call("refunds", region="west")], "280 orders, all of one store.")
    session = Agent(local, tools=tools).session("The same on a model of our own")
    session.send("How many refunds are there in the west?").result(20)
    sessions.append((4, session))

    session = Agent("embedded", tools=[weather], rules=[Rule("weather", "allow")]).session("An embedded model")
    session.send("How is the weather in Oslo?").result(20)
    sessions.append((5, session))

    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.jsonl"):
        old.unlink()
    for number, (day, session) in enumerate(sessions, 1):
        assert isinstance(session, Session)
        path = session.export(f"{number}.jsonl", overwrite=True)
        target = FOLDER / f"{number}-{session.title.lower().replace(' ', '-').rstrip('?')}.jsonl"
        target.write_text(moved(path.read_text("utf-8"), MONDAY + 86_400 * day + 1_700 * number), "utf-8")


def moved(text: str, to: float) -> str:
    """A session that begins at `to` and takes STRETCH times as long, in no folder of a machine."""
    header, *lines = [json.loads(line) for line in text.splitlines()]
    began = header["created_at"]
    header |= {"project": "sales", "created_at": to}
    for line in lines:
        if line["type"] == "CallFinished":
            line["details"] = None  # a traceback, which names the files of a machine
        for name in [name for name in line if name == "at" or name.endswith(("_at", "_s"))]:
            if line[name] is not None:
                at = line[name] * STRETCH if name.endswith("_s") else to + (line[name] - began) * STRETCH
                line[name] = round(at, 6)
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (header, *lines))


if __name__ == "__main__":
    main()
