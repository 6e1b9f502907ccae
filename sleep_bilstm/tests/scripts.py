"""Start the scripts of this folder as a user does."""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]


def run_scripts(calls, cwd):
    """Run scripts as a user does, each as ``__main__``, one after another in one new interpreter.

    Args:
        calls: list of (script, flags).
        cwd: working directory.

    Returns:
        list of what each printed.
    """
    code = (
        "import io, json, runpy, sys, contextlib\n"
        "shown = []\n"
        "for name, *flags in json.loads(sys.argv[1]):\n"
        "    sys.argv = [name, *flags]\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        try:\n"
        "            runpy.run_path(name, run_name='__main__')\n"
        "        except SystemExit as stop:\n"
        "            assert not stop.code, (name, stop.code)\n"
        "    shown.append(out.getvalue())\n"
        "print(json.dumps(shown))\n"
    )
    calls = [[str(FOLDER / name), *map(str, flags)] for name, flags in calls]
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(FOLDER)}
    command = [sys.executable, "-c", code, json.dumps(calls)]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
