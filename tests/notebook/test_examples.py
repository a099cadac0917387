"""The example tools."""

from __future__ import annotations

import pytest

from turncell import Agent
from turncell.examples import SAMPLE, host_info, weather

pytestmark = pytest.mark.feature("B15")


def test_the_weather_says_that_it_is_made_up() -> None:
    assert weather("oslo") == {"city": "Oslo", "temp_c": 3.5, "sky": "rain", "source": SAMPLE}
    with pytest.raises(LookupError, match="there is no example data for 'Atlantis'"):
        weather("Atlantis")


def test_the_host_has_no_names_and_no_addresses() -> None:
    assert set(host_info()) == {"system", "release", "machine", "python", "processors", "disk_free_gb"}


def test_the_embedded_model_calls_them() -> None:
    run = Agent("embedded", tools=[weather, host_info]).run_sync("What is the weather in Rome?")
    assert [(done.name, done.status) for done in run.state.calls] == [("weather", "ok")]
    assert "19" in run.text and "made-up" in run.text
