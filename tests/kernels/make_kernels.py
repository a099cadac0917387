"""Writes a kernel spec for each version of ipykernel given: `python make_kernels.py 7.4.0 6.31.0`.

All kernels run in this interpreter's environment. A version other than the installed one lies in a directory
of its own, `.kernels/ipykernel-VERSION`, that PYTHONPATH puts in front; so the tests see how kernels differ
and nothing else. Start them with JUPYTER_PATH=.kernels/share/jupyter.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / ".kernels"


def overlay(version: str) -> Path:
    """The directory with that ipykernel alone; its dependencies come from the environment."""
    target = KERNELS / f"ipykernel-{version}"
    if not (target / f"ipykernel-{version}.dist-info").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--upgrade", "--target", str(target), f"ipykernel=={version}"], check=True)
    return target


def write_spec(version: str) -> Path:
    env = {} if version == installed_version("ipykernel") else {"PYTHONPATH": str(overlay(version))}
    argv = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {
        "argv": argv,
        "display_name": f"Python (ipykernel {version})",
        "language": "python",
        "env": env,
    }
    path = KERNELS / "share/jupyter/kernels" / f"py-{version}" / "kernel.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f"kernel.json.{os.getpid()}")  # others may be starting a kernel of this spec just now
    whole.write_text(json.dumps(spec, indent=1) + "\n")
    whole.replace(path)
    return path


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(write_spec(each))
