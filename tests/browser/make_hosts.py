"""Makes `.hosts`: marimo, in an environment of their own on top of this interpreter's (`python make_hosts.py`).

marimo alone has 130 MB, which nobody needs who works on something else; what it shares with the tests is not installed
twice, because this environment's packages stand behind their own.
"""

import subprocess
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ROOT / ".hosts"
NAMES = ("marimo==0.25.2",)


def make() -> Path:
    """The environment's directory of programs."""
    venv.create(HOSTS, with_pip=True)
    programs = HOSTS / "bin"
    own = subprocess.run(
        [programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (Path(own) / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [
        programs / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        ROOT / "constraints.txt",
    ]
    subprocess.run([*pip, *NAMES], check=True)
    return programs


if __name__ == "__main__":
    print(make())
