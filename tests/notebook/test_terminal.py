"""`%%agent` where there is no kernel: IPython in a terminal, and a plain script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

NOTEBOOK = """
from turncell import Agent, tool
from turncell.testing import ScriptedModel, call, say
outbox = []

@tool(trusted=True)  # else what it returns makes every later call a question
def send_note(to: str) -> str:
    "Send a note to somebody."
    outbox.append(to)
    return f"sent to {to}"

def script(*entries, **options):
    global model, demo
    model = ScriptedModel(entries)
    demo = Agent(model, tools=[send_note], **options)
"""


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pexpect.spawn]:
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "prelude.py").write_text(NOTEBOOK)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"],
        encoding="utf-8",
        use_poll=True,
        timeout=60,
        cwd=str(folder),
        env=os.environ | {"TERM": "dumb", "IPYTHONDIR": str(folder)},
    )
    child.expect("In ")
    for line in ("%load_ext turncell", "from prelude import *", "import prelude; print('rea' + 'dy')"):
        child.sendline(line)
    child.expect("ready")
    yield child
    end(child)


def end(child: pexpect.spawn) -> None:
    """`close(force=True)` gives a killed process a tenth of a second."""
    child.kill(signal.SIGKILL)
    child.wait()
    child.close()


def turn(child: pexpect.spawn, prompt: str, options: str = "-a demo") -> None:
    child.sendline(
        f"get_ipython().user_ns['demo'] = prelude.demo; get_ipython().run_cell_magic('agent', {options!r}, {prompt!r})"
    )


@pytest.mark.feature("D7", "D4")
def test_a_terminal_shows_live_text_asks_on_the_keyboard_and_can_be_interrupted(terminal: pexpect.spawn) -> None:
    terminal.sendline(
        "script([say('I write. '), call('send_note', to='Ana')], call('send_note', to='Bob'), 'One of two.')"
    )
    turn(terminal, "Tell both.")
    terminal.expect(r"I write\.")
    terminal.expect(r'send_note \{\s+"to": "Ana"\s+\}\s+Allow it\? \[y\]es, \[n\]o.*lways: ')
    terminal.sendline("y")
    terminal.expect(r"send_note: ok")
    terminal.expect(r'"to": "Bob"\s+\}\s+Allow it\?.*lways: ')
    terminal.sendline("n he is asleep")
    terminal.expect("he is asleep")
    terminal.expect(r"One of two\.\s+scripted · completed · 3 steps")
    terminal.sendline("print('out', outbox, 'he is asleep' in str(prelude.model.requests[-1]))")
    terminal.expect(r"out \['Ana'\] True")

    terminal.sendline("script(say('word ' * 2000, delay_s=0.01), 'Still here.')")
    turn(terminal, "Count.")
    terminal.expect("word word word")
    terminal.sendintr()
    terminal.expect("cancelled: interrupted")
    terminal.expect("turn interrupted")
    assert "Traceback" not in terminal.before
    turn(terminal, "Are you there?")
    terminal.expect(r"Still here\.")

    terminal.sendline("script(call('send_note', to='Ana'))")
    turn(terminal, "Tell Ana.")
    terminal.expect("Allow it.*lways: ")
    terminal.sendintr()
    terminal.expect("turn interrupted")
    assert "Traceback" not in terminal.before
    terminal.sendline("print('out', outbox)")
    terminal.expect(r"out \['Ana'\]")


@pytest.mark.feature("D7", "B7")
def test_a_question_in_a_terminal_outlives_neither_its_request_nor_the_keyboard(terminal: pexpect.spawn) -> None:
    asked = r"Allow it\?.*lways: "
    terminal.sendline("script(call('send_note', to='Ana'), say('Ana knows.', delay_s=0.3), request_timeout_s=4)")
    turn(terminal, "Tell Ana.")
    terminal.expect(asked)
    terminal.send("y = half a li")
    terminal.expect("No answer is needed any more")
    terminal.expect(r"Ana knows\.")
    terminal.sendline("print('o' + 'ut', outbox)")
    terminal.expect(r"out \[\]")
    assert "Error" not in terminal.before, "what was typed into the question is not in the next line"

    terminal.sendline(
        "script(call('send_note', to='Bob'), say('It was elsewhere.', delay_s=0.3)); import os, threading, time"
    )
    terminal.sendline(
        "def later():\n    while not os.path.exists('asked'): time.sleep(0.05)\n    get_ipython().user_ns['r'].approve()\n"
    )
    terminal.sendline("threading.Thread(target=later).start()")
    turn(terminal, "Tell Bob.", options="-a demo -o r")
    terminal.expect(asked)
    Path(terminal.cwd, "asked").touch()
    terminal.expect("No answer is needed any more")
    terminal.expect(r"was elsewhere\.")

    terminal.sendline("script(call('send_note', to='Cid'), call('send_note', to='Dan'), 'Nobody.')")
    turn(terminal, "Tell Cid.")
    terminal.expect(asked)
    terminal.sendeof()
    terminal.expect("no keyboard")
    terminal.expect(asked)
    terminal.sendline("y = 3")
    terminal.expect(r"Nobody\.")
    terminal.sendline("print('o' + 'ut', outbox)")
    terminal.expect(r"out \['Bob'\]")


@pytest.mark.feature("D7", "D6")
def test_a_pipe_has_nobody_to_ask() -> None:
    cell = "%%agent -a demo\nTell Ana."
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(colors='NoColor')\n"
        "shell.run_cell('%load_ext turncell')\n"
        f"shell.run_cell({NOTEBOOK!r})\n"
        "shell.run_cell(\"script(call('send_note', to='Ana'), 'Nobody allowed it.')\")\n"
        f"shell.run_cell({cell!r})\n"
        "print('out', shell.user_ns['outbox'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
    )
    assert "Nobody allowed it." in done.stdout and "denied" in done.stdout and "out []" in done.stdout, (
        done.stdout + done.stderr
    )
    assert not done.stderr


@pytest.mark.feature("D7", "A18")
def test_a_plain_script_needs_neither_ipython_nor_a_kernel() -> None:
    code = NOTEBOOK + (
        "script(call('send_note', to='Ana'), 'Nobody allowed it.')\n"
        "run = demo.run_sync('Tell Ana.')\n"
        "import sys; print(run.text, outbox, [m for m in ('IPython', 'anywidget', 'pandas', 'litellm') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
    )
    assert (done.stdout, done.stderr) == ("Nobody allowed it. [] []\n", "")


EDITOR = """#!{python}
import sys
path = sys.argv[1]
text = open(path).read()
open(path, "w").write(text.replace("Ana", "Eva"))
"""


@pytest.fixture
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pexpect.spawn]:
    """Python's own prompt in a terminal that can be painted."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "prelude.py").write_text(NOTEBOOK)
    (folder / "editor").write_text(EDITOR.format(python=sys.executable))
    (folder / "editor").chmod(0o755)
    child = pexpect.spawn(
        sys.executable,
        ["-i", "-q", "-c", "import prelude; from prelude import *; from turncell import show, Rule"],
        encoding="utf-8",
        use_poll=True,
        timeout=60,
        cwd=str(folder),
        dimensions=(40, 120),
        env=os.environ
        | {"TERM": "xterm", "EDITOR": str(folder / "editor"), "PYTHON_BASIC_REPL": "1", "TURNCELL_META_DIRNAME": ".tc"}
        | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)},
    )
    child.expect(">>> ")
    yield child
    end(child)


