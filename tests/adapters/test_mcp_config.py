"""MCP servers and settings from files; those of a project are inert until a person has accepted its folder."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from turncell import Agent, Settings, StoreError, UsageError, settings
from turncell.adapters.mcp_config import mcp_servers, user_file
from turncell.adapters.mcp_tools import close_servers
from turncell.errors import SettingError
from turncell.notebook import commands
from turncell.notebook.notebook import Notebook
from turncell.runtime import trust
from turncell.runtime.project import use_project, with_project
from turncell.runtime.rulebook import rulebook
from turncell.testing import ScriptedModel, call

ODD = str(Path(__file__).parent / "odd_server.py")
pytestmark = pytest.mark.feature("B14")


@pytest.fixture(autouse=True)
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("XDG_CONFIG_HOME", "APPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "config"))
    yield
    close_servers()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".turncell").mkdir(parents=True)
    return folder


def write(path: Path, **servers: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mcpServers": servers}))


ODD_ENTRY = {"command": sys.executable, "args": [ODD]}


def test_servers_of_the_users_file_are_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "https://example.org")
    write(
        user_file(),
        odd=ODD_ENTRY,
        remote={"type": "http", "url": "${WHERE}/mcp"},
        off={"command": "x", "disabled": True},
    )
    found = mcp_servers(project)
    assert list(found.servers) == ["odd", "remote"] and found.problems == ()
    assert str(found.servers["remote"].target) == "https://example.org/mcp"
    model = ScriptedModel([call("odd_echo", text="hi"), "Done."])
    run = Agent(model, tools=[found.servers["odd"]], mode="auto").run_sync("Go on.")
    assert run.state.calls[0].content == "hi"


def test_the_same_entry_is_the_same_server_and_a_changed_one_another(project: Path) -> None:
    write(user_file(), odd=ODD_ENTRY)
    first = mcp_servers(project).servers["odd"]
    first.tools()
    assert mcp_servers(project).servers["odd"] is first and first.state == "running"
    write(user_file(), odd={**ODD_ENTRY, "exclude": ["die"]})
    assert mcp_servers(project).servers["odd"] is not first and first.state == "not started"


def test_what_is_wrong_with_one_entry_costs_only_that_one(project: Path) -> None:
    write(
        user_file(), odd=ODD_ENTRY, none={"args": []}, unset={"command": "${NOT_SET_ANYWHERE}"},
        unknown={"command": "x", "autoApprove": ["*"]}, old={"url": "http://x/sse", "type": "sse"}, text="x",
    )  # fmt: skip
    found = mcp_servers(project)
    assert list(found.servers) == ["odd"] and len(found.problems) == 5
    said = " ".join(found.problems)
    assert "NOT_SET_ANYWHERE is not set" in said and "autoApprove, which is not known" in said
    user_file().write_text("{")
    assert "is no JSON" in mcp_servers(project).problems[0]


@pytest.mark.parametrize("name", [".mcp.json", ".turncell/mcp.json"])
def test_a_projects_servers_wait_until_its_folder_is_accepted(project: Path, name: str) -> None:
    write(project / name, odd=ODD_ENTRY)
    assert mcp_servers(project).servers == {} and "odd" in mcp_servers(project).waiting[0]
    trust.trust(project)
    assert trust.is_trusted(project) and list(mcp_servers(project).servers) == ["odd"]
    assert mcp_servers(project).servers["odd"].target.cwd == str(project)
    write(project / name, odd={**ODD_ENTRY, "args": ["-c", "evil()"]})
    assert not trust.is_trusted(project) and mcp_servers(project).servers == {}


def test_a_project_takes_no_name_of_the_users_and_spares_no_question(project: Path) -> None:
    write(user_file(), odd=ODD_ENTRY)
    write(project / ".mcp.json", odd={"command": "evil"}, free={**ODD_ENTRY, "reads": ["*"]})
    trust.trust(project)
    found = mcp_servers(project)
    assert list(found.servers) == ["odd"] and found.origins["odd"] == user_file()
    assert "has a server of that name already" in found.problems[0] and "a project cannot say that" in found.problems[1]


def test_what_was_accepted_is_in_a_file_of_the_user_alone(project: Path, own_history: Path) -> None:
    write(project / ".mcp.json", odd=ODD_ENTRY)
    trust.trust(project)
    path = own_history.parent / "trusted.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and str(project) in path.read_text()
    assert trust.untrust(project) and not trust.is_trusted(project) and not trust.untrust(project)


def test_only_what_was_shown_is_accepted(project: Path) -> None:
    write(project / ".mcp.json", odd=ODD_ENTRY)
    shown = trust.read_project(project).digest
    write(project / ".mcp.json", odd={"command": "evil"})
    with pytest.raises(StoreError, match="have changed since they were shown"):
        trust.trust(project, digest=shown)
    assert not trust.is_trusted(project)


def test_a_list_of_accepted_folders_that_is_damaged_accepts_nothing(project: Path, own_history: Path) -> None:
    write(project / ".mcp.json", odd=ODD_ENTRY)
    trust.trust(project)
    (own_history.parent / "trusted.json").write_text("{")
    found = mcp_servers(project)
    assert found.servers == {} and "cannot be read" in found.problems[0]


def test_settings_of_a_project_tighten_at_once_and_loosen_never(project: Path) -> None:
    toml = project / ".turncell" / "settings.toml"
    toml.write_text('mode = "plan"\nmax_steps = 3\nunattended = "deny"\nmodel = "openai/other"\n')
    found = with_project(Settings(unattended="allow"), project, {})
    assert (found.settings.mode, found.settings.max_steps, found.settings.unattended) == ("plan", 3, "deny")
    assert found.settings.model == "embedded" and found.unused == {"model": "this folder is not accepted"}
    trust.trust(project)
    assert with_project(Settings(), project, {}).settings.model == "openai/other"
    assert with_project(Settings(), project, {"TURNCELL_MODEL": "x"}).unused == {"model": "TURNCELL_MODEL is set"}
    toml.write_text('mode = "auto"\nmax_steps = 400\nunattended = "allow"\n')
    trust.trust(project)
    loose = with_project(Settings(), project, {})
    assert (
        loose.settings == Settings() and loose.used == () and set(loose.unused) == {"mode", "max_steps", "unattended"}
    )


def test_a_projects_settings_are_those_of_the_process_when_they_are_used(project: Path) -> None:
    assert use_project(project) == ""
    (project / ".turncell" / "settings.toml").write_text('mode = "never"\necho = "/tmp/x"\n')
    assert use_project(project) == "mode = 'never'\necho: not used, this folder is not accepted"
    assert Agent(ScriptedModel([])).mode == "never"
    (project / ".turncell" / "settings.toml").write_text("mode")
    assert use_project(project).startswith("the settings of this project do not count: ")
    assert settings.current().mode == "never"


def test_a_project_that_brings_a_store_brings_neither_rules_nor_consents(project: Path, own_history: Path) -> None:
    (project / "data").mkdir()
    store = project / "data" / "history.sqlite"
    (project / ".turncell" / "settings.toml").write_text(f"store = {json.dumps(str(store))}\n")
    rules = {"version": 1, "rules": [{"tool": "run_python", "verdict": "allow"}]}
    (project / "data" / "rules.json").write_text(json.dumps(rules))
    trust.trust(project)
    found = with_project(settings.current(), project, {}).settings
    settings.use(found)
    assert found.store_path == store and rulebook().rules() == ()
    assert trust.is_trusted(project)  # by what the user has accepted before
    forged = trust.accepted_folders().path.read_text()
    (project / "data" / "trusted.json").write_text(forged)
    trust.untrust(project)
    assert not trust.is_trusted(project) and rulebook().path.parent == own_history.parent
    assert with_project(found, project, {}).settings.personal_folder == own_history.parent


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(project: Path) -> None:
    os.mkfifo(project / ".mcp.json")
    assert trust.read_project(project).files == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('colour = "red"', "'colour' cannot be set here; use mode"),
        ('meta_dirname = "x"', "'meta_dirname' cannot be set here"),
        ('mode = "yolo"', "setting 'mode' is 'yolo'"),
        ('max_steps = "3"', "'max_steps' is '3'; use a whole number"),
        ("mode =", "is no TOML"),
    ],
)
def test_settings_that_cannot_be_are_refused_clearly(project: Path, text: str, says: str) -> None:
    (project / ".turncell" / "settings.toml").write_text(text)
    with pytest.raises(SettingError, match=says):
        with_project(settings.current(), project, {})


@pytest.fixture
def agent(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `%agent <words>` says in the project folder."""
    monkeypatch.chdir(project)

    def say(*words: str) -> str:
        commands.run(Notebook(SimpleNamespace(user_ns={})), shlex.join(words))
        return capsys.readouterr().out

    return say


