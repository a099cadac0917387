"""`python -m bench [--quick] [case ...]`: a Markdown report on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

from bench.ways import BARE, BARE_GEMINI, WHOLE

CASES = ("deltas", "steps", "many", "imports", "journal", "frames", "memory", "notebook", "page", "screen", "peers")
LITELLM = (BARE, WHOLE, BARE_GEMINI)


@dataclass(frozen=True)
class Bench:
    """What a case gets: where the server is, how much to do, and processes to do it in."""

    base: str
    is_quick: bool
    environment: dict[str, str]

    def child(self, case: str, function: str, **arguments: Any) -> Any:
        """The result of `bench.cases.<case>.<function>(**arguments)` in a process of its own."""
        print(f"  {case}.{function} {arguments}", file=sys.stderr, flush=True)
        command = [sys.executable, "-W", "ignore", "-m", "bench.child", case, function, json.dumps(arguments)]
        with tempfile.TemporaryDirectory() as folder:
            environment = self.environment | {"TURNCELL_STORE": f"{folder}/history.sqlite"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    def ways(self, case: str, arguments: dict[str, dict[str, Any]], rounds: int = 3) -> dict[str, Any]:
        """`measure` for each way, in turns: a machine that slows down between two of them would look like a ratio.

        What goes through LiteLLM as a whole takes minutes, and is measured once.
        """
        rounds = 1 if self.is_quick else rounds
        found: dict[str, list[dict[str, float]]] = {way: [] for way in arguments}
        for number in range(rounds):
            for way, values in arguments.items():
                if number and way in LITELLM:
                    continue
                found[way].append(self.child(case, "measure", base=self.base, way=way, **values))
        return {way: {name: median(one[name] for one in all_) for name in all_[0]} for way, all_ in found.items()}


@contextmanager
def server() -> Iterator[str]:
    command = [sys.executable, "-m", "bench.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What turncell costs, side by side.")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"which ones: {', '.join(CASES)} (all)")
    parser.add_argument("--quick", action="store_true", help="a fraction of the work: to see that it runs")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    # Nobody's network, prices or history has a part in this.
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    # Installed packages come with their bytecode: what Python takes to compile them is no part of any figure.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    print("# Speed\n")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, LiteLLM {version('litellm')}. CPU is user and")
    print("system time of the measuring process, medians; only the ratios travel between machines.")
    targets = []
    with server() as base:
        bench = Bench(base, options.quick, environment)
        for name in options.cases or CASES:
            case = importlib.import_module(f"bench.cases.{name}")
            print(f"\n## {(case.__doc__ or name).splitlines()[0].rstrip('.')}\n", flush=True)
            found = case.report(bench)
            print("\n" + "\n".join(f"- {target}" for target in found), flush=True)
            targets += found
    missed = [target for target in targets if not target.is_met]
    print(f"\n{len(targets) - len(missed)} of {len(targets)} targets met.")


if __name__ == "__main__":
    main()