ASKED = "wants to run.*Allow it.*lways: "


def asks(child: pexpect.spawn, script: str) -> None:
    child.sendline(f"script({script}); r = show(prelude.demo, 'Tell them.')")
    child.expect(ASKED)


@pytest.mark.feature("D7", "B2", "B5")
def test_a_plain_prompt_approves_edits_and_remembers(plain: pexpect.spawn) -> None:
    asks(plain, "call('send_note', to='Ana'), 'Edited in the editor.'")
    plain.sendline("e")
    plain.expect("Edited in the editor")
    asks(plain, "call('send_note', to='Ana'), 'Edited in the line.'")
    plain.sendline('e {"to": "Ana"}')
    plain.expect("nothing was changed.*lways: ")
    plain.sendline('e {"to"')
    plain.expect("this is no JSON.*lways: ")
    plain.sendline('e {"who": "Bob"}')
    plain.expect("who.*lways: ")
    plain.sendline('e {"to": "Bob"}')
    plain.expect(r"Edited in the line")
    asks(plain, "call('send_note', to='Cid'), call('send_note', to='Dan'), 'Both of one session.'")
    plain.sendline("s")
    plain.expect("Both of one session")
    asks(plain, "call('send_note', to='Eli'), 'Always.'")
    plain.sendline("a")
    plain.expect(r"Always\.")
    plain.sendline("script(call('send_note', to='Flo'), 'Unasked.'); r = show(prelude.demo, 'Tell Flo.')")
    plain.expect(r"Unasked\.")
    plain.sendline("print('o' + 'ut', outbox)")
    plain.expect(r"out \['Eva', 'Bob', 'Cid', 'Dan', 'Eli', 'Flo'\]")


