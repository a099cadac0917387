"""`%%agent` on real kernels. The tests play the page: they see the view open, say hello, click, and fold what they hear."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from turncell.core import codec
from turncell.core import events as ev
from turncell.core.fold import fold, snapshot

from .conftest import Kernel, Message, keyboard_after
from .page import Page, views

pytestmark = pytest.mark.matrix
"""But on each kernel what hangs on how it reads its messages: clicks and questions while a cell runs, and interrupts."""

WIDGET = "application/vnd.jupyter.widget-view+json"
STATIC = {"text/plain", "text/markdown", "text/html"}
SOON_S = 30.0
"""At once, on a machine that does much else: what nobody ends here goes on for longer."""


def turn(kernel: Kernel, prompt: str = "Tell Ana.", options: str = "-a demo", *, allow_stdin: bool = True) -> str:
    return kernel.execute(f"%%agent {options}\n{prompt}", allow_stdin=allow_stdin)


def answered_turn(kernel: Kernel, **options: Any) -> Page:
    page = Page(kernel, turn(kernel, **options))
    assert ended(page)["status"] == "ok"
    return page


def ended(page: Page) -> Message:
    reply = page.kernel.reply(page.cell)
    page.kernel.idle(page.cell)
    return reply


def final(page: Page) -> Message:
    """What stays in the cell: the last bundle under the display id of the view."""
    displays = page.kernel.children(page.cell, "display_data")
    updates = page.kernel.children(page.cell, "update_display_data")
    assert len(displays) == 1
    assert all(update["transient"] == displays[0]["transient"] for update in updates)
    return (updates or displays)[-1]["data"]


def is_running(page: Page) -> bool:
    return not page.kernel.children(page.cell, "execute_reply")


# -- text


@pytest.mark.feature("D1", "D2")
@pytest.mark.every_kernel
def test_text_arrives_while_the_cell_is_busy_and_its_pieces_are_the_answer(notebook: Kernel) -> None:
    answer = "Ünïcödé words, 20 °C 🌦 and more. " * 6
    notebook.run(f"script([think('Let me see.'), say({answer!r}, delay_s=0.02, chunk=3)])")
    page = Page(notebook, turn(notebook))
    page.hear(ev.TextDelta)
    assert page.state.status == "running" and ("idle", page.cell) not in notebook.statuses()
    notebook.hear(lambda: notebook.statuses()[-1] == ("busy", page.cell), "busy again after what the page said")
    assert ended(page)["status"] == "ok"
    assert [message["seq"] for message in page.of_type("events")] == list(range(len(page.of_type("events"))))
    assert "".join(event.text for event in page.events() if isinstance(event, ev.TextDelta)) == answer
    assert page.state.text == answer and page.state.status == "completed"
    assert answer.strip() in final(page)["text/plain"]


@pytest.mark.feature("D1")
def test_a_quick_stream_is_at_most_35_messages_a_second(notebook: Kernel) -> None:
    notebook.run("script(say('word ' * 1500, delay_s=0.001, chunk=5))")
    page = answered_turn(notebook)
    times = [message["now"] for message in page.of_type("events")]
    assert times[-1] - times[0] > 1.2, "long enough to count"
    assert max(sum(start <= time < start + 1 for time in times) for start in times) <= 35
    assert len(times) > 12, "and not all at the end"
    assert page.state.text == "word " * 1500


@pytest.mark.feature("D2")
def test_everything_lands_in_the_cell_that_started_the_run(notebook: Kernel) -> None:
    notebook.run("script(say('word ' * 30, delay_s=0.01))")
    page = answered_turn(notebook)
    parents = {
        msg["parent_header"].get("msg_id") for _, msg in notebook.heard if msg["content"].get("comm_id") == page.comm_id
    }
    assert parents == {page.cell}


# -- answers


@pytest.mark.feature("D2", "B8")
@pytest.mark.every_kernel
def test_an_approval_reaches_the_running_cell_and_the_queued_cell_runs_after_it(notebook: Kernel) -> None:
    notebook.run("script([say('I write. '), call('send_note', to='Ana', text='rain')], say('Ana knows.', chunk=3))")
    cell = turn(notebook)
    queued = notebook.execute("print('after', outbox)")
    page = Page(notebook, cell)
    request = page.hear(ev.RequestOpened)
    notebook.listen(0.2)
    assert is_running(page) and page.state.status == "waiting"
    page.answer(request, "approve")
    assert ended(page)["status"] == "ok"
    assert page.state.text == "Ana knows."
    assert notebook.reply(queued)["status"] == "ok"
    notebook.idle(queued)
    assert notebook.printed(queued) == "after [('Ana', 'rain')]\n"
    statuses = notebook.statuses()
    assert statuses.index(("idle", cell)) < statuses.index(("busy", queued))
    assert "approved by you" in final(page)["text/html"].lower()


@pytest.mark.feature("B8")
def test_a_denial_with_its_reason_reaches_the_model(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'Then not.')")
    page = Page(notebook, turn(notebook))
    page.answer(page.hear(ev.RequestOpened), "deny", reason="Ana is asleep")
    assert ended(page)["status"] == "ok"
    assert notebook.value("outbox") == []
    assert "Ana is asleep" in notebook.value("told()")[0]
    assert "Ana is asleep" in final(page)["text/html"]


@pytest.mark.feature("B8")
def test_an_edit_runs_the_edited_arguments(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'Bob knows.')")
    page = Page(notebook, turn(notebook))
    page.answer(page.hear(ev.RequestOpened), "edit", arguments='{"to": "Bob", "text": "hello"}')
    assert ended(page)["status"] == "ok"
    assert notebook.value("outbox") == [("Bob", "hello")]
    assert page.state.calls[0].arguments == {"to": "Bob", "text": "hello"}
    assert page.state.calls[0].proposed_arguments == {"to": "Ana", "text": "hello"}


@pytest.mark.feature("B8")
def test_answers_that_do_not_count_are_refused_and_nothing_runs_before_one_that_does(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), call('send_note', to='Bo'), 'Ana knows.')")
    page = Page(notebook, turn(notebook))
    request = page.hear(ev.RequestOpened)

    page.answer(request, "approve", digest="0" * 64)
    assert "other arguments" in page.hear_message("refused", 1)["problem"]
    page.answer(request, "edit", arguments='{"to": 7, "cc": "Bob"}')
    assert "cc" in page.hear_message("refused", 2)["problem"]
    page.answer(request, "edit", arguments='{"to": ')
    assert "not valid JSON" in page.hear_message("refused", 3)["problem"]
    page.answer(request, "approve", request_id="req_none")
    assert "no such request" in page.hear_message("refused", 4)["problem"]
    assert page.state.status == "waiting" and is_running(page)

    page.answer(request, "approve")
    page.answer(request, "approve")
    assert "not open any more" in page.hear_message("refused", 5)["problem"]
    page.answer(page.hear(ev.RequestOpened, 2), "deny")
    assert ended(page)["status"] == "ok"
    assert notebook.value("outbox") == [("Ana", "hello")]


@pytest.mark.feature("D2")
def test_all_questions_of_a_step_can_be_answered_in_any_order(notebook: Kernel) -> None:
    notebook.run("script([call('send_note', to='Ana'), call('send_note', to='Bob')], 'Done.')")
    page = Page(notebook, turn(notebook))
    second = page.hear(ev.RequestOpened, 2)
    first = page.hear(ev.RequestOpened, 1)
    page.answer(second, "approve")
    page.answer(first, "deny")
    assert ended(page)["status"] == "ok"
    assert notebook.value("outbox") == [("Bob", "hello")]


# -- stopping


@pytest.mark.feature("D2", "A5")
@pytest.mark.every_kernel
def test_stop_ends_the_turn_without_failing_the_cell_and_keeps_what_was_said(notebook: Kernel) -> None:
    notebook.run("script(say('word ' * 20_000, delay_s=0.005, chunk=5))")
    cell = turn(notebook)
    queued = notebook.execute("print('still runs')")
    page = Page(notebook, cell)
    page.hear_text("word word word")
    stopped_s = time.monotonic()
    page.say("stop")
    assert ended(page)["status"] == "ok"
    assert time.monotonic() - stopped_s < SOON_S
    assert notebook.reply(queued)["status"] == "ok"
    assert page.state.status == "cancelled"
    for mime in STATIC:
        assert "word word word" in final(page)[mime]
    assert notebook.value("statuses()") == ["cancelled"]


@pytest.mark.feature("A5")
def test_stop_while_a_person_is_asked_denies_nothing_and_runs_nothing(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'never said')")
    page = Page(notebook, turn(notebook))
    page.hear(ev.RequestOpened)
    page.say("stop")
    assert ended(page)["status"] == "ok"
    assert page.state.status == "cancelled" and page.state.calls[0].status == "cancelled"
    assert notebook.value("outbox") == []


@pytest.mark.feature("D1", "D5")
def test_what_a_page_says_to_a_view_that_is_closed_already_leaves_no_line_in_the_cell(notebook: Kernel) -> None:
    notebook.run("script('All is well.')")
    page = Page(notebook, turn(notebook, "How is it?"))
    ended(page)
    notebook.hear(lambda: notebook.children(page.cell, "comm_close"), "the end of the view")
    late = notebook.send(
        "comm_msg", {"comm_id": page.comm_id, "data": {"method": "custom", "content": {"type": "hello"}}}
    )
    notebook.idle(late)
    other = notebook.send("comm_msg", {"comm_id": "of somebody else", "data": {}})
    notebook.idle(other)
    assert notebook.printed(late) == "" and "No such comm: of somebody else" in notebook.printed(other)


@pytest.mark.feature("D4")
@pytest.mark.every_kernel
def test_an_interrupt_cancels_at_once_in_one_line_and_the_session_goes_on(notebook: Kernel) -> None:
    notebook.run("script(say('word ' * 20_000, delay_s=0.005, chunk=5), 'Again.')")
    cell = turn(notebook, "Count.")
    queued = notebook.execute("ran = True")
    page = Page(notebook, cell)
    page.hear_text("word word word")
    notebook.idle(page.ready)
    pressed_s = time.monotonic()
    notebook.interrupt()
    reply = ended(page)
    assert time.monotonic() - pressed_s < SOON_S
    assert (reply["status"], reply["traceback"]) == ("error", ["turn interrupted"])
    assert [error["traceback"] for error in notebook.children(cell, "error")] == [["turn interrupted"]]
    assert notebook.reply(queued)["status"] == "aborted"
    for mime in STATIC:
        assert "word word word" in final(page)[mime]
    assert notebook.value("'ran' in globals(), statuses()") == (False, ["cancelled"])

    again = answered_turn(notebook, prompt="And again.")
    assert again.state.text == "Again."
    said = notebook.value("[m.text for m in model.requests[-1].messages]")
    assert said[0] == "Count." and said[1].startswith("word word") and said[-1] == "And again."


@pytest.mark.feature("D4")
@pytest.mark.every_kernel
def test_an_interrupt_ends_the_run_however_early_it_comes(notebook: Kernel) -> None:
    notebook.run("script(*[call('send_note', to='Ana')] * 15)")
    for round_ in range(15):
        cell = notebook.execute("%%agent -a demo --new\nTell Ana.", allow_stdin=True)
        notebook.hear(lambda cell=cell: views(notebook, cell), "the view")  # type: ignore[misc]
        time.sleep(round_ * 0.001)
        notebook.interrupt()
        assert notebook.reply(cell)["traceback"] == ["turn interrupted"]
        notebook.idle(cell)
        notebook.run("pass")  # the next one is no longer aborted
    assert notebook.value("outbox, set(statuses())") == ([], {"cancelled"})


@pytest.mark.feature("D4")
def test_an_interrupt_while_a_person_is_asked(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'never said')")
    page = Page(notebook, turn(notebook))
    page.hear(ev.RequestOpened)
    pressed_s = time.monotonic()
    notebook.interrupt()
    assert ended(page)["status"] == "error"
    assert time.monotonic() - pressed_s < SOON_S
    assert notebook.value("outbox, statuses()") == ([], ["cancelled"])


# -- the end


@pytest.mark.feature("D5")
@pytest.mark.every_kernel
def test_at_the_end_a_static_transcript_stands_in_the_place_of_the_view(notebook: Kernel) -> None:
    texts = []
    for _ in range(2):
        notebook.run("script([call('send_note', to='Ana')], 'It **rains**.')")
        page = Page(notebook, turn(notebook))
        page.answer(page.hear(ev.RequestOpened), "approve")
        assert ended(page)["status"] == "ok"
        assert WIDGET in notebook.children(page.cell, "display_data")[0]["data"]
        assert set(final(page)) == STATIC
        assert "<strong>rains</strong>" in final(page)["text/html"]
        assert page.comm_id in [content["comm_id"] for content in notebook.children(page.cell, "comm_close")]
        texts.append(final(page)["text/plain"])
    assert texts[0] == texts[1] == '✓ send_note(to: "Ana", text: "hello"): approved by you\n\nIt **rains**.'


@pytest.mark.feature("A20", "D5")
def test_at_the_end_a_sub_agent_s_run_stands_under_its_call(notebook: Kernel) -> None:
    notebook.run(
        "clerk = Agent(ScriptedModel(['Filed **it**.']), name='clerk')\n"
        "demo = Agent(ScriptedModel([call('clerk', task='File it.'), 'Done.']), tools=[clerk.as_tool()])"
    )
    page = Page(notebook, turn(notebook))
    assert ended(page)["status"] == "ok"
    cell = notebook.execute("%agent show")
    notebook.reply(cell, timeout_s=60)
    notebook.idle(cell)
    for outputs in (final(page), notebook.children(cell, "display_data")[-1]["data"]):
        assert "Filed <strong>it</strong>." in outputs["text/html"] and "Inside, 1 step" in outputs["text/markdown"]


@pytest.mark.feature("D8")
def test_keep_view_leaves_the_view_in_place_and_it_still_knows_the_run(notebook: Kernel) -> None:
    notebook.run("script('Fine.')")
    page = answered_turn(notebook, options="-a demo --view keep")
    assert WIDGET in final(page)
    assert not notebook.children(page.cell, "comm_close")
    page.say("ready", have=-1)
    told = page.hear_message("snapshot")
    assert told["run"]["status"] == "completed"


# -- who is there


@pytest.mark.feature("D6")
@pytest.mark.every_kernel
def test_where_nobody_can_answer_there_is_no_view_and_the_policy_denies_at_once(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'Nobody allowed it.')")
    began_s = time.monotonic()
    cell = turn(notebook, allow_stdin=False)
    assert notebook.reply(cell)["status"] == "ok"
    notebook.idle(cell)
    assert time.monotonic() - began_s < 50
    assert not notebook.children(cell, "comm_open") and not notebook.children(cell, "update_display_data")
    assert [set(display["data"]) for display in notebook.children(cell, "display_data")] == [STATIC]
    assert notebook.printed(cell) == ""
    assert "nobody is attending" in notebook.value("told()")[0]
    assert notebook.value("outbox, statuses()") == ([], ["completed"])


@pytest.mark.feature("D7", "D2")
@pytest.mark.every_kernel
def test_without_a_hello_the_questions_come_to_the_keyboard(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), call('send_note', to='Bob'), 'One of two.')")
    keyboard_after(notebook, 1.0)
    began_s = time.monotonic()
    cell = turn(notebook)
    prompt = notebook.hear_input_request()["prompt"]
    assert 0.8 < time.monotonic() - began_s < 50
    assert "send_note" in prompt and '"to": "Ana"' in prompt
    notebook.hear_print(cell, "keyboard")  # by another socket than the question
    notebook.answer_input("y")
    notebook.hear(lambda: '"to": "Bob"' in notebook.hear_input_request()["prompt"], "the second question")
    notebook.answer_input("n too risky")
    assert notebook.reply(cell)["status"] == "ok"
    assert notebook.value("outbox") == [("Ana", "hello")]
    assert "too risky" in notebook.value("told()")[-1]


@pytest.mark.feature("D15")
def test_in_vs_code_the_keyboard_comes_with_what_is_known_of_it(notebook: Kernel) -> None:
    notebook.run("import os; os.environ['VSCODE_PID'] = '1'")
    notebook.run("script(call('send_note', to='Ana'), 'Done.')")
    keyboard_after(notebook, 0.1)
    cell = turn(notebook)
    notebook.hear_input_request()
    notebook.answer_input("y")
    assert notebook.reply(cell)["status"] == "ok"
    notebook.run("del os.environ['VSCODE_PID']")
    notebook.hear_print(cell, "VS Code may hold back")
    notebook.hear_print(cell, "--detach")


@pytest.mark.feature("D7", "D4")
@pytest.mark.every_kernel
def test_a_question_at_the_keyboard_can_be_interrupted(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'never said')")
    keyboard_after(notebook, 0.1)
    cell = turn(notebook)
    notebook.hear_input_request()
    pressed_s = time.monotonic()
    notebook.interrupt()
    reply = notebook.reply(cell)
    assert (reply["status"], reply["traceback"]) == ("error", ["turn interrupted"])
    assert time.monotonic() - pressed_s < SOON_S
    assert notebook.value("outbox, statuses()") == ([], ["cancelled"])


@pytest.mark.feature("D7", "B7")
@pytest.mark.parametrize(
    ("elsewhere", "left"),
    [
        ("turn.approve()", ([("Ana", "hello")], ["completed"])),
        ("turn.deny('he is away')", ([], ["completed"])),
        ("turn.cancel()", ([], ["cancelled"])),
    ],
)
def test_a_question_at_the_keyboard_is_given_up_when_it_was_answered_elsewhere(
    notebook: Kernel, elsewhere: str, left: Any, tmp_path: Path
) -> None:
    notebook.run("import threading; script(call('send_note', to='Ana'), 'Done.')")
    notebook.run(
        "def elsewhere():\n"
        "    while not (path / 'now').exists(): time.sleep(0.01)\n"
        f"    {elsewhere}\n"
        f"import time, pathlib; path = pathlib.Path({str(tmp_path)!r})\n"
        "threading.Thread(target=elsewhere, daemon=True).start()"
    )
    keyboard_after(notebook, 0.1)
    cell = turn(notebook, options="-a demo -o turn")
    notebook.hear_input_request()
    (tmp_path / "now").touch()
    answered_s = time.monotonic()
    assert notebook.reply(cell)["status"] == "ok"
    assert time.monotonic() - answered_s < SOON_S
    notebook.idle(cell)
    assert notebook.printed(cell).count("No answer is needed any more.") == 1
    notebook.answer_input("y")
    assert notebook.value("outbox, statuses()") == left
    assert notebook.run("1 + 1")["status"] == "ok", "and nothing is left that could hit the next cell"


@pytest.mark.feature("D7", "B7")
def test_a_question_at_the_keyboard_ends_with_its_time_limit(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'Nobody was there.', request_timeout_s=5)")
    keyboard_after(notebook, 0.1)
    cell = turn(notebook)
    notebook.hear_input_request()
    assert notebook.reply(cell)["status"] == "ok"
    assert notebook.value("outbox, statuses()") == ([], ["completed"])


@pytest.mark.feature("D7", "B7")
def test_ctrl_d_at_the_keyboard_denies_at_once(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'Not sent.')")
    keyboard_after(notebook, 0.1)
    cell = turn(notebook)
    notebook.hear_input_request()
    notebook.answer_input("\x04")
    assert notebook.reply(cell)["status"] == "ok"
    assert "no keyboard" in notebook.value("told()")[-1]
    assert notebook.value("outbox, statuses()") == ([], ["completed"])


@pytest.mark.feature("D2")
def test_a_turn_that_asks_nothing_says_nothing_of_keyboards(notebook: Kernel) -> None:
    notebook.run("script(say('word ' * 20, delay_s=0.05, chunk=5))")
    keyboard_after(notebook, 0.2)
    cell = turn(notebook)
    assert notebook.reply(cell)["status"] == "ok"
    notebook.idle(cell)
    assert notebook.printed(cell) == ""


@pytest.mark.feature("D2")
@pytest.mark.every_kernel
def test_whatever_a_page_says_the_moment_the_view_opens_is_never_lost(notebook: Kernel) -> None:
    notebook.run("script(*[say('word ' * 2000, delay_s=0.01)] * 20)")
    for _ in range(20):
        cell = turn(notebook)
        comm_id = notebook.hear(lambda cell=cell: views(notebook, cell), "the view")[0]  # type: ignore[misc]
        notebook.click(comm_id, type="hello")
        notebook.click(comm_id, type="stop")
        assert notebook.reply(cell)["status"] == "ok"
        notebook.idle(cell)
    # One that was stopped before it began has left nothing.
    assert set(notebook.value("statuses()")) == {"cancelled"}


@pytest.mark.feature("D2")
def test_a_page_that_said_hello_is_asked_and_not_the_keyboard(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'Ana knows.')")
    keyboard_after(notebook, 3.0)
    page = Page(notebook, turn(notebook))
    request = page.hear(ev.RequestOpened)
    notebook.listen(3.5)
    assert not [1 for _, msg in notebook.heard if msg["header"]["msg_type"] == "input_request"]
    page.answer(request, "approve")
    assert ended(page)["status"] == "ok"
    assert notebook.printed(page.cell) == ""


# -- late and hostile pages


@pytest.mark.feature("D5")
@pytest.mark.parametrize("asks", ["ready", "resync"])
def test_a_page_that_missed_something_gets_a_snapshot_that_equals_the_events(notebook: Kernel, asks: str) -> None:
    notebook.run(
        "script([think('Hm.'), say('I write. ', chunk=2), call('send_note', to='Ana')], say('Ana knows. ' * 2000, delay_s=0.05))"
    )
    page = Page(notebook, turn(notebook), says_hello=False)
    page.say("hello")
    request = page.hear(ev.RequestOpened)
    page.say(asks, have=-1)
    page.hear_message("snapshot", 1)
    page.answer(request, "approve")
    page.hear_text("Ana knows. ")
    page.say(asks, have=0)
    page.hear_message("snapshot", 2)
    page.say("stop")
    assert ended(page)["status"] == "ok"

    for told in page.of_type("snapshot"):
        mine = json.loads(codec.encode(snapshot(fold(page.events(up_to_seq=told["seq"])))))
        assert told["run"] == mine
    assert len(page.of_type("snapshot")) == 2


@pytest.mark.feature("D5")
def test_a_page_that_has_everything_gets_no_snapshot(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'never said')")
    page = Page(notebook, turn(notebook), says_hello=False)
    page.hear(ev.RequestOpened)
    page.say("ready", have=page.of_type("events")[-1]["seq"])
    notebook.listen(0.3)
    assert not page.of_type("snapshot")
    page.say("stop")
    ended(page)


@pytest.mark.feature("D14")
def test_messages_that_make_no_sense_are_ignored(notebook: Kernel) -> None:
    notebook.run("script(call('send_note', to='Ana'), 'Ana knows.')")
    page = Page(notebook, turn(notebook))
    request = page.hear(ev.RequestOpened)
    junk: list[Any] = [
        {},
        {"type": "nonsense"},
        {"type": "answer"},
        {"type": "answer", "request_id": request.request_id, "digest": request.digest, "decision": "allow"},
        {"type": "answer", "request_id": request.request_id, "digest": None, "decision": "approve"},
        {"type": "ready", "have": "x" * 1000},
        {"type": ["stop"]},
        ["stop"],
        "stop",
        None,
    ]
    for content in junk:
        data = {"method": "custom", "content": content}
        notebook.send("comm_msg", {"comm_id": page.comm_id, "data": data})
    notebook.listen(0.3)
    assert is_running(page) and page.state.status == "waiting"
    page.answer(request, "approve")
    assert ended(page)["status"] == "ok"
    assert notebook.printed(page.cell) == ""
    assert notebook.value("outbox") == [("Ana", "hello")]
    assert notebook.run("1 + 1")["status"] == "ok"