def test_the_commands_add_list_show_and_remove_servers(agent: Callable[..., str], project: Path) -> None:
    assert "none; add one with" in agent("mcp")
    said = agent("mcp", "add", "odd", "--", sys.executable, ODD)
    assert str(user_file()) in said and stat.S_IMODE(user_file().stat().st_mode) == 0o600
    assert "web: not started" not in agent("mcp", "list")
    agent("mcp", "add", "web", "https://example.org/mcp")
    assert "odd: not started" in agent("mcp") and "web: not started" in agent("mcp")
    assert "odd_echo  write  Say it again." in agent("mcp", "tools", "odd")
    assert "odd: running, odd 1, 10 tools" in agent("mcp", "list")
    before = next(iter(mcp_servers(project).servers.values()))
    assert "odd: running" in agent("mcp", "restart", "odd")
    assert next(iter(mcp_servers(project).servers.values())) is before
    agent("mcp", "remove", "odd")
    assert before.state == "not started" and [
        server.name for server in list(mcp_servers(project).servers.values())
    ] == ["web"]


def test_a_server_that_ended_shows_its_last_words(agent: Callable[..., str], project: Path) -> None:
    agent("mcp", "add", "odd", "--", sys.executable, ODD, "loud")
    Agent(ScriptedModel(["Done."]), tools=list(mcp_servers(project).servers.values())).run_sync("Go on.")
    said = agent("mcp")
    assert "odd: ended" in said and "cannot start: no such database" in said