@pytest.mark.feature("D7", "D4")
def test_a_plain_prompt_is_interrupted_and_left_even_where_a_tool_goes_on(plain: pexpect.spawn) -> None:
    plain.sendline("script(say('word ' * 2000, delay_s=0.01), 'Still here.'); r = show(prelude.demo, 'Count.')")
    plain.expect("word word")
    plain.sendintr()
    plain.expect("Stopped: interrupted")
    plain.expect(">>> ")
    assert "Traceback" not in plain.before
    plain.sendline("print('ended', r.status, r.text[:9])")
    plain.expect("ended cancelled word word")
    asks(plain, "call('send_note', to='Ana')")
    plain.sendintr()
    plain.expect("Stopped: interrupted")
    plain.expect(">>> ")
    asks(plain, "call('send_note', to='Ana'), 'Nobody.'")
    plain.sendeof()
    plain.expect(r"Denied.*Nobody\.")

    plain.sendline("import time; from turncell import tool; from turncell.testing import ScriptedModel")
    plain.sendline("@tool(effect='read')\ndef wait() -> str:\n    'Wait.'\n    time.sleep(90)\n    return 'x'\n")
    plain.sendline("w = prelude.Agent(ScriptedModel([call('wait'), 'no']), tools=[wait])")
    plain.sendline("r = show(w, 'Wait.')")
    plain.expect(r"wait\x1b\[0m\(\)")  # as it is painted, not as it was typed
    plain.sendintr()
    plain.expect("Stopped: interrupted")
    plain.expect(">>> ")
    plain.sendline("print('o' + 'ut', outbox)")
    plain.expect(r"out \[\]")


@pytest.mark.feature("D7", "D8")
def test_a_detached_turn_says_when_it_waits_and_comes_to_the_front(terminal: pexpect.spawn) -> None:
    terminal.sendline("script(call('send_note', to='Ana'), call('send_note', to='Bob'), 'Both.')")
    turn(terminal, "Tell both.", options="-a demo --detach")
    terminal.expect("goes on; %agent requests")
    terminal.expect("waits for an answer; %agent requests shows it")
    terminal.sendline("%agent approve")
    terminal.expect("approved: send_note")
    terminal.expect("waits for an answer; %agent requests shows it")
    terminal.sendline("%agent show")
    terminal.expect(r'"to": "Bob"\s+\}\s+Allow it\?.*lways: ')
    terminal.sendline("y")
    terminal.expect(r"Both\.[\s\S]+scripted · completed · 3 steps")  # the line that it has ended may come in between
    terminal.sendline("print('o' + 'ut', outbox)")
    terminal.expect(r"out \['Ana', 'Bob'\]")
    terminal.sendline("script('word ' * 1000 + 'and that is all.')")
    turn(terminal, "Talk.")
    for _ in range(2):
        terminal.expect(r"and that is all\.")
        terminal.expect("In ")
        terminal.sendline("%agent show")  # whole, too
