"""What `%%agent` and `%agent` offer beside a plain turn: limits, types, cassettes, turns that go on without their cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from turncell.core import events as ev

from .conftest import Kernel
from .page import Page
from .test_magics import failed, printed, result

pytestmark = pytest.mark.newest_kernel


@pytest.mark.feature("D8", "A19")
def test_a_turn_ends_with_a_value_of_a_type_of_the_notebook(notebook: Kernel) -> None:
    notebook.run(
        "from pydantic import BaseModel\n"
        "class Label(BaseModel):\n    name: str\n    sure: bool\n"
        "script(call('final_answer', name='spam', sure=True))"
    )
    result(notebook, notebook.execute("%%agent -a demo --schema Label -o run\nWhat is it?"))
    assert notebook.value("run.output.name, run.output.sure, type(run.output).__name__") == ("spam", True, "Label")
    assert "'nothing' is not defined" in failed(notebook, "%%agent -a demo --schema nothing\nWhat is it?")


@pytest.mark.feature("D8", "E4", "D12")
def test_a_budget_that_is_used_up_fails_the_cell(notebook: Kernel) -> None:
    notebook.run("script(*[call('send_note', to='Ana')] * 9, mode='auto')")
    told = failed(notebook, "%%agent -a demo --budget calls=2\nGo on for ever.")
    assert told.startswith("budget: ") and "0 calls left of 2 calls" in told
    assert notebook.value("len(outbox), statuses()") == (2, ["budget"])


@pytest.mark.feature("D8")
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%agent -a demo --budget cake=1\nx", "--budget cake=1: write dollars, like 0.50, or limits of steps, tokens"),
        ("%%agent -a demo --budget much\nx", "--budget 'much': 'much' is no number"),
        ("%%agent -a demo --budget 0\nx", "usd is 0; use a number, more than 0"),
        ("%%agent -a demo --timeout 0\nx", "timeout_s is 0.0; use a number, more than 0"),
        ("%%agent -a demo --retry\nx", "there is no turn yet whose place this one could take"),
        ("%%agent -a demo --retry --new\nx", "--new and --retry do not go together"),
        ("%%agent -a demo --cached --detach\nx", "--cached and --detach do not go together"),
        ("%%agent -a demo --view upside-down\nx", "--view: invalid choice: 'upside-down'"),
        ("%agent mode maybe", "setting 'mode' is 'maybe'; use one of"),
        ("%agent model 'two words'", "model 'two words': use 'embedded' or a name like"),
        ("%agent models nobody", "the price list has no models of 'nobody'"),
        ("%agent approve", "nothing waits for an answer"),
        ("%agent answer", "write %agent answer [CALL] TEXT"),
        ("%agent show", "this notebook has no session yet"),
    ],
)
def test_a_mistake_in_an_option_is_told_in_one_line(notebook: Kernel, cell: str, message: str) -> None:
    notebook.run("script('never said')")
    assert message in failed(notebook, cell)
    assert notebook.value("statuses()") == []


@pytest.mark.feature("D8", "A12")
def test_a_turn_that_takes_too_long_fails_its_cell(notebook: Kernel) -> None:
    notebook.run("script([say('Wait'), say('for it', delay_s=30)])")
    assert failed(notebook, "%%agent -a demo --timeout 0.3\nHello").startswith("timeout: ")


@pytest.mark.feature("D8", "C10")
def test_retry_takes_the_place_of_the_last_turn(notebook: Kernel) -> None:
    notebook.run("script('One.', 'Two.', 'Other.')")
    for cell in ("%%agent -a demo\nfirst", "%%agent -a demo\nsecond", "%%agent -a demo --retry\nanother"):
        result(notebook, notebook.execute(cell))
    assert notebook.value("[m.text for m in model.requests[-1].messages]") == ["first", "One.", "another"]
    assert len(printed(notebook, "%agent branch").splitlines()) == 3


@pytest.mark.feature("D8", "C12")
def test_a_cached_cell_asks_the_model_once(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run("script('Only once.')")
    for _ in range(2):
        shown = result(notebook, notebook.execute(f"%%agent -a demo --new --cached {tmp_path / 'said.jsonl'}\nHello"))
        assert "Only once." in shown["text/plain"]
    assert notebook.value("len(model.requests), statuses()") == (1, ["completed", "completed"])


@pytest.mark.feature("D8")
def test_model_and_mode_are_set_for_the_kernel(notebook: Kernel) -> None:
    assert printed(notebook, "%agent mode plan") == "plan"
    assert printed(notebook, "%agent model") == "embedded"
    for mistyped, near in (("openai/gpt-4o-mni", "It has openai/gpt-4o-mini"), ("opnai/gpt-4o", "openai/gpt-4o")):
        told = printed(notebook, f"%agent model {mistyped}")
        assert told.startswith(f"{mistyped}\nthe price list does not have it") and near in told
    assert printed(notebook, "%agent model openai/gpt-4o") == "openai/gpt-4o"
    assert printed(notebook, "%agent model embedded") == "embedded"
    notebook.run("%config TurncellMagics.max_steps = 3")
    status = printed(notebook, "%agent status")
    assert "mode     plan" in status and notebook.value("turncell.settings.current().max_steps") == 3
    cell = notebook.execute("%config TurncellMagics.max_steps = 0")
    notebook.idle(cell)
    assert "setting 'max_steps' is 0; use 1 or more" in notebook.printed(cell)
    assert notebook.value("turncell.settings.current().max_steps") == 3
    assert "openai/gpt-5 " in printed(notebook, "%agent models openai")


@pytest.mark.feature("D8")
def test_tab_completes_options_commands_and_names(notebook: Kernel) -> None:
    notebook.run("script('One.')")
    result(notebook, notebook.execute("%%agent -a demo\nHello"))

    def completed(line: str) -> list[str]:
        word = "" if line.endswith(" ") else line.split()[-1]
        return notebook.value(f"get_ipython().complete({word!r}, {line!r}, {len(line)})[1]")

    assert {"--model", "--mode"} <= set(completed("%%agent --mo"))
    assert completed("%%agent --mode pl") == ["plan"]
    assert "demo" in completed("%%agent -a ")
    assert "send_note" in completed("%%agent -t se")
    assert "openai/gpt-5" in completed("%%agent -m openai/gpt-5")
    assert {"sessions", "show", "status", "steps", "stop"} == set(completed("%agent s"))
    content = {"code": "%agent mode ", "cursor_pos": 12}
    reply = notebook.reply(notebook.send("complete_request", content), "complete_reply")
    offered = reply["matches"]
    assert {one["type"] for one in reply["metadata"]["_jupyter_types_experimental"]} == {"text"}
    assert offered == ["ask", "auto", "edits", "never", "plan"], "as a page is told, without what is Python's"
    [session] = notebook.value("[get_ipython().magics_manager.registry['TurncellMagics'].session.id]")
    assert session in completed("%agent resume ses")
    notebook.run("%unload_ext turncell")
    assert "--model" not in completed("%%agent --mo")
    notebook.run("%load_ext turncell")


def settled(notebook: Kernel, text: str) -> None:
    """Hear how a view becomes the transcript, whatever cell runs then."""

    def shown() -> bool:
        updates = [msg for _, msg in notebook.heard if msg["header"]["msg_type"] == "update_display_data"]
        return any(text in update["content"]["data"].get("text/plain", "") for update in updates)

    notebook.hear(shown, f"the transcript with {text!r}")


@pytest.mark.feature("D3")
def test_a_detached_turn_goes_on_and_is_answered_between_cells(notebook: Kernel) -> None:
    notebook.run("script([call('send_note', to='Ana')], 'Ana knows.')")
    cell = notebook.execute("%%agent -a demo --detach -o run\nTell Ana.", allow_stdin=True)
    assert notebook.reply(cell)["status"] == "ok"
    page = Page(notebook, cell)
    asked = page.hear(ev.RequestOpened, 1)
    assert notebook.value("run.status") == "waiting"
    requests = printed(notebook, "%agent requests")
    assert "send_note" in requests and requests.endswith("\n%agent approve, or %agent deny -r REASON")
    assert "running  run_" in printed(notebook, "%agent status")
    page.answer(asked, "approve")
    page.hear(ev.RunEnded, 1)
    settled(notebook, "Ana knows.")
    assert notebook.value("run.status, outbox") == ("completed", [("Ana", "hello")])


@pytest.mark.feature("D3")
def test_a_click_on_a_detached_turn_arrives_while_another_cell_runs(notebook: Kernel, kernel_version: str) -> None:
    notebook.run("import time; script([call('send_note', to='Ana')], 'Ana knows.')")
    cell = notebook.execute("%%agent -a demo --detach -o run\nTell Ana.", allow_stdin=True)
    page = Page(notebook, cell)
    asked = page.hear(ev.RequestOpened, 1)
    wait_s = 1 if kernel_version.startswith("6.") else 50
    busy = notebook.execute(
        f"until = time.monotonic() + {wait_s}\nwhile not outbox and time.monotonic() < until: time.sleep(0.02)\nprint(len(outbox))"
    )
    page.answer(asked, "approve")
    assert notebook.reply(busy, timeout_s=60)["status"] == "ok"
    notebook.idle(busy)
    # ipykernel 6 reads its messages between cells.
    assert notebook.printed(busy).strip() == ("0" if kernel_version.startswith("6.") else "1")
    page.hear(ev.RunEnded, 1)
    assert notebook.value("run.text") == "Ana knows."


@pytest.mark.feature("D3", "B8")
def test_a_detached_turn_is_answered_and_stopped_by_commands(notebook: Kernel) -> None:
    notebook.run("script([call('send_note', to='Ana')], [call('send_note', to='Bo')], [call('send_note', to='Cy')])")
    notebook.execute("%%agent -a demo --detach -o run\nTell them.", allow_stdin=True)
    notebook.run("import time\nwhile not run.requests: time.sleep(0.02)")
    assert printed(notebook, "%agent approve") == "approved: send_note"
    notebook.run("while not run.requests or run.requests[0].step < 2: time.sleep(0.02)")
    [call_id] = notebook.value("[call.call_id for call in run.requests]")
    assert "'call_x' does not wait; name one of" in failed(notebook, "%agent deny call_x")
    assert printed(notebook, f"%agent deny {call_id} -r not him") == "denied: send_note"
    notebook.run("while not run.requests or run.requests[0].step < 3: time.sleep(0.02)")
    assert printed(notebook, "%agent stop").endswith("is cancelled")
    assert notebook.value("outbox, run.status") == ([("Ana", "hello")], "cancelled")
    assert "not him" in notebook.value("told()")[-1]
    assert printed(notebook, "%agent stop") == "nothing runs"


@pytest.mark.feature("D3", "D6")
def test_a_detached_turn_that_nobody_attends_is_complete_when_its_cell_ends(notebook: Kernel) -> None:
    notebook.run("script([call('send_note', to='Ana')], 'Nobody let me.')")
    shown = result(notebook, notebook.execute("%%agent -a demo --detach -o run\nTell Ana."))
    assert "Nobody let me." in shown["text/plain"]


@pytest.mark.feature("D3", "D12")
def test_a_detached_turn_that_nobody_attends_fails_its_cell(notebook: Kernel) -> None:
    notebook.run("script(*[])")
    told = failed(notebook, "%%agent -a demo --detach\nHello", allow_stdin=False)
    assert told.startswith("failed: model 'scripted': the script has 0 entries")


@pytest.mark.feature("D5")
def test_show_draws_a_turn_again(notebook: Kernel) -> None:
    notebook.run("script('**One.**', 'Two.')")
    result(notebook, notebook.execute("%%agent -a demo -o run\nfirst"))
    result(notebook, notebook.execute("%%agent -a demo\nsecond"))
    assert "Two." in result(notebook, notebook.execute("%agent show"))["text/plain"]
    shown = result(notebook, notebook.execute(f"%agent show {notebook.value('run.id')}"))
    assert "<strong>One.</strong>" in shown["text/html"]
    assert "there is no run 'run_x' in this history" in failed(notebook, "%agent show run_x")


@pytest.mark.feature("D8", "D7")
def test_a_turn_can_be_shown_as_text_or_not_at_all(notebook: Kernel) -> None:
    notebook.run("script('As text.', 'Unseen.')")
    cell = notebook.execute("%%agent -a demo --view text\nHello", allow_stdin=True)
    result(notebook, cell)
    assert "As text." in notebook.printed(cell)
    cell = notebook.execute("%%agent -a demo --view none -o run\nHello", allow_stdin=True)
    assert result(notebook, cell) == {} and notebook.printed(cell) == ""
    assert notebook.value("run.text") == "Unseen."


@pytest.mark.feature("D8", "C13")
def test_a_report_of_a_problem_has_what_happened_and_nothing_that_was_said(notebook: Kernel, tmp_path: Path) -> None:
    key = "sk-" + "abcdefghijklmnopqrstuvwx" * 2
    notebook.run(
        f"from turncell import ModelFailure\nscript([call('send_note', to='Ana-Beth')], ModelFailure('auth', 'bad {key}'), mode='auto')"
    )
    failed(notebook, "%%agent -a demo\nTell Ana-Beth of the tulips.")
    path = tmp_path / "report.md"
    assert printed(notebook, f"%agent doctor --report {path}").startswith(str(path))
    text = path.read_text("utf-8")
    assert "| failed |" in text and "send_note: ok" in text and "ipykernel " in text and "tap available" in text
    assert key not in text and "tulips" not in text and "Ana-Beth" not in text
    assert path.stat().st_mode & 0o077 == 0
    assert "File exists" in failed(notebook, f"%agent doctor --report {path}")


@pytest.mark.feature("D9")
def test_braces_in_the_text_are_values_of_the_notebook_unless_it_is_raw(notebook: Kernel) -> None:
    notebook.run("script('One.', 'Two.'); n = 3; d = {'k': [1, 2]}")
    result(notebook, notebook.execute("%%agent -a demo\n{n} of {d['k']}, {unknown} and {a b}"))
    result(notebook, notebook.execute("%%agent -a demo --raw\n{n}"))
    said = notebook.value("[r.messages[-1].text for r in model.requests]")
    assert said == ["3 of [1, 2], {unknown} and {a b}", "{n}"]


@pytest.mark.feature("D10")
def test_a_turn_is_told_the_cells_above_once_and_data_when_it_is_asked_for(notebook: Kernel) -> None:
    notebook.run("script(*['Yes.'] * 9); told_of = lambda: [r.messages[-1].text for r in model.requests]")
    notebook.run("rate = 0.25  # a cell above")
    result(notebook, notebook.execute("%%agent -a demo --context cells\nfirst"))
    notebook.run("rate = 0.5")
    result(notebook, notebook.execute("%%agent -a demo --context cells\nsecond"))
    first, second = notebook.value("told_of()")
    assert "rate = 0.25  # a cell above" in first and first.endswith("first")
    assert "rate = 0.5" in second and "a cell above" not in second
    notebook.run("import pandas as pd; df = pd.DataFrame({'city': ['Oslo', 'Bergen']})")
    result(notebook, notebook.execute("%%agent -a demo --vars df\nthird"))
    result(notebook, notebook.execute("%%agent -a demo --context none\nfourth"))
    third, fourth = notebook.value("told_of()[2:]")
    assert "Bergen" in third and fourth == "fourth"
    assert "'nothing' is not defined" in failed(notebook, "%%agent -a demo --vars nothing\nfifth")


@pytest.mark.feature("D11", "B15")
def test_the_notebook_s_own_tools_work_in_a_cell(notebook: Kernel) -> None:
    notebook.run("script([call('run_python', code='total = 6 * 7\\ntotal')], 'It is 42.', mode='auto')")
    notebook.run("model = ScriptedModel([[call('run_python', code='total = 6 * 7\\ntotal')], 'It is 42.'])")
    notebook.run("from turncell import notebook_tools; demo = Agent(model, tools=notebook_tools(), mode='auto')")
    result(notebook, notebook.execute("%%agent -a demo\nMultiply.", allow_stdin=True))
    assert notebook.value("total") == 42 and "42" in notebook.value("told()[0]")
    assert printed(notebook, "%agent tools notebook") == "notebook"
    result(notebook, notebook.execute("%%agent -o turn --new\nWho are you?"))
    assert "`run_python`" in notebook.value("turn.text")


@pytest.mark.feature("D10")
def test_fix_tells_of_the_cell_that_failed(notebook: Kernel) -> None:
    assert "no cell has failed" in failed(notebook, "%agent fix")
    notebook.run("script('Divide by one.'); amount = 0")
    cell = notebook.execute("share = 10 / amount")
    assert notebook.reply(cell)["status"] == "error"
    notebook.idle(cell)
    assert notebook.value("amount") == 0  # and a cell after it is no longer aborted
    result(notebook, notebook.execute("%agent fix -a demo"))
    prompt = notebook.value("model.requests[-1].messages[-1].text")
    assert "share = 10 / amount" in prompt and "ZeroDivisionError" in prompt and "amount: " in prompt


@pytest.mark.feature("F1")
def test_a_cell_asks_for_each_row_of_a_table(notebook: Kernel) -> None:
    notebook.run(
        "import pandas as pd; df = pd.DataFrame({'word': ['sun', 'rain']}, index=[7, 9])\n"
        "model = ScriptedModel(lambda request: request.messages[-1].text.upper()); demo = Agent(model)"
    )
    shown = result(notebook, notebook.execute("%%agent -a demo --map df -o words\nSay {word}"))
    assert "SAY RAIN" in shown["text/plain"]
    assert notebook.value("words.answer.to_dict()") == {7: "SAY SUN", 9: "SAY RAIN"}
    assert "--map and --detach do not go together" in failed(notebook, "%%agent -a demo --map df --detach\nSay {word}")
    assert "belongs to --map" in failed(notebook, "%%agent -a demo --resume x\nSay {word}")


@pytest.mark.feature("F1", "D5")
def test_the_bar_of_a_batch_is_no_widget_in_the_saved_notebook(notebook: Kernel) -> None:
    notebook.run(
        "from turncell import ModelFailure\n"
        "def answer(request):\n"
        "    if 'rain' in request.messages[-1].text:\n"
        "        raise ModelFailure('bad_request', 'no rain')\n"
        "    return 'yes'\n"
        "demo = Agent(ScriptedModel(answer))"
    )
    cell = notebook.execute("found = demo.map(['sun', 'rain', 'snow'], 'Say {text}')")
    result(notebook, cell)
    (shown,) = notebook.children(cell, "display_data")
    updates = notebook.children(cell, "update_display_data")
    assert {update["transient"]["display_id"] for update in updates} == {shown["transient"]["display_id"]}
    for each in (shown, *updates):
        assert sorted(each["data"]) == ["text/html", "text/plain"]
    assert shown["data"]["text/plain"] == "0 of 3 rows"
    assert updates[-1]["data"]["text/plain"] == "3 of 3 rows, 1 not completed"
    assert notebook.children(cell, "comm_open") == [] and notebook.printed(cell) == ""
