"""What a run on a file imports, once for all forks (`tests/forks.py`); no thread may begin here."""

import filelock  # noqa: F401
import psutil  # noqa: F401

from turncell import Agent, Session, testing  # noqa: F401
from turncell.adapters.sql_store import SQLStore
from turncell.core import codec
from turncell.runtime import model_call, review, tool_call  # noqa: F401

codec.event_adapter()
SQLStore.sqlite(":memory:").close()
