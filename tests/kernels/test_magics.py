"""`%%agent` and `%agent` on real kernels: bad input, the commands, loading and unloading, a provider on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from turncell.core import events as ev
from turncell.core.parts import Usage
from turncell.testing import ProviderServer, call, reply, serve

from .conftest import Kernel, Message
from .page import Page

pytestmark = pytest.mark.newest_kernel

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def said(kernel: Kernel, cell: str) -> str:
    """The message of a cell that failed, as a person reads it."""
    errors = ["\n".join(error["traceback"]) for error in kernel.children(cell, "error")]
    return _COLOUR.sub("", "\n".join(filter(None, [kernel.printed(cell).strip(), *errors])))


def failed(kernel: Kernel, code: str, *, allow_stdin: bool = True) -> str:
    """Run a cell that must fail, and say how. The kernel must be as usable as before."""
    cell = kernel.execute(code, allow_stdin=allow_stdin)
    assert kernel.reply(cell, timeout_s=60)["status"] == "error"
    kernel.idle(cell)
    assert kernel.run("1 + 1")["status"] == "ok"
    message = said(kernel, cell)
    print(f"{code!r}\n    {message}")
    assert "\n" not in message and "Traceback" not in message, "one line"
    return message


def result(kernel: Kernel, cell: str) -> Message:
    assert kernel.reply(cell, timeout_s=60)["status"] == "ok", said(kernel, cell)
    kernel.idle(cell)
    shown = kernel.children(cell, "execute_result") + kernel.children(cell, "display_data")
    return shown[-1]["data"] if shown else {}


def printed(kernel: Kernel, code: str) -> str:
    cell = kernel.execute(code)
    result(kernel, cell)
    return kernel.printed(cell).strip()


# -- bad input


@pytest.mark.feature("D12", "D8")
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%agent --colour red\nHello", "unrecognized arguments: --colour red"),
        ("%%agent --mode maybe\nHello", "--mode: invalid choice: 'maybe'"),
        ("%%agent --max-steps many\nHello", "--max-steps: invalid int value: 'many'"),
        ("%%agent --max-steps 0\nHello", "max_steps is 0; use a whole number, 1 or more"),
        ("%%agent\n  \n", "the cell is empty"),
        ("%%agent -a nobody\nHello", "'nobody' is not defined in this notebook"),
        ("%%agent -a outbox\nHello", "-a outbox: that is list, not an Agent; make one with turncell.Agent(...)"),
        ("%%agent -a demo -m embedded\nHello", "-a and --model do not go together"),
        ("%%agent -m embedded -t no_tool\nHello", "'no_tool' is not defined in this notebook"),
        ("%%agent -m embedded -t outbox\nHello", "outbox is list, not a function"),
        ("%%agent -m embedded -t untyped\nHello", "tool 'untyped': parameter 'x' has no type annotation"),
        (
            "%%agent -m 'two words'\nHello",
            "model 'two words': use 'embedded' or a name like 'openai/gpt-5' (provider/model)",
        ),
        ("%%agent -a demo -o my-run\nHello", "-o 'my-run' is no name of a variable; use one like 'run'"),
        ("%%agent -a demo -o class\nHello", "-o 'class' is no name of a variable"),
        ("%%agent -a demo -o ''\nHello", "-o '' is no name of a variable"),
        ("%%agent -i don't\nHello", "%%agent -i don't: No closing quotation"),
        ("%%agent -m embedded -t send_note, no_tool\nHello", "'no_tool' is not defined in this notebook"),
        ("%agent tools --none send_note", "--none and names do not go together"),
        (
            "%agent dance",
            "there is no such command; use one of answer, approve, branch, calls, ",
        ),
        ("%agent statsu", "%agent statsu: there is no such command; did you mean %agent status?"),
        ("%agent tools --nnoe", "%agent tools: unrecognized arguments: --nnoe; write %agent tools [NAMES | --none]"),
        (
            "%agent export",
            "%agent export: the following arguments are required: PATH; write %agent export [--session] [--overwrite] PATH",
        ),
        ("%agent import", "%agent import: missing a required argument: 'path'; write %agent import PATH"),
        ("%agent import no.md", "no.md cannot be read: No such file or directory"),
        ("%agent rules revoke", "say which; write %agent rules revoke ID"),
        ("%agent rules revoke rule_x", "there is no remembered rule 'rule_x'; %agent rules lists them"),
        ("%agent runs", "this notebook has no session yet; begin one with %%agent"),
        ("%agent status 'unclosed", "%agent status 'unclosed: No closing quotation"),
        ("%agent tools no_tool", "'no_tool' is not defined in this notebook"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_starts_no_run(notebook: Kernel, cell: str, message: str) -> None:
    notebook.run("script('never said')\ndef untyped(x): return x")
    assert message in failed(notebook, cell)
    assert notebook.value("statuses()") == []
    assert "session  none yet" in printed(notebook, "%agent status")
    assert not [1 for _, msg in notebook.heard if msg["header"]["msg_type"] in ("display_data", "comm_open")]


@pytest.mark.feature("D12", "A13")
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%agent -m gpt-unheard-of\nHello", "no provider is known for the model 'gpt-unheard-of'"),
        ("%%agent -m opena/gpt-5\nHello", "'opena' in 'opena/gpt-5' is no provider that LiteLLM knows; did you mean"),
        ("%%agent -m openai/gpt-5\nHello", "OPENAI_API_KEY"),
        ("%%agent -a nowhere\nHello", "cannot reach"),
    ],
)
def test_a_model_that_cannot_be_asked_fails_the_cell_in_one_line(notebook: Kernel, cell: str, message: str) -> None:
    notebook.run(
        "import os; os.environ.pop('OPENAI_API_KEY', None)\n"
        "from turncell.adapters.litellm_model import LiteLLMModel\n"
        "nowhere = Agent(model=LiteLLMModel('openai/x', base_url='http://127.0.0.1:9/v1', api_key='k'))"
    )
    assert message in failed(notebook, cell)
    assert notebook.value("statuses()") == ["failed"]


@pytest.mark.feature("A10", "D12")
def test_the_limit_of_steps_is_told(notebook: Kernel) -> None:
    notebook.run("script(*[call('send_note', to='Ana')] * 9, mode='auto')")
    cell = notebook.execute("%%agent -a demo --max-steps 2\nGo on for ever.", allow_stdin=True)
    page = Page(notebook, cell)
    assert notebook.reply(cell)["status"] == "ok"
    notebook.idle(cell)
    assert page.state.error == "stopped after 2 steps, the limit of this run"
    final = notebook.children(cell, "update_display_data")[-1]["data"]
    assert "stopped after 2 steps" in final["text/html"]
    assert notebook.value("statuses(), len(outbox)") == (["max_steps"], 2)


@pytest.mark.feature("B2", "D12")
@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("call('breaks', at='noon')", "ValueError: not at noon"),
        ("call('leaves')", "SystemExit: 3"),
        ("call('send_note', to=['Ana'], copy=True)", "arguments of send_note are not valid"),
        ("Call('send_note', '{\"to\": ')", "the arguments of send_note are not valid JSON"),
        (
            "call('send_letter', to='Ana')",
            "There is no tool called 'send_letter'. The tools are: breaks, leaves, send_note.",
        ),
    ],
)
def test_a_call_that_fails_is_told_to_the_model_and_the_turn_goes_on(notebook: Kernel, entry: str, told: str) -> None:
    notebook.run(
        "from turncell.testing import Call\n"
        "def breaks(at: str):\n    raise ValueError('not at ' + at)\n"
        "def leaves():\n    raise SystemExit(3)\n"
        f"model = ScriptedModel([{entry}, 'I see.'])\n"
        "demo = Agent(model, tools=[send_note, breaks, leaves], mode='auto')"
    )
    bundle = result(notebook, notebook.execute("%%agent -a demo\nTry."))
    assert told in notebook.value("told()")[0]
    assert bundle["text/plain"].endswith("I see.")
    assert notebook.value("statuses(), outbox") == (["completed"], [])


# -- options and commands


@pytest.mark.feature("D8", "A16")
def test_a_session_goes_on_over_cells_until_a_new_one_is_asked_for(notebook: Kernel) -> None:
    notebook.run("script('One.', 'Two.', 'Three.', 'Four.')")
    for cell in ["%%agent -a demo\nfirst", "%%agent -a demo\nsecond", "%%agent -a demo --new\nthird"]:
        result(notebook, notebook.execute(cell))
    notebook.run("%agent new")
    result(notebook, notebook.execute("%%agent -a demo\nfourth"))
    texts = notebook.value("[[m.text for m in r.messages] for r in model.requests]")
    assert texts == [["first"], ["first", "One.", "second"], ["third"], ["fourth"]]
    assert notebook.value("runs_df().session_id.nunique()") == 3


@pytest.mark.feature("D8")
def test_a_mistake_with_new_keeps_the_session(notebook: Kernel) -> None:
    notebook.run("script('One.', 'Two.')")
    result(notebook, notebook.execute("%%agent -a demo\nfirst"))
    failed(notebook, "%%agent -a nobody --new\nsecond")
    result(notebook, notebook.execute("%%agent -a demo\nsecond"))
    assert notebook.value("[m.text for m in model.requests[-1].messages]") == ["first", "One.", "second"]


@pytest.mark.feature("D8")
@pytest.mark.parametrize("mistake", ["--max-steps 0", "-o my-run", "-i 'open"])
def test_no_mistake_leaves_an_empty_session_or_costs_one(notebook: Kernel, mistake: str) -> None:
    stored = "turncell.runtime.defaults.journal().ask(lambda store: [s.runs for s in store.sessions()])"
    notebook.run("import turncell.runtime.defaults; script('One.', 'Two.')")
    failed(notebook, f"%%agent -a demo {mistake}\nfirst")
    assert notebook.value(stored) == []
    result(notebook, notebook.execute("%%agent -a demo\nfirst"))
    failed(notebook, f"%%agent -a demo --new {mistake}\nsecond")
    result(notebook, notebook.execute("%%agent -a demo\nsecond"))
    assert notebook.value(stored) == [2]


@pytest.mark.feature("D8")
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\"say 'hi'\"", "say 'hi'"),
        ("'say \"hi\"'", 'say "hi"'),
        (r'"say \"hi\""', 'say "hi"'),
        ("\"it's 'quoted'\"", "it's 'quoted'"),
    ],
)
def test_instructions_may_have_quotes_within_quotes(notebook: Kernel, written: str, read: str) -> None:
    cell = notebook.execute(f"%%agent -m embedded -o turn -i {written}\nWho are you?")
    result(notebook, cell)
    assert notebook.value("turn.state.instructions") == read


@pytest.mark.feature("D8")
def test_names_of_tools_may_have_blanks_between_them_and_can_be_taken_away(notebook: Kernel) -> None:
    notebook.run("def add(a: int, b: int) -> int:\n    'Add two numbers.'\n    return a + b")
    result(notebook, notebook.execute("%%agent -t send_note, add -o turn --new\nWho are you?"))
    assert "`send_note`" in notebook.value("turn.text") and "`add`" in notebook.value("turn.text")
    assert printed(notebook, "%agent tools add , send_note") == "add, send_note"
    result(notebook, notebook.execute("%%agent -t '' -o turn\nWho are you?"))
    assert "`add`" not in notebook.value("turn.text")
    assert printed(notebook, "%agent tools") == "add, send_note"
    assert printed(notebook, "%agent tools --none") == "none"
    result(notebook, notebook.execute("%%agent -o turn\nWho are you?"))
    assert "`add`" not in notebook.value("turn.text")


@pytest.mark.feature("D9")
def test_an_echo_that_cannot_be_written_is_told_before_a_run_begins(notebook: Kernel, tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "echo.log"
    notebook.run(
        "script('One.'); before = turncell.settings.current(); import dataclasses\n"
        f"turncell.settings.use(dataclasses.replace(before, echo={str(nowhere)!r}))"
    )
    message = failed(notebook, "%%agent -a demo\nHello")
    assert f"TURNCELL_ECHO is {str(nowhere)!r}, which cannot be written: No such file or directory" in message
    notebook.run("turncell.settings.use(before)")
    assert notebook.value("statuses(), len(model.requests)") == ([], 0)
    assert "session  none yet" in printed(notebook, "%agent status")


@pytest.mark.feature("D12", "D8")
def test_out_names_the_run_and_a_run_shows_its_transcript(notebook: Kernel) -> None:
    notebook.run("script('It **rains**.')")
    result(notebook, notebook.execute("%%agent -a demo -o turn\nHow is the weather?"))
    bundle = result(notebook, notebook.execute("turn"))
    assert bundle["text/plain"] == "<Run completed, 1 step: 'It **rains**.'>"
    assert "<strong>rains</strong>" in bundle["text/html"] and "It **rains**." in bundle["text/markdown"]
    assert notebook.value("turn.status, turn.text") == ("completed", "It **rains**.")


@pytest.mark.feature("D8", "D12")
def test_out_has_the_run_of_a_turn_that_failed(notebook: Kernel) -> None:
    notebook.run("from turncell import ModelFailure\nscript(['Half an ans', ModelFailure('overloaded', 'try later')])")
    assert failed(notebook, "%%agent -a demo -o turn\nHello") == "failed: try later"
    assert notebook.value("turn.status, turn.text, statuses()") == ("failed", "Half an ans", ["failed"])


@pytest.mark.feature("D8")
def test_the_commands_of_the_line_magic(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run("script([call('send_note', to='Ana')], 'Ana knows.', mode='auto')")
    status = printed(notebook, "%agent status")
    assert "model    embedded" in status and "session  none yet" in status and "history.sqlite" in status
    assert printed(notebook, "%agent tools") == "none"
    assert printed(notebook, "%agent tools send_note") == "send_note"
    result(notebook, notebook.execute("%%agent -a demo\nTell Ana."))
    assert "1 run" in printed(notebook, "%agent") and "tools    send_note" in printed(notebook, "%agent")
    for table, column in [("runs", "status"), ("steps", "finish_reason"), ("calls", "arguments")]:
        shown = notebook.execute(f"%agent {table}")
        html = result(notebook, shown)["text/html"]
        assert column in html and "..." not in html  # pandas leaves out columns in the middle where there are too many
        assert f"columns; turncell.{table}_df() has all, of every session" in notebook.printed(shown)
    context = printed(notebook, "%agent context")
    assert "turn 1, prompt  Tell Ana." in context and "turn 1, step 2  Ana knows." in context
    assert "its window is not known" in context and "Ana" in printed(notebook, "%agent context --whole")
    for name in ("out.html", "out.md"):
        told = printed(notebook, f"%agent export {tmp_path / name}")
        assert told.startswith(f"{tmp_path / name}\na transcript, to read") and "export --session PATH" in told
        assert "Ana knows." in (tmp_path / name).read_text(encoding="utf-8")
    assert "No such file or directory" in failed(notebook, f"%agent export {tmp_path / 'no' / 'out.md'}")
    assert "write %agent export --session PATH" in failed(notebook, f"%agent export {tmp_path / 'out.jsonl'}")
    assert "is not imported" in failed(notebook, f"%agent import {tmp_path / 'out.md'}")


@pytest.mark.feature("B7", "D8")
def test_what_is_remembered_is_listed_and_revoked(notebook: Kernel) -> None:
    notebook.run("script([call('send_note', to='Ana')], 'Ana knows.', mode='auto')")
    assert printed(notebook, "%agent rules") == "none"
    result(notebook, notebook.execute("%%agent -a demo -o run\nTell Ana."))
    notebook.run(
        "from turncell import Rule, rulebook\n"
        "run.session.remember(Rule('send_note', 'allow', {'to': 'Ana'}))\n"
        "rulebook().remember(Rule('pay', 'deny', reason='no money'))"
    )
    mine, always = printed(notebook, "%agent rules").splitlines()
    assert mine.endswith("  allow send_note(to=Ana), for this session") and always.endswith(
        "  deny pay, always: no money"
    )
    for line, told in [
        (mine, "revoked: allow send_note(to=Ana), for this session"),
        (always, "revoked: deny pay, always"),
    ]:
        assert printed(notebook, f"%agent rules revoke {line.split()[0]}") == told
    assert printed(notebook, "%agent rules") == "none" and notebook.value("run.session.rules") == ()


@pytest.mark.feature("D8")
def test_the_manual_names_every_option(notebook: Kernel) -> None:
    cell = notebook.execute("%%agent?")
    text = notebook.reply(cell)["payload"][0]["data"]["text/plain"]
    for option in ("--model", "--agent", "--tools", "--mode", "--max-steps", "--out", "--new", "--view"):
        assert option in text
    assert "%%agent [-m MODEL]" in text


# -- loading and unloading


@pytest.mark.feature("D1")
def test_the_extension_loads_quickly_and_unloads_without_a_trace(kernel: Kernel) -> None:
    kernel.run("import sys; shell = get_ipython(); formatters = shell.display_formatter.formatters")
    kernel.run("%load_ext turncell")
    assert kernel.value("[m for m in ('litellm', 'pandas', 'anywidget', 'sqlalchemy') if m in sys.modules]") == []
    traces = (
        "[m for kind in shell.magics_manager.magics.values() for m in kind if m == 'agent'],"
        "[k for k in shell.magics_manager.registry if 'Agent' in k],"
        "[str(c) for c in shell.configurables if type(c).__name__ == 'TurncellMagics'],"
        "[str(k) for f in formatters.values() for k in [*f.deferred_printers, *f.type_printers] if 'turncell' in str(k)]"
    )
    kernel.run("%reload_ext turncell")
    kernel.run(
        "from turncell import Agent; from turncell.testing import ScriptedModel; demo = Agent(ScriptedModel(['Hi.']))"
    )
    kernel.run("%%agent -a demo -o turn\nHello")
    bundle = result(kernel, kernel.execute("turn"))
    assert "Hi." in bundle["text/html"]
    kernel.run("%unload_ext turncell")
    assert kernel.value(traces) == ([], [], [], [])
    # A Run has a short form of its own; the transcript was the extension's.
    assert "text/markdown" not in result(kernel, kernel.execute("turn"))
    cell = kernel.execute("%%agent\nHello")
    assert kernel.reply(cell)["status"] == "error"
    kernel.idle(cell)
    assert "`%%agent` not found" in said(kernel, cell)
    kernel.run("%load_ext turncell")
    result(kernel, kernel.execute("%agent status"))


# -- a provider


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    script = [
        reply(
            "Ich schaue nach: 🌦. ",
            calls=[call("send_note", to="Zoë", text="20 °C ☀"), call("send_note", to="Ødegård")],
            is_interleaved=True, piece_chars=2, chunk_bytes=7,
        ),
        reply("Zoë weiß es: **20 °C** 🌦.", chunk_bytes=5, piece_chars=3, usage=Usage(120, 9)),
    ]  # fmt: skip
    with serve(script) as server:
        yield server


@pytest.mark.feature("A2", "D2", "G1")
def test_a_turn_through_litellm_and_a_provider_that_cuts_its_stream_anywhere(
    notebook: Kernel, provider: ProviderServer
) -> None:
    notebook.run(
        "from turncell.adapters.litellm_model import LiteLLMModel\n"
        f"served = LiteLLMModel('openai/served', base_url={provider.base_url!r}, api_key='k')\n"
        "demo = Agent(served, tools=[send_note])"
    )
    cell = notebook.execute("%%agent -a demo\nTell both.", allow_stdin=True)
    page = Page(notebook, cell)
    page.answer(page.hear(ev.RequestOpened, 1, timeout_s=60), "approve")
    page.answer(page.hear(ev.RequestOpened, 2), "deny", reason="he knows")
    assert notebook.reply(cell)["status"] == "ok"
    notebook.idle(cell)
    assert page.state.text == "Zoë weiß es: **20 °C** 🌦."
    assert page.state.steps[-1].usage.input_tokens == 120
    assert notebook.value("outbox") == [("Zoë", "20 °C ☀")]
    results = [message for message in provider.requests[-1]["messages"] if message["role"] == "tool"]  # type: ignore[union-attr]
    assert len(results) == 2 and "he knows" in str(results[1])
    assert not notebook.printed(cell)
