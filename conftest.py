"""Which tests run, and in which order.

What is marked `full` is left out unless TURNCELL_FULL=1: deselected and counted, never skipped. The browser comes last:
once started, Playwright keeps an event loop running on the main thread, where `asyncio.run` is then refused.
"""

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "browser" in item.path.parts)
    if os.environ.get("TURNCELL_FULL") == "1":
        return
    full = [item for item in items if item.get_closest_marker("full")]
    if full:
        config.hook.pytest_deselected(items=full)
        items[:] = [item for item in items if item not in full]
