"""Files of any size are imported in little memory, measured on a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from turncell import Agent
from turncell.adapters import markdown_document
from turncell.runtime.ports import Record, SessionInfo
from turncell.testing import ScriptedModel

pytestmark = pytest.mark.feature("C9")

SIZES_MB = pytest.mark.parametrize("size_mb", [20, pytest.param(200, marks=pytest.mark.full)])
FORMATS = pytest.mark.parametrize("suffix", [".jsonl", ".md"])
BOUND_MB = 150
TEXT_BYTES = 200_000

CODE = """
import sys
from pathlib import Path
from turncell import Session, StoreError
from turncell.adapters.sql_store import SQLStore
from turncell.runtime import portable
from turncell.runtime.journal import Journal

def memory_mb(name):
    line = next(one for one in open("/proc/self/status") if one.startswith(name + ":"))
    return int(line.split()[1]) / 1024

path, store, warm = map(Path, sys.argv[1:4])
journal = Journal(lambda: SQLStore.sqlite(store))
portable.copy_in(warm, journal)  # what is imported when it is first needed is none of the file's business
before = memory_mb("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
try:
    print(portable.copy_in(path, journal))
except StoreError as error:
    print(error)
print(memory_mb("VmHWM") - before)
journal.close()
"""


def small(tmp_path: Path) -> Path:
    session = Agent(ScriptedModel(["TEXT"])).session("small")
    session.send("Say something.").result()
    return session.export(tmp_path / "small.jsonl")


def large(tmp_path: Path, size_mb: int) -> tuple[dict[str, object], Iterator[bytes]]:
    """The header of a session and its records: many runs, each with a text of 200 kB."""
    header, *lines = small(tmp_path).read_bytes().splitlines()
    values = json.loads(header)
    run_id, runs = json.loads(lines[0])["run_id"].encode(), size_mb * 1_000_000 // TEXT_BYTES
    values |= {"session_id": "ses_large", "records": runs * len(lines)}

    def records() -> Iterator[bytes]:
        seq, session_id, previous = 0, json.loads(header)["session_id"].encode(), None
        for number in range(runs):
            for line in lines:
                seq += 1
                event = json.loads(line.replace(session_id, b"ses_large").replace(run_id, b"run_large_%d" % number))
                event["seq"] = seq
                if event["type"] == "RunStarted":
                    event["previous"], previous = previous, event["run_id"]
                text = json.dumps(event, separators=(",", ":")).encode()
                yield text.replace(b"TEXT", b"%07d " % number * (TEXT_BYTES // 8), 1) + b"\n"

    return values, records()


def write_large(path: Path, tmp_path: Path, size_mb: int) -> None:
    header, lines = large(tmp_path, size_mb)
    with path.open("wb") as file:
        if path.suffix == ".jsonl":
            file.write(json.dumps(header).encode() + b"\n")
            file.writelines(lines)
            return
        events = ((line, json.loads(line)) for line in lines)
        records = (
            Record("ses_large", e["seq"], e["run_id"], e["step"], e["type"], e["at"], line.rstrip())
            for line, e in events
        )
        markdown_document.write(file, SessionInfo("ses_large", "large", "", 1.0, 1.0, 0), records)


def imported(path: Path, tmp_path: Path) -> tuple[str, float]:
    """What it says, and how much memory it took at most, in MB over what it had before."""
    warm = tmp_path / "warm.jsonl"
    warm.write_bytes((tmp_path / "small.jsonl").read_bytes())
    program = [sys.executable, "-c", CODE, str(path), str(tmp_path / "into.sqlite"), str(warm)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said, peak_mb = done.stdout.strip().rsplit("\n", 1)
    return said, float(peak_mb)


@SIZES_MB
@FORMATS
def test_a_large_file_is_imported_in_little_memory(tmp_path: Path, suffix: str, size_mb: int) -> None:
    path = tmp_path / f"large{suffix}"
    write_large(path, tmp_path, size_mb)
    assert path.stat().st_size > size_mb * 1_000_000
    said, peak_mb = imported(path, tmp_path)
    assert said == "ses_large"
    assert peak_mb < BOUND_MB, f"{peak_mb:.0f} MB for a file of {path.stat().st_size / 1e6:.0f} MB"


@SIZES_MB
@FORMATS
@pytest.mark.parametrize("has_header", [True, False], ids=["one record", "one line"])
def test_a_line_without_an_end_is_refused_in_little_memory(
    tmp_path: Path, suffix: str, has_header: bool, size_mb: int
) -> None:
    path = tmp_path / f"hostile{suffix}"
    write_large(path, tmp_path, 1)
    with path.open("rb") as file:
        header = file.readline()
    mark = b"" if suffix == ".jsonl" else b"<!-- turncell record "
    with path.open("wb") as file:
        file.write(header + mark + b'{"type":"' if has_header else b'{"turncell":"')
        for _ in range(size_mb):
            file.write(b"x" * 1_000_000)
    said, peak_mb = imported(path, tmp_path)
    assert said.startswith(f"{path} is not imported: ")
    assert peak_mb < BOUND_MB, f"{peak_mb:.0f} MB for a file of {size_mb} MB"
