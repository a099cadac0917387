"""Every example of the README, the guides and the docstrings runs, and what they tell of is there."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import sys
from pathlib import Path
from typing import get_args

import pytest

import turncell
from tests.pytests import run_pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DESIGN = ROOT / "DESIGN.md"
CASSETTES = ROOT / "docs" / "cassettes.md"
GUIDES = [
    README, *(ROOT / "docs" / f"{name}.md" for name in ("runtime", "models", "sessions", "histories", "mcp", "telemetry", "batch")), CASSETTES,
]  # fmt: skip
MODULES = sorted(module.name for module in pkgutil.walk_packages(turncell.__path__, "turncell."))


def python_of(path: Path) -> str:
    """The examples of a document that are no cells, each on the lines on which it stands there."""
    lines, is_python = [], False
    text = re.sub(
        r"```python\n%load_ext.*?```\n", lambda cell: "\n" * cell[0].count("\n"), path.read_text("utf-8"), flags=re.S
    )
    for line in text.splitlines():
        is_fence = line.startswith("```")
        lines.append(line if is_python and not is_fence else "")
        is_python = line == "```python" if is_fence else is_python
    return "\n".join(lines)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_the_examples_of_a_guide_run_one_after_the_other(path: Path) -> None:
    code = python_of(path)
    assert "Agent(" in code
    exec(compile(code, str(path), "exec", dont_inherit=True), {"__name__": "guide"})


@pytest.mark.timeout(300)
def test_the_first_cells_of_the_readme_run_in_a_kernel_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    cells = re.findall(r"```(?:python)?\n(%.*?)```", README.read_text("utf-8"), re.S)
    assert [cell.split()[0] for cell in cells] == ["%load_ext", "%%agent"]
    asks = re.search(r"`(Send a note .*?)`", README.read_text("utf-8"))
    assert asks is not None
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in [*cells, f"%%agent\n{asks[1]}"]])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delenv("TURNCELL_MODEL", raising=False)
    NotebookClient(book, timeout=100, startup_timeout=100, kernel_name="python3").execute()
    answered, asked = (str(cell.outputs[-1]["data"]["text/markdown"]) for cell in book.cells[1:])
    assert "3 degrees and rain in Oslo" in answered and "send_note" in asked


def test_the_conftest_of_the_guide_gives_each_test_a_cassette(tmp_path: Path) -> None:
    found = re.search(r"```python\n(# conftest.py\n.*?)```", CASSETTES.read_text("utf-8"), re.S)
    assert found is not None
    (tmp_path / "conftest.py").write_text(found[1])
    (tmp_path / "test_mine.py").write_text(
        "import os\n"
        "from turncell import Agent\n"
        "from turncell.testing import ScriptedModel\n"
        "def test_weather(answers):\n"
        "    model = ScriptedModel(['Rain.'] if 'CASSETTES' in os.environ else [])\n"
        "    assert Agent(model).run_sync('How is the weather?').text == 'Rain.'\n"
    )
    for more in ({"CASSETTES": "record"}, {}):
        done = run_pytest(tmp_path, "test_mine.py", **more)
        assert "1 passed" in done.stdout, done.stdout
    assert (tmp_path / "cassettes" / "test_weather.jsonl").exists()


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_the_readme_names_every_setting() -> None:
    from dataclasses import fields

    text = README.read_text(encoding="utf-8")
    named = [f.name for f in fields(turncell.Settings) if f.name != "own_store"]  # which nobody sets
    assert [name for name in named if f"TURNCELL_{name.upper()}" not in text] == []


def test_the_readme_names_every_subcommand_of_the_magic() -> None:
    from turncell.notebook.commands import commands

    text = README.read_text(encoding="utf-8")
    assert [name for name in commands() if not re.search(rf"`(%agent )?{name}\b", text)] == []


def test_the_readme_names_every_status_that_fails_a_cell() -> None:
    from turncell.core.events import EndStatus
    from turncell.notebook.notebook import FAILS_THE_CELL

    [line] = [line for line in README.read_text("utf-8").splitlines() if "fails its cell" in line]
    assert set(re.findall(r"`(\w+)`", line)) == set(FAILS_THE_CELL) & set(get_args(EndStatus))


def test_every_public_name_is_there() -> None:
    assert [name for name in turncell.__all__ if not hasattr(turncell, name)] == []
    assert set(turncell.__all__) <= set(dir(turncell))


def test_the_design_names_every_room() -> None:
    """A module, a folder of tests or a document that the Layout does not know is one that nobody is told of."""
    text = DESIGN.read_text("utf-8")
    layout = re.sub(
        r"(\w+)\{([\w,]+)\}",
        lambda all_of: " ".join(all_of[1] + name for name in all_of[2].split(",")),
        text[text.index("## Layout") :],
    )
    known = set(re.findall(r"[\w-]+", layout))
    modules = [path for path in (ROOT / "src" / "turncell").rglob("*.py") if path.stem != "__init__"]
    folders = [path for name in ("tests", "docs", "js/src", "notebooks") for path in (ROOT / name).iterdir()]
    rooms = [path for path in folders if path.is_dir() or path.suffix not in (".py", "")]
    rooms = [path for path in rooms if not path.name.startswith(("__", "."))]
    assert [str(path.relative_to(ROOT)) for path in [*modules, *rooms] if path.stem not in known] == []


def test_the_design_names_every_signal_command_and_recorded_event() -> None:
    from turncell.core import events, signals

    text = DESIGN.read_text("utf-8")
    told = {name: set(re.findall(r"\w+", found[1])) for name, pattern in {
        "signals": r"all that the loop\s+ever learns: (.*?)\.", "commands": r"wishes in the imperative: (.*?);",
        "events": r"Recorded: `(.*?)`",
    }.items() if (found := re.search(pattern, text, re.S))}  # fmt: skip
    assert told == {
        "signals": {one.__name__ for one in get_args(signals.Signal)},
        "commands": {one.__name__ for one in get_args(signals.Command)},
        "events": {one.__name__ for one in events.Recorded.__subclasses__()},
    }


def test_the_design_tells_the_size_of_the_whole() -> None:
    """To a third: a number that is to the line is wrong tomorrow."""
    found = re.search(r"`core` and `runtime` have about ([\d,]+) lines, the whole package about ([\d,]+), and the page about ([\d,]+)", DESIGN.read_text("utf-8"))  # fmt: skip
    assert found is not None
    package, page = ROOT / "src" / "turncell", ROOT / "js" / "src"
    for said, files in zip(
        found.groups(),
        (
            [*package.glob("core/*.py"), *package.glob("runtime/*.py")],
            [*package.rglob("*.py")],
            [*page.rglob("*.ts")],
        ),
        strict=True,
    ):
        lines = sum(path.read_text("utf-8").count("\n") for path in files)
        assert 2 / 3 < lines / int(said.replace(",", "")) < 4 / 3
