"""Tools to try an agent with: the weather of a city, and the computer that this runs on.

>>> weather("Oslo")["source"]
'made-up example data, not a forecast'
"""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any

from turncell.runtime.tools import tool

SAMPLE = "made-up example data, not a forecast"
_READINGS = {
    "Bergen": (7.0, "rain"), "Berlin": (11.5, "clouds"), "Cairo": (28.5, "sun"), "London": (10.0, "drizzle"),
    "New York": (14.0, "wind"), "Oslo": (3.5, "rain"), "Paris": (13.0, "clouds"), "Rome": (19.0, "sun"),
    "Sydney": (23.0, "sun"), "Tokyo": (16.5, "clouds"),
}  # fmt: skip


@tool(effect="read", trusted=True)
def weather(city: str) -> dict[str, Any]:
    """The weather in a city. Example data, always the same: it works without a network and says so in each answer.

    Args:
        city: The name of a city, such as Oslo.
    """
    known = {name.casefold(): name for name in _READINGS}
    name = known.get(city.strip().casefold())
    if name is None:
        raise LookupError(f"there is no example data for {city!r}; there is for {', '.join(_READINGS)}")
    temp_c, sky = _READINGS[name]
    return {"city": name, "temp_c": temp_c, "sky": sky, "source": SAMPLE}


@tool(effect="read", trusted=True)
def host_info() -> dict[str, Any]:
    """The computer that this notebook runs on: system, Python, processors, free disk. No names, no addresses."""
    disk = shutil.disk_usage(os.curdir)
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "disk_free_gb": round(disk.free / 1e9, 1),
    }
