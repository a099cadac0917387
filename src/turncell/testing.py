"""For your own tests: models that follow a script, and a provider on this machine that speaks the real wire formats.

A scripted model replaces the provider and everything before it:

>>> from turncell.testing import ScriptedModel, call
>>> model = ScriptedModel([call("weather", city="Oslo"), "It rains."])

A server replaces only the provider, so that HTTP, parsing, time limits and failures are the real ones:

>>> from turncell.testing import fault, reply, serve
>>> with serve([fault(429, retry_after_s=2), reply("It rains.")]) as server:
...     server.base_url.startswith("http://127.0.0.1:")
True

`check_model` and `check_store` test a model or a store of your own against its contract. `no_cassette_left` is for a fixture
around every test: a cassette that a test forgets to stop fails that test, and no other.
"""

from __future__ import annotations

from turncell.adapters.cassette import no_cassette_left
from turncell.adapters.rules_model import RulesModel
from turncell.adapters.scripted_model import Call, ScriptedModel, call, say, stop, think
from turncell.testing_model import MODEL_CLAUSES, check_close, check_failure, check_model
from turncell.testing_server import ProviderServer, Script, fault, raw, reply, serve
from turncell.testing_store import STORE_CLAUSES, check_damage, check_store
from turncell.testing_wire import Reply

__all__ = [
    "MODEL_CLAUSES",
    "STORE_CLAUSES",
    "Call",
    "ProviderServer",
    "Reply",
    "RulesModel",
    "Script",
    "ScriptedModel",
    "call",
    "check_close",
    "check_damage",
    "check_failure",
    "check_model",
    "check_store",
    "fault",
    "no_cassette_left",
    "raw",
    "reply",
    "say",
    "serve",
    "stop",
    "think",
]
