"""`%%agent` and `%agent` as somebody types them: every pair of options, the commands, the settings, in IPython without a kernel."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from turncell import Session, settings
from turncell.runtime import project

SETUP = '''
import enum
from dataclasses import dataclass
from typing import Literal
from typing_extensions import TypedDict
import pandas as pd
from turncell import Agent, tool
from turncell.testing import ScriptedModel, call

@tool(effect="read")
def weather(city: str) -> str:
    """The weather."""
    return "3 degrees"

class Colour(enum.Enum):
    red = "red"

class Pair(TypedDict):
    a: int

@dataclass
class Label:
    name: str

df = pd.DataFrame({"c": ["Oslo", "Rome"]})
model = ScriptedModel(["7"] * 2000)
demo = Agent(model, tools=[weather])
'''


@dataclass
class Cells:
    """Cells that are run one by one, and what they say."""

    shell: InteractiveShell

    def run(self, source: str, cell_id: str | None = None) -> tuple[bool, str]:
        with capture_output() as captured:
            done = self.shell.run_cell(source, store_history=True, cell_id=cell_id)
        shown = [output.data.get("text/plain", "") for output in captured.outputs]
        text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join([captured.stdout + captured.stderr, *shown]))
        return bool(done.success), text.strip()

    def says(self, source: str, cell_id: str | None = None) -> str:
        is_well, said = self.run(source, cell_id)
        assert is_well, said
        return said

    def refuses(self, source: str) -> str:
        is_well, said = self.run(source)
        assert not is_well, f"{source!r} was not refused: {said}"
        assert "\n" not in said and said.startswith("UsageError: "), said
        return said.removeprefix("UsageError: ")

    def told(self) -> str:
        """What the model was told with its last request."""
        return "\n".join(message.text for message in self.shell.user_ns["model"].requests[-1].messages)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's config folder, in a folder of this test, in which another is the one where people work."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(project, "_set", {})
    folder = settings.user_file().parent
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def cells(shell: InteractiveShell, config: Path) -> Iterator[Cells]:
    shell.run_line_magic("load_ext", "turncell")
    made = Cells(shell)
    made.says(SETUP)
    yield made
    shell.run_line_magic("unload_ext", "turncell")


OPTIONS = {
    "context": "--context none", "vars": "--vars df", "raw": "--raw", "schema": "--schema int", "out": "-o r",
    "mode": "--mode plan", "max-steps": "--max-steps 3", "budget": "--budget calls=9", "timeout": "--timeout 60",
    "new": "--new", "continue": "--continue", "session": "--session SESSION", "fork": "--fork", "retry": "--retry",
    "cached": "--cached c.jsonl", "map": "--map df", "resume": "--resume b", "detach": "--detach",
    "view": "--view none",
}  # fmt: skip
REFUSED = {
    *(("new", other) for other in ("continue", "session", "fork", "retry")),
    ("continue", "session"),
    ("cached", "detach"),
    *(("map", other) for other in ("detach", "retry", "fork", "continue", "session", "new", "context", "vars", "raw", "view")),
}  # fmt: skip


@pytest.mark.feature("D8", "D12")
def test_each_pair_of_options_works_or_is_refused_in_one_line(cells: Cells) -> None:
    cells.says("%%agent -a demo -o first\nhello")
    session = cells.shell.user_ns["first"].session.id
    for one, other in itertools.combinations(OPTIONS, 2):
        cell = f"%%agent -a demo {OPTIONS[one]} {OPTIONS[other]}\nSay {{c}}".replace("SESSION", session)
        if {(one, other), (other, one)} & REFUSED:
            told = cells.refuses(cell)
            assert "do not go together: " in told and f"--{one}" in told and f"--{other}" in told
        elif "resume" in (one, other) and "map" not in (one, other):
            assert "belongs to --map" in cells.refuses(cell)
        else:
            cells.says(cell)


@pytest.mark.feature("D8", "D12")
@pytest.mark.parametrize("option", ["-m embedded", "-t weather", "-i 'Be brief.'"])
def test_an_agent_and_what_it_has_of_its_own_do_not_go_together(cells: Cells, option: str) -> None:
    assert "do not go together: the agent demo has its own" in cells.refuses(f"%%agent -a demo {option}\nhello")
    assert "do not go together" in cells.refuses(f"%agent fix -a demo {option}")


@pytest.mark.feature("D8", "F1")
def test_the_mode_and_the_steps_of_a_map_count(cells: Cells) -> None:
    cells.says(
        "@tool\ndef pay() -> str:\n    'Pay.'\n    return 'paid'\n"
        "payer = Agent(ScriptedModel(lambda request: call('pay')), tools=[pay], mode='auto')"
    )
    cells.says("%%agent -a payer --map df --mode plan --max-steps 2 -o rows\nPay {c}")
    cells.says("from turncell import calls_df; made = calls_df()")
    assert set(cells.shell.user_ns["rows"]["status"]) == {"max_steps"}
    assert set(cells.shell.user_ns["made"]["status"]) == {"denied"}
    assert cells.shell.user_ns["payer"].mode == "auto"


@pytest.mark.feature("D8", "C10")
def test_a_fork_that_retries_leaves_the_session_as_it_was(cells: Cells) -> None:
    cells.says("%%agent -a demo -o first\nhello")
    cells.says("%%agent -a demo -o second --fork --retry\nhello again")
    first, second = cells.shell.user_ns["first"], cells.shell.user_ns["second"]
    assert first.session.id != second.session.id
    assert [run.prompt.text for run in second.session.runs] == ["hello again"]
    assert [run.prompt.text for run in first.session.runs] == ["hello"]


@pytest.mark.feature("A19", "D8")
@pytest.mark.parametrize(
    ("type_", "answer", "output"),
    [
        ("list[int]", "[1, 2]", "[1, 2]"),
        ("int|None", "null", "None"),
        ("Literal['yes','no']", '"no"', "'no'"),
        ('"dict[str, list[int]]"', '{"a": [1]}', "{'a': [1]}"),
        ("Colour", '"red"', "<Colour.red: 'red'>"),
        ("Pair", '{"a": 3}', "{'a': 3}"),
        ("Label", '{"name": "spam"}', "Label(name='spam')"),
    ],
)
def test_a_schema_is_any_type_as_an_annotation_says_it(cells: Cells, type_: str, answer: str, output: str) -> None:
    cells.says(f"model = ScriptedModel([{answer!r}]); demo = Agent(model)")
    cells.says(f"%%agent -a demo -o run --schema {type_}\nWhat is it?")
    assert repr(cells.shell.user_ns["run"].output) == output


@pytest.mark.feature("A19", "D12")
@pytest.mark.parametrize(
    ("type_", "told"),
    [
        ("df", "--schema df: that is DataFrame, which cannot be asked for: "),
        ("list[Nope]", "'Nope' is not defined in this notebook; define it in a cell above"),
        ("print()", "--schema print(): that is no type; use a type, like Label or list[int]"),
        ("3", "--schema 3: that is int, not a type"),
        ("print", "is a function; use a type"),
    ],
)
def test_what_is_no_type_is_refused(cells: Cells, type_: str, told: str) -> None:
    assert told in cells.refuses(f"%%agent -a demo --schema {type_}\nWhat is it?")


@pytest.mark.feature("D8")
def test_an_option_for_several_may_be_given_several_times(cells: Cells) -> None:
    cells.says("@tool\ndef pay() -> str:\n    'Pay.'\n    return 'paid'\na, b = 'first', 'second'")
    cells.says("%%agent -t weather -t pay --vars a --vars b -o run\nhello")
    state = cells.shell.user_ns["run"].state
    told = "\n".join(passage.text for passage in state.passages)
    assert state.tools == ("weather", "pay") and "'first'" in told and "'second'" in told


@pytest.mark.feature("D8", "D12")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("%%agent --budget $0.5\nhello", "--budget '$0.5': '$0.5' is no number; write dollars, like 0.50"),
        ("%%agent --session ses_x\nhello", "there is no session 'ses_x' in this history; %agent sessions --all lists"),
    ],
)
def test_a_mistake_is_told_with_what_to_write_in_a_cell(cells: Cells, line: str, told: str) -> None:
    assert cells.refuses(line).startswith(told)


@pytest.mark.feature("D10", "D8")
def test_a_column_is_named_in_vars_as_in_code(cells: Cells) -> None:
    cells.says("%%agent -a demo --context none --vars df['c']\nhello")
    assert "df['c']: Series of 2" in cells.told() or "Oslo" in cells.told()


@pytest.mark.feature("D8", "D12")
def test_a_command_in_the_wrong_place_is_said_to_be_one(cells: Cells) -> None:
    told = "%%agent: unrecognized arguments: status; %agent status is a command, in a cell of its own"
    assert cells.refuses("%%agent status\nhello") == told
    assert cells.refuses("%%agent --colour\nhello").endswith("; %%agent? lists the options")
    assert "begin one with %%agent" in cells.refuses("%%agent -a demo --continue\nhello")


@pytest.mark.feature("D8")
def test_help_tells_of_one_command_too(cells: Cells) -> None:
    assert cells.says("%agent help tools").startswith("%agent tools ")
    assert cells.refuses("%agent help tulls") == "%agent help tulls: there is no such command; %agent help lists them"


@pytest.mark.feature("A9", "D8")
def test_a_budget_that_is_used_up_says_what_a_cell_can_do(cells: Cells) -> None:
    is_well, said = cells.run("%%agent -a demo --context none --budget tokens=1\nhello")
    assert not is_well and said.endswith("raise it with --budget tokens=...")


@pytest.mark.feature("D8")
def test_comments_may_stand_above_a_turn(cells: Cells) -> None:
    cells.says("# the weather\n\n%%agent -a demo --context none\n# Oslo\nHow is it?")
    assert cells.told() == "# Oslo\nHow is it?"
    assert not cells.run("x = 1\n%%agent -a demo\nhello")[0]
    cells.shell.run_line_magic("unload_ext", "turncell")
    assert not any(one.__module__.startswith("turncell") for one in cells.shell.input_transformers_cleanup)
    cells.shell.run_line_magic("load_ext", "turncell")


@pytest.mark.feature("D10")
class TestFix:
    def test_a_cell_that_was_edited_and_runs_well_needs_no_fix(self, cells: Cells) -> None:
        cells.run("1 / 0", "cell-a")
        cells.run("[][1]", "cell-b")
        cells.says("1 / 2", "cell-a")
        cells.says("%agent fix -a demo --context none")
        assert "[][1]" in cells.told() and "1 / 0" not in cells.told()
        cells.says("[1][0]", "cell-b")
        assert "nothing to fix" in cells.refuses("%agent fix -a demo")

    def test_a_cell_that_cannot_be_read_is_told_with_its_place(self, cells: Cells) -> None:
        cells.run("x = = 3")
        cells.says("%agent fix -a demo --context none")
        assert "x = = 3" in cells.told() and "SyntaxError: invalid syntax" in cells.told()

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ("-o my-run", "-o 'my-run' is no name of a variable"),
            ("--map df", "%agent fix and --map do not go together"),
            ("--raw", "%agent fix and --raw do not go together"),
            ("--resume x", "--resume is the name of a batch"),
            ("--colour", "%agent fix [CELL]: unrecognized arguments: --colour"),
        ],
    )
    def test_its_options_are_checked_as_those_of_a_cell(self, cells: Cells, options: str, told: str) -> None:
        cells.run("1 / 0")
        assert told in cells.refuses(f"%agent fix -a demo {options}")

    def test_it_is_answered_from_a_cassette(self, cells: Cells) -> None:
        cells.run("1 / 0")
        cells.says("%agent fix -a demo --context none --new --cached fix.jsonl")
        asked = len(cells.shell.user_ns["model"].requests)
        cells.says("%agent fix -a demo --context none --new --cached fix.jsonl")
        assert Path("fix.jsonl").stat().st_size > 0 and len(cells.shell.user_ns["model"].requests) == asked


@pytest.mark.feature("D8", "B7")
class TestSettings:
    def test_what_config_sets_counts_also_after_a_command_has_set_it(self, cells: Cells) -> None:
        cells.says("%config TurncellMagics.mode = 'plan'")
        cells.says("%agent mode auto")
        assert cells.says("%config TurncellMagics.mode") == "Out[4]: 'auto'"
        cells.says("%config TurncellMagics.mode = 'plan'")
        assert cells.says("%agent mode") == "plan"

    @pytest.mark.parametrize(
        ("name", "value"), [("max_steps", 0), ("model", "two words"), ("model", ""), ("request_timeout_s", 0.0)]
    )
    def test_what_cannot_be_is_not_set(
        self, cells: Cells, name: str, value: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = getattr(settings.current(), name)
        cells.says(f"%config TurncellMagics.{name} = {value!r}")
        assert getattr(settings.current(), name) == before
        assert f"setting '{name}' is" in caplog.text

    def test_what_config_set_or_refused_before_does_not_come_back_with_a_reload(self, cells: Cells) -> None:
        cells.says("%config TurncellMagics.mode = 'auto'")
        cells.says("%agent mode plan")
        cells.says("%config TurncellMagics.context = 'no such'")
        cells.says("%reload_ext turncell")
        assert cells.says("%agent mode") == "plan"
        cells.says("%unload_ext turncell")
        cells.says("%load_ext turncell")
        assert cells.says("%agent mode") == "plan"

    def test_what_config_has_refused_does_not_keep_the_extension_from_being_loaded_anew(self, cells: Cells) -> None:
        cells.says("%config TurncellMagics.max_steps = 7")
        cells.says("%config TurncellMagics.mode = 'yolo'")
        cells.says("%reload_ext turncell")
        assert cells.says("%agent mode") == "ask" and settings.current().max_steps == 7

    def test_a_configuration_that_cannot_be_loads_nothing_and_says_so_in_one_line(
        self, shell: InteractiveShell
    ) -> None:
        cells = Cells(shell)
        shell.config.TurncellMagics.mode = "yolo"
        told = cells.refuses("%load_ext turncell")
        assert "'yolo'" in told and told.endswith("correct c.TurncellMagics in IPython's configuration")
        assert "not found" in cells.refuses("%agent")
        shell.config.TurncellMagics.mode = "plan"
        cells.says("%load_ext turncell")
        assert cells.says("%agent mode") == "plan"
        cells.says("%unload_ext turncell")

    def test_a_file_of_the_user_is_read_before_the_environment(self, config: Path) -> None:
        (config / "settings.toml").write_text('mode = "plan"\nmax_steps = 5\nrequest_timeout_s = 60\n')
        found = settings.Settings.of_user(environment={"TURNCELL_MAX_STEPS": "7"})
        assert (found.mode, found.max_steps, found.request_timeout_s, found.model) == ("plan", 7, 60, "embedded")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("mode =", "settings.toml is no TOML: "),
            ('modle = "x"', "settings.toml: 'modle' cannot be set here; use model, mode, unattended"),
            ('max_steps = "5"', "settings.toml: setting 'max_steps' is '5'; use a whole number"),
            ("max_steps = true", "settings.toml: setting 'max_steps' is True; use a whole number"),
            ("model = 3", "settings.toml: setting 'model' is 3; use a text in quotes"),
            ('mode = "yolo"', "settings.toml: setting 'mode' is 'yolo'; use one of ask, "),
        ],
    )
    def test_a_file_that_cannot_be_loads_nothing(
        self, shell: InteractiveShell, config: Path, text: str, told: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (config / "settings.toml").write_text(text)
        monkeypatch.setattr(settings, "_current", None)
        assert told in Cells(shell).refuses("%load_ext turncell")
        assert "not found" in Cells(shell).refuses("%agent")

    def test_a_project_counts_when_it_is_accepted_and_no_more_when_that_is_taken_back(self, cells: Cells) -> None:
        Path(".turncell").mkdir()
        Path(".turncell/settings.toml").write_text('model = "openai/other"\nmode = "plan"\n')
        assert cells.says("%agent trust accept").endswith("model = 'openai/other'\nmode = 'plan'")
        assert "model    openai/other" in cells.says("%agent status")
        assert "is no longer accepted" in cells.says("%agent trust revoke")
        status = cells.says("%agent status")
        assert "model    embedded" in status and "mode     plan" in status, "what makes it more careful stays"

    def test_files_that_cannot_be_understood_are_shown_all_the_same(self, cells: Cells) -> None:
        Path(".turncell").mkdir()
        Path(".turncell/settings.toml").write_text("mode =")
        shown = cells.says("%agent trust")
        assert "mode =" in shown and "its settings do not count: " in shown


@pytest.mark.feature("B14")
def test_a_server_is_not_replaced_by_another_of_its_name(cells: Cells) -> None:
    cells.says(f"%agent mcp add time -- {sys.executable} -m mcp_server_time --local-timezone UTC")
    assert "servers  time (not started)" in cells.says("%agent status")
    told = cells.refuses("%agent mcp add time -- other")
    assert told.startswith("there is a server 'time' already (") and told.endswith("takes it out first")
    assert "time_get_current_time  write" in cells.says("%agent mcp tools time")
    assert "servers  time (running)" in cells.says("%agent status")
    cells.says("%agent mcp remove time")
    assert "servers" not in cells.says("%agent status")


@pytest.mark.feature("B14")
def test_servers_that_wait_for_trust_are_told_at_the_beginning(cells: Cells) -> None:
    Path(".mcp.json").write_text(json.dumps({"mcpServers": {"evil": {"command": "touch", "args": ["evil"]}}}))
    assert "MCP servers of this folder do not start: it is not accepted" in cells.says("%reload_ext turncell")
    cells.says("%%agent -t weather\nWhat is the weather in Oslo?")
    assert "not accepted: %agent trust" in cells.says("%agent status") and not Path("evil").exists()


@pytest.mark.feature("A19", "D12")
def test_a_typed_dict_is_taken_or_told_which_one_would_be(cells: Cells) -> None:
    cells.says("import typing\nclass Old(typing.TypedDict):\n    a: int\n")
    cells.says('demo = Agent(ScriptedModel([call("final_answer", a=1)]))')
    asked = "%%agent -a demo -o run --schema Old\nWhat is it?"
    if sys.version_info >= (3, 12):  # pydantic takes those of newer Pythons
        cells.says(asked)
        assert cells.shell.user_ns["run"].output == {"a": 1}
    else:
        told = cells.refuses(asked)
        assert told == "--schema Old: on Python before 3.12 a TypedDict has to be that of typing_extensions"


@pytest.mark.feature("D8", "C10")
def test_a_run_is_asked_again_by_its_id_also_from_another_session(cells: Cells) -> None:
    for name, prompt in [("a", "one"), ("b", "two")]:
        cells.says(f"%%agent -a demo -o {name}\n{prompt}")
    first = cells.shell.user_ns["a"]
    cells.says("%%agent -a demo --new\nthree")
    cells.says(f"%agent retry {first.id} -a demo")
    assert [run.prompt.text for run in Session.load(first.session.id).runs] == ["one"]
    assert f"session  {first.session.id}, 1 run" in cells.says("%agent status")
    assert "there is no run 'run_x' in this history" in cells.refuses("%agent retry run_x -a demo")
    assert "%agent branch lists them" in cells.refuses("%agent branch run_x")


@pytest.mark.feature("D8")
def test_runs_are_compared_by_name_and_by_id(cells: Cells) -> None:
    for name, prompt in [("a", "Is it raining?"), ("b", "Is it snowing?")]:
        cells.says(f"%%agent -a demo --new -o {name}\n{prompt}")
    a = cells.shell.user_ns["a"].id
    assert cells.says(f"%agent compare {a} b") == ("prompt: from character 7 'Is it raining?' against 'Is it snowing?'")
    assert cells.says("%agent compare a a").startswith("the same, but for")
    assert "there is no run 'c' in this history" in cells.refuses("%agent compare a c")
    assert "write %agent compare RUN RUN" in cells.refuses("%agent compare a")


@pytest.mark.feature("D8", "E4")
def test_what_it_has_cost_is_a_table(cells: Cells) -> None:
    assert "no session yet" in cells.refuses("%agent cost")
    cells.says("%%agent -a demo\nhello")
    assert "scripted" in cells.says("%agent cost") and "unknown_steps" in cells.says("%agent cost --by day --all")
    assert "use one of model, session, day, run, step, tool" in cells.refuses("%agent cost --by week")


@pytest.mark.feature("D8", "E4", "A20")
def test_what_sub_agents_have_cost_the_session_has_cost(cells: Cells) -> None:
    cells.says(
        "clerk = Agent(ScriptedModel(['Done.'], 'lab/clerk', price=(1000, 1000)), name='clerk')\n"
        "chief = Agent(ScriptedModel([call('clerk', task='x'), 'All done.'], 'lab/chief', price=(1000, 1000)), "
        "tools=[clerk.as_tool()])\n"
        "from turncell import cost_by, history"
    )
    cells.says("%%agent -a demo\nhello")  # another session of this history
    cells.says("%%agent -a chief --new -o run\nGo on")
    said = cells.says("%agent cost --by model")
    assert "lab/clerk" in said and "lab/chief" in said and "scripted" not in said
    cells.says(
        "assert f'{run.budget.spent.usd:.6f}' == f'{cost_by(history(model=\"lab/*\"), \"model\").cost_usd.sum():.6f}'"
    )


@pytest.mark.feature("D8", "E5")
def test_an_export_writes_over_nothing_unasked(cells: Cells) -> None:
    cells.says("%%agent -a demo\nhello")
    for name in ("out.ipynb", "out.html", "out.md"):
        Path(name).write_text("mine")
        assert f"{name} is there already" in cells.refuses(f"%agent export {name}")
        assert Path(name).read_text() == "mine"
        cells.says(f"%agent export --overwrite {name}")
        assert "hello" in Path(name).read_text()
    assert "is there already" in cells.refuses("%agent export --session out.md")
    book = json.loads(Path("out.ipynb").read_text())
    assert "".join(book["cells"][-1]["source"]) == "%%agent\nhello"
    assert cells.refuses("%agent export no/out.md").endswith("No such file or directory: 'no/out.md'")


@pytest.mark.feature("C10", "F1")
def test_rows_of_a_batch_are_no_session_to_go_on_with(cells: Cells) -> None:
    cells.says("%%agent -a demo -o first\nhello")
    cells.says("%%agent -a demo --map df\nSay {c}")
    assert Session.newest().id == cells.shell.user_ns["first"].session.id
    told = cells.says("%agent sessions")
    assert "hello" in told and "Say Oslo" not in told and "2 rows of batches not listed" in told


@pytest.mark.feature("D8")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%%agent --context ", ["all", "cells", "none"]),
        ("%%agent --map ", ["df"]),
        ("%agent mcp ", ["add", "list", "remove", "restart", "tools"]),
        ("%agent trust ", ["accept", "revoke"]),
        ("%agent fix --cac", ["--cached"]),
        ("%agent cost --by m", ["model"]),
        ("%agent stop", ["stop"]),
        ("%agent comp", ["compare"]),
    ],
)
def test_tab_offers_what_can_stand_there(cells: Cells, line: str, offered: list[str]) -> None:
    found = cells.shell.complete("", line, len(line))[1]
    assert [one for one in found if one in offered] == offered