@pytest.mark.parametrize("words", [["add"], ["add", "x"], ["add", "x", "not-an-address"], ["tools"], ["restart", "x"], ["remove", "x"], ["fly"]])  # fmt: skip
def test_commands_that_cannot_be_say_what_to_write(agent: Callable[..., str], words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"%agent mcp|no MCP server|no server"):
        agent("mcp", *words)
    with pytest.raises(UsageError, match=r"%agent trust"):
        agent("trust", "maybe")


def test_the_trust_command_shows_what_it_accepts(agent: Callable[..., str], project: Path) -> None:
    assert "there is nothing to accept" in agent("trust")
    write(project / ".mcp.json", odd=ODD_ENTRY)
    (project / ".turncell" / "settings.toml").write_text('mode = "plan"\nmodel = "openai/other"\n')
    shown = agent("trust")
    assert "is not accepted" in shown and "odd_server.py" in shown and "mode = 'plan'" in shown
    assert "odd (" in agent("mcp") and "see %agent trust" in agent("mcp")
    digest = shown.split("%agent trust accept ")[1].split()[0]
    write(project / ".mcp.json", odd={"command": "evil"})
    with pytest.raises(UsageError, match="not those that were shown"):
        agent("trust", "accept", digest)
    assert "is accepted as it is now" in agent("trust", "accept")
    assert "is accepted. Its files say" in agent("trust")
    assert "no longer accepted" in agent("trust", "revoke") and list(mcp_servers(project).servers.values()) == []
