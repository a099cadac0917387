"""Which tests run, and in which order.

What is marked `full` is left out unless TURNCELL_FULL=1: deselected and counted, never skipped. The browser comes last:
once started, Playwright keeps an event loop running on the main thread, where `asyncio.run` is then refused. Of its files
the longest comes first, so that what is left at the end is shared by all workers.
"""

import os
from collections import Counter

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("TURNCELL_FULL") != "1":
        full = [item for item in items if item.get_closest_marker("full")]
        if full:
            config.hook.pytest_deselected(items=full)
            left_out = set(full)
            items[:] = [item for item in items if item not in left_out]
    in_browser = Counter(item.path for item in items if "browser" in item.path.parts)
    items.sort(key=lambda item: (item.path in in_browser, -in_browser[item.path], item.path))
