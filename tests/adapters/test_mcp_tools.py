"""MCP servers as tools: real servers, over pipes and HTTP, and odd ones."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ports import free_port
from turncell import Agent, McpServer, Rule, Session, UsageError, rulebook, tool
from turncell.adapters import mcp_tools
from turncell.adapters.mcp_connection import McpFailed
from turncell.core.parts import ToolResult
from turncell.errors import ToolError
from turncell.testing import ScriptedModel, call

ROOT = Path(__file__).parents[2]
EVERYTHING = ROOT / "js/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
ODD = Path(__file__).parent / "odd_server.py"
pytestmark = pytest.mark.feature("B14")


@pytest.fixture(autouse=True)
def no_server_left() -> Iterator[None]:
    yield
    mcp_tools.close_servers()


def odd(*kinds: str, name: str = "odd", **options: Any) -> McpServer:
    return McpServer(name, sys.executable, [str(ODD), *kinds], **options)


def everything(**options: Any) -> McpServer:
    assert EVERYTHING.exists(), "run `make js`"
    return McpServer("all", "node", [str(EVERYTHING), "stdio"], **options)


def answers(server: McpServer | list[McpServer], *calls: Any, **options: Any) -> list[str]:
    """What the model reads of these calls, made one step after the other."""
    sources = server if isinstance(server, list) else [server]
    agent = Agent(ScriptedModel([*calls, "Done."]), tools=sources, **{"mode": "auto", **options})
    run = agent.run_sync("Go on.")
    assert run.state.status == "completed", run.state.error
    return [call.content or "" for call in run.state.calls]


def wait_for(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


def test_the_tools_of_a_server_stand_beside_functions() -> None:
    @tool(effect="read")
    def add(a: int, b: int) -> int:
        "Add."
        return a + b

    server = McpServer("time", sys.executable, ["-m", "mcp_server_time", "--local-timezone", "UTC"], reads=["get_*"])
    model = ScriptedModel([
        call("time_convert_time", source_timezone="Europe/Oslo", time="12:00", target_timezone="Asia/Tokyo"),
        call("add", a=1, b=2), "Done.",
    ])  # fmt: skip
    run = Agent(model, tools=[add, server], mode="auto").run_sync("When is noon?")
    assert [spec.name for spec in model.requests[0].tools] == ["add", "time_get_current_time", "time_convert_time"]
    assert json.loads(run.state.calls[0].content or "")["time_difference"] == "+8.0h"
    assert {t.name: t.effect for t in server.known} == {"time_get_current_time": "read", "time_convert_time": "write"}
    assert run.state.started.tools == ("add", "time_get_current_time", "time_convert_time")


def test_a_server_starts_with_the_first_run_and_serves_all_that_follow() -> None:
    server = odd(include=["pid"])
    assert server.state == "not started"
    first, second = answers(server, call("odd_pid")), answers(server, call("odd_pid"))
    assert first == second and server.state == "running" and server.about == "odd 1"
    server.close()
    assert server.state == "not started"
    wait_for(lambda: not psutil.pid_exists(int(first[0])))
    assert answers(server, call("odd_pid")) != first


def test_hints_of_a_server_make_no_read_and_results_taint() -> None:
    server = odd()
    run = Agent(ScriptedModel([call("odd_echo", text="hi"), "Done."]), tools=[server]).run_sync("Say hi.")
    [asked] = run.state.calls
    assert asked.effect == "write" and asked.status == "denied"  # it asks, and nobody attends
    allowed = Agent(
        ScriptedModel([call("odd_echo", text="hi"), "Done."]), tools=[server], rules=[Rule("odd_echo", "allow")]
    ).run_sync("Say hi.")
    assert allowed.state.calls[0].content == "hi" and allowed.state.is_tainted


def test_arguments_are_validated_before_anyone_is_asked() -> None:
    server = odd()
    missing, wrong, more = answers(
        server, call("odd_echo"), call("odd_echo", text=7), call("odd_echo", text="a", other=1)
    )
    assert "arguments of odd_echo are not valid" in missing and "'text' is a required property" in missing
    assert "text: 7 is not of type 'string'" in wrong and "'other' was unexpected" in more


def test_globs_choose_the_tools() -> None:
    server = odd(include=["e*", "pid"], exclude=["*ment"])
    assert [tool.remote_name for tool in server.tools()] == ["echo", "pid"]


def test_results_come_as_texts_images_resources_and_structured_content() -> None:
    run = Agent(
        ScriptedModel([
            call("all_get-tiny-image"), call("all_get-structured-content", location="New York"),
            call("all_get-resource-reference", resourceType="Text", resourceId=1), call("all_get-sum", a=1, b=2), "Done.",
        ]),
        tools=[everything()], mode="auto",
    ).run_sync("Show me all.")  # fmt: skip
    image, structured, resource, total = run.state.calls
    assert "[an image, image/png, " in (image.content or "")
    assert any(str(bundle.get("image/png", "")).startswith("iVBOR") for bundle in image.display)
    assert isinstance(structured.details, dict) and "temperature" in structured.details
    assert "[resource demo://resource/dynamic/text/1" in (resource.content or "")
    assert "3" in (total.content or "")


def test_a_model_sees_the_image_that_a_server_returns() -> None:
    model = ScriptedModel([call("all_get-tiny-image"), "A logo."])
    Agent(model, tools=[everything()], mode="auto").run_sync("Look.")
    [result] = [
        part for message in model.requests[-1].messages for part in message.parts if isinstance(part, ToolResult)
    ]
    assert [image.media_type for image in result.images] == ["image/png"]


def test_progress_is_shown_while_a_call_runs() -> None:
    agent = Agent(
        ScriptedModel([call("all_trigger-long-running-operation", duration=1, steps=4), "Done."]),
        tools=[everything()], mode="auto",
    )  # fmt: skip
    run = agent.start("Go on.")
    shown = []
    run.subscribe(lambda event: shown.append(event.text) if event.type == "CallProgress" else None)
    run.result()
    run.drain(60)
    assert [text for text in shown if " of 4" in text]


def test_a_cancelled_call_ends_at_once_and_the_server_is_told() -> None:
    server = odd()
    run = Agent(ScriptedModel([call("odd_hang"), "Done."]), tools=[server], mode="auto").start("Go on.")
    wait_for(lambda: any(one.status == "running" for one in run.state.calls))
    wait_for(lambda: json.loads(answers(server, call("odd_cancelled"))[0])["waiting"] == 1)
    run.cancel()
    assert run.result(60).state.status == "cancelled"
    assert len(json.loads(answers(server, call("odd_cancelled"))[0])["cancelled"]) == 1


def test_a_call_has_a_time_limit() -> None:
    [told] = answers(odd(timeout_s=0.3), call("odd_hang"))
    assert "time limit of 0.3 s" in told


def test_an_error_is_told_to_the_model() -> None:
    [told] = answers(odd(), call("odd_fail"))
    assert told == "the disk is full"


def test_a_server_that_dies_is_told_of_and_comes_back() -> None:
    server = odd()
    died, again = answers(server, call("odd_die"), call("odd_echo", text="I am back"))
    assert "the connection was lost" in died and "may have happened" in died
    assert "the last words" in died and "REDACTED" not in died.replace("[redacted", "")
    assert again == "I am back"


def test_a_server_that_dies_between_runs_is_noticed_and_comes_back() -> None:
    server = odd()
    [pid] = answers(server, call("odd_pid"))
    psutil.Process(int(pid)).kill()
    wait_for(lambda: server.state == "ended")
    assert answers(server, call("odd_pid")) != [pid]


def test_what_dies_again_and_again_is_started_less_and_less_often() -> None:
    server = odd("loud")
    said = []
    for _ in range(6):
        with pytest.raises(McpFailed) as failed:
            server.tools()
        said.append(str(failed.value))
    assert any("has failed" in one and "is started again in" in one for one in said)


def test_a_server_that_cannot_start_costs_its_tools_and_not_the_run() -> None:
    model = ScriptedModel(["I have no tools."])
    run = Agent(model, tools=[odd("loud"), McpServer("none", "/no/such/program")]).run_sync("Go on.")
    assert run.state.status == "completed" and model.requests[0].tools == ()
    notices = " ".join(run.state.started.notices)
    assert "cannot start: no such database" in notices
    assert "MCP server 'none' (/no/such/program) offers no tools now: there is no such command" in notices


def test_a_server_that_says_nothing_is_given_up() -> None:
    server = odd("mute", start_timeout_s=1.0)
    with pytest.raises(McpFailed, match=r"has not answered within 1 s"):
        server.tools()
    wait_for(lambda: not _children("mute"))


def test_a_run_that_is_taken_back_while_a_server_starts_ends_at_once() -> None:
    run = Agent(ScriptedModel(["Hello."]), tools=[odd("mute")]).start("Go on.")
    time.sleep(0.3)
    run.cancel()
    assert run.result(20).state.status == "cancelled", "long before the server would be given up"


def test_a_server_that_does_not_want_to_end_is_ended() -> None:
    server = odd("stubborn")
    [pid] = answers(server, call("odd_pid"))
    server.close()
    wait_for(lambda: not psutil.pid_exists(int(pid)))


def test_twenty_calls_at_once() -> None:
    server = everything(reads=["echo"])
    calls = [call("all_echo", message=f"number {n}") for n in range(20)]
    assert answers(server, calls) == [f"Echo: number {n}" for n in range(20)]


def test_many_runs_share_one_start() -> None:
    server = odd(reads=["*"])
    runs = [
        Agent(ScriptedModel([call("odd_pid"), "Done."]), tools=[server], mode="auto").start("Go on.") for _ in range(8)
    ]
    assert len({run.result().state.calls[0].content for run in runs}) == 1


def test_a_long_result_is_cut_for_the_model() -> None:
    [told] = answers(odd(), call("odd_much"))
    assert len(told) < 60_000 and "cut here" in told


def test_a_server_that_asks_for_more_is_refused_in_the_words_of_the_protocol() -> None:
    [told] = answers(odd(), call("odd_asks"))
    assert "not supported" in told.lower()


def test_only_what_was_given_of_the_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "abcdefgh12345678")
    server = odd(env={"GIVEN": "1"})
    [told] = answers(server, call("odd_environment"))
    assert "GIVEN" in json.loads(told) and "MY_API_KEY" not in json.loads(told)


def test_a_new_tool_is_there_in_the_next_run() -> None:
    server = odd()
    answers(server, call("odd_grow"))
    wait_for(lambda: server._is_stale)
    model = ScriptedModel(["I see."])
    Agent(model, tools=[server]).run_sync("Go on.")
    assert "odd_grown" in [spec.name for spec in model.requests[0].tools]


def test_a_tool_of_two_descriptions_is_taken_once() -> None:
    server = odd("twice")
    [echo] = [tool for tool in server.tools() if tool.remote_name == "echo"]
    assert echo.description == "Say it again." and "'echo' is there twice" in server.problem


def test_names_become_such_as_providers_take_and_reach_the_right_tool() -> None:
    server = odd("names")
    names = [tool.name for tool in server.tools()]
    assert len(set(names)) == len(names) == 19
    assert all(len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "_-") for c in name) for name in names)
    assert "odd_a_b" in names  # the one that is called so, whatever else is there
    assert {tool.remote_name for tool in server.known} >= {"a b", "a.b", "a_b", "x" * 300}


def test_a_description_of_ten_megabytes_is_cut() -> None:
    server = odd("huge")
    [huge] = [tool for tool in server.tools() if tool.remote_name == "huge"]
    assert len(huge.description) < 9_000 and "cut here" in huge.description


def test_a_thousand_tools_are_too_many() -> None:
    server = odd("flood")
    assert len(server.tools()) == 256 and "more than 256 tools" in server.problem


def test_schemas_that_are_made_to_hurt_do_not() -> None:
    server = odd("schema")
    server.tools()
    names = {tool.remote_name for tool in server.known}
    assert "wide" not in names and "its schema has" in server.problem
    began = time.monotonic()
    laughs, slow, remote, circle, wrong = answers(
        server, *(call(f"odd_{name}", text="a" * 40 + "!") for name in ("laughs", "slow", "remote", "circle", "wrong"))
    )
    assert time.monotonic() - began < 60
    assert laughs == slow == circle == "a" * 40 + "!"  # the server may check what was not checked here
    assert "its schema is wrong" in remote and "its schema is wrong" in wrong


def test_a_list_of_tools_that_is_none_is_told_of_and_costs_only_the_tools() -> None:
    server = odd("list")
    model = ScriptedModel(["Done."])
    assert Agent(model, tools=[server]).run_sync("Go on.").state.status == "completed"
    assert "what it answered is not what the protocol has" in server.problem and server.state == "running"


def test_what_was_allowed_for_ever_asks_again_when_the_server_has_changed_it() -> None:
    rulebook().remember(Rule("odd_echo", "allow"))
    assert answers(odd(), call("odd_echo", text="a"), mode="ask") == ["a"]
    agent = Agent(ScriptedModel([call("odd_echo", text="b"), "Done."] * 2), tools=[odd("changed")])
    run = agent.start("Go on.", is_attended=True)
    [waiting] = wait_for(lambda: [one for one in run.state.calls if one.status == "waiting"])
    assert "has changed" in waiting.reason
    run.approve()
    assert run.result().state.calls[0].content == "b"
    assert agent.run_sync("Again.").state.calls[0].content == "b"  # what was seen is no longer new


def test_secrets_that_were_given_do_not_come_back() -> None:
    server = McpServer("s", url="http://127.0.0.1:9/mcp", headers={"Authorization": "Bearer tok-123456789"})
    assert "tok-123456789" not in repr(server)
    run = Agent(ScriptedModel(["tok-123456789 it is"])).run_sync("Which?")
    message = Session.load(run.session.id).runs[-1].steps[-1].message
    told = message.text if message is not None else ""
    assert "it is" in told and "tok-123456789" not in told


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ({"url": "https://ada:pass1word@example.org/mcp?api_key=abc"}, "https://***@example.org/mcp?***"),
        (
            {"command": "x", "args": ["--api-key", "abc", "--token=abc", "-v", "abc"]},
            "x --api-key *** --token=*** -v abc",
        ),
    ],
)
def test_what_a_server_is_called_shows_no_secret(target: dict[str, Any], shown: str) -> None:
    assert str(McpServer("s", **target).target) == shown


def test_characters_that_nobody_sees_are_taken_out_of_what_a_model_reads() -> None:
    server = odd("hidden")
    [tool] = [tool for tool in server.tools() if tool.remote_name == "hidden"]
    assert tool.description == "Say it." and tool.spec.schema["properties"]["text"]["description"] == "What to say."
    # What goes back to the server as it is cannot be cleaned.
    assert not [tool for tool in server.known if tool.remote_name.startswith("ghost")]
    assert "'ghost_name' is left out: its parameters have" in server.problem and "'ghost_value'" in server.problem


def test_an_interrupted_run_goes_on_with_its_server() -> None:
    script = (
        "import os, sys, time\n"
        "from turncell import Agent, McpServer\n"
        "from turncell.testing import ScriptedModel, call\n"
        f"server = McpServer('odd', sys.executable, [{str(ODD)!r}])\n"
        "agent = Agent(ScriptedModel([call('odd_echo', text='again')]), tools=[server])\n"
        "run = agent.start('Go on.', is_attended=True)\n"
        "while not [one for one in run.state.calls if one.status == 'waiting']: time.sleep(0.05)\n"
        "run.session.journal.flush()\n"
        "print(run.session.id, flush=True)\n"
        "os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    session = Session.load(done.stdout.strip())
    resumed = session.resume(agent=Agent(ScriptedModel(["Done."]), tools=[odd()]), is_attended=True)
    wait_for(lambda: [one for one in resumed.state.calls if one.status == "waiting"])
    resumed.approve()
    assert resumed.result().state.calls[0].content == "again"


def test_a_source_that_raises_costs_its_tools_and_not_the_run() -> None:
    class Broken:
        name = "broken"
        known = ()

        async def offer(self) -> Any:
            raise ZeroDivisionError("nobody expected this")

    run = Agent(ScriptedModel(["Done."]), tools=[Broken()]).run_sync("Go on.")
    assert run.state.status == "completed" and "nobody expected this" in run.state.started.notices[0]


def test_an_address_where_nobody_listens_costs_the_tools() -> None:
    with pytest.raises(McpFailed, match=r"MCP server 'web' \(http://127.0.0.1:9/mcp\) offers no tools now: "):
        McpServer("web", url="http://127.0.0.1:9/mcp", start_timeout_s=10).tools()


@contextmanager
def everything_over_http() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    with _serving(port) as process:
        yield f"http://127.0.0.1:{port}/mcp", process


@contextmanager
def _serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["node", str(EVERYTHING), "streamableHttp"], env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: _listens(port))
        yield process
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its children: Node from PyPI is a program in Python that starts the real one."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def test_a_server_over_http_works_like_one_over_pipes() -> None:
    with everything_over_http() as (url, _):
        server = McpServer("web", url=url, reads=["echo"])
        calls = [call("web_echo", message=f"number {n}") for n in range(20)]
        assert answers(server, calls) == [f"Echo: number {n}" for n in range(20)]
        image, failed = answers(server, call("web_get-tiny-image"), call("web_get-sum", a="x", b=1))
        assert "image/png" in image and "not of type 'number'" in failed
        assert server.state == "running"
        server.close()


def test_a_server_over_http_that_dies_is_told_of_and_comes_back() -> None:
    with everything_over_http() as (url, process):
        port = int(url.split(":")[2].split("/")[0])
        server = McpServer("web", url=url)
        assert answers(server, call("web_echo", message="a")) == ["Echo: a"]
        agent = Agent(
            ScriptedModel([call("web_trigger-long-running-operation", duration=30, steps=100), "Done."]),
            tools=[server], mode="auto",
        )  # fmt: skip
        run = agent.start("Go on.")
        wait_for(lambda: any(one.progress for one in run.state.calls))  # the server is at it
        _kill(process)
        assert "may have happened" in (run.result().state.calls[0].content or "")
        with _serving(port):
            assert answers(server, call("web_echo", message="b")) == ["Echo: b"]
            server.close()


def test_in_a_script_nothing_is_left_behind(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from turncell import Agent, McpServer\n"
        "from turncell.testing import ScriptedModel, call\n"
        f"server = McpServer('odd', sys.executable, [{str(ODD)!r}, 'stubborn'])\n"
        "run = Agent(ScriptedModel([call('odd_pid'), 'Done.']), tools=[server], mode='auto').run_sync('Go on.')\n"
        "print(run.state.calls[0].content)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.returncode == 0
    wait_for(lambda: not psutil.pid_exists(int(done.stdout)))


def test_a_forked_child_starts_a_server_of_its_own() -> None:
    script = (
        "import os, sys\n"
        "from turncell import McpServer\n"
        f"server = McpServer('odd', sys.executable, [{str(ODD)!r}])\n"
        "server.tools()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print(server.state, len(server.tools()), server.state, flush=True)\n"
        "    server.close()\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(server.state)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["not", "started", "10", "running", "running"], done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs either a command or a url"),
        ({"command": "x", "url": "http://x"}, "needs either a command or a url"),
        ({"url": "ftp://x"}, "begins with https://"),
        ({"command": "x", "headers": {"a": "b"}}, "headers go with a url"),
        ({"command": "x", "args": "-m y"}, "args is '-m y'; use a list of texts"),
        ({"command": "x", "env": {"A": 1}}, "env maps names to texts"),
        ({"command": " "}, "use the name or path of a program"),
    ],
)
def test_a_server_that_cannot_be_is_refused_when_it_is_made(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        McpServer("x", **options)
    with pytest.raises(UsageError, match="the name of an MCP server is '1 x'"):
        McpServer("1 x", "y")


def test_two_servers_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two sources of tools are called 'odd'"):
        Agent(tools=[odd(), odd()])


def test_a_function_keeps_its_name_before_a_server() -> None:
    @tool(effect="read")
    def odd_echo(text: str) -> str:
        "Mine."
        return f"mine: {text}"

    run = Agent(ScriptedModel([call("odd_echo", text="a"), "Done."]), tools=[odd(), odd_echo], mode="auto").run_sync(
        "Go."
    )
    assert run.state.calls[0].content == "mine: a" and "odd_echo of odd is left out" in " ".join(
        run.state.started.notices
    )


def _children(word: str) -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.is_running() and word in " ".join(_line(child))]


def _line(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def test_an_agent_takes_its_servers_along_to_another_process() -> None:
    agent = Agent("embedded", tools=[McpServer("odd", sys.executable, [str(ODD)], reads=["echo"], env={"A": "b"})])
    [server] = pickle.loads(pickle.dumps(agent)).tool_sources
    assert (repr(server), server.reads, server.state) == (repr(agent.tool_sources[0]), ("echo",), "not started")


def test_a_schema_that_chooses_is_told_as_every_provider_takes_it() -> None:
    """Anthropic and OpenAI refuse the whole request for one tool with a choice at the top of its schema."""
    tools = {tool.remote_name: tool for tool in odd("choices").tools()}
    told = {name: tools[name].spec.schema for name in ("either", "one_of", "strange")}
    assert not any({"anyOf", "oneOf", "allOf", "not", "enum"} & schema.keys() for schema in told.values())
    assert list(told["either"]["properties"]) == ["text", "file"]
    assert '"anyOf": [{"required": ["text"]}' in told["either"]["description"]
    assert told["one_of"]["properties"] == {
        "do": {"anyOf": [{"const": "get"}, {"const": "put"}]}, "text": {"type": "string"},
    }  # fmt: skip
    assert tools["either"].validate({"file": "a"}) == {"file": "a"}
    assert tools["one_of"].validate({"do": "put", "text": "a"}) == {"do": "put", "text": "a"}
    for name, arguments in (("either", {}), ("one_of", {"do": "put"})):
        with pytest.raises(ToolError, match="not valid"):
            tools[name].validate(arguments)
