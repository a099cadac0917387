"""Makes `.hosts`: marimo and Voilà, each in an environment of its own (`python make_hosts.py`).

They are large, and nobody needs them who works on something else. What marimo shares with the tests is not installed twice,
because this environment's packages stand behind its own. Voilà shares nothing: with these templates on its path it never
begins to run a cell.
"""

import subprocess
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ROOT / ".hosts"


def make(name: str, packages: list[str], *, shares: bool) -> None:
    venv.create(HOSTS / name, with_pip=True)
    python = HOSTS / name / "bin" / "python"
    if shares:
        own = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        (Path(own) / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, *packages], check=True)


if __name__ == "__main__":
    make("marimo", ["marimo==0.25.2"], shares=True)
    make("voila", ["voila==0.5.13", "ipywidgets", "anywidget"], shares=False)
