"""Every script answers --help without a framework, and every README names flags that exist."""

import json
import re
import subprocess
from functools import cache

import pytest

from house import has_main_part, syntax_tree
from repository import FOLDERS, ROOT, tracked

FRAMEWORKS = ("torch", "tensorflow", "keras", "innvestigate")
# Asks one script after the other for --help, up to the first that loads a framework. They share an
# interpreter: a library costs its time once a folder. A script finds no module of another one, and
# under -P (PYTHONSAFEPATH) none of its own either, unless it puts its folder on the path itself.
ASK_FOR_HELP = """
import contextlib, io, json, os, runpy, sys, traceback
found, here, path = {{}}, os.getcwd(), list(sys.path)
for script in sys.argv[1:]:
    sys.path[:] = path
    sys.argv, code, text = [script, "--help"], 0, io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as leave:
            code = leave.code or 0
        except BaseException:
            code = "an exception"
            traceback.print_exc()
    loaded = [name for name in {frameworks} if name in sys.modules]
    found[script] = [code, loaded, text.getvalue()]
    if loaded:
        break
    for name, module in list(sys.modules.items()):
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        if any(str(place).startswith(here) for place in places):
            del sys.modules[name]
print(json.dumps(found))
"""


SCRIPTS = [
    path
    for folder in FOLDERS
    for path in tracked(f"{folder}/*.py")
    if path.parent == ROOT / folder and has_main_part(syntax_tree(path))
]


@cache
def helps_of(folder):
    """Return {script: (exit code, frameworks loaded, text)} of ``--help`` of all its scripts."""
    python = ROOT / ".venvs" / folder / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment: python3 run.py env {folder}")
    found = {}
    while left := [p.name for p in SCRIPTS if p.parent.name == folder and p.name not in found]:
        done = subprocess.run(
            [python, "-P", "-c", ASK_FOR_HELP.format(frameworks=FRAMEWORKS), *left],
            cwd=ROOT / folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found |= json.loads(done.stdout)
    return found


def help_of(path):
    """Return what ``path --help`` prints in the environment of its folder."""
    code, _, text = helps_of(path.parent.name)[path.name]
    assert code == 0, text
    return text


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_help_needs_no_framework(path):
    assert "--help" in help_of(path)
    assert helps_of(path.parent.name)[path.name][1] == []


def readme_commands():
    """Yield (README, script, flags) of each ``python X.py`` line in the README files' blocks."""
    for readme in tracked("*README.md"):
        for block in re.findall(
            r"```(?:bash|sh|console)?\n(.*?)```", readme.read_text(), flags=re.S
        ):
            folder = readme.parent
            for line in block.replace("\\\n", " ").splitlines():
                if entered := re.match(r"\s*cd (\w+)", line):
                    folder = ROOT / entered.group(1)
                called = re.search(r"python3? (?!-m)([\w/]+\.py)(.*)", line.split(" #")[0])
                if called:
                    flags = re.findall(r"(?<!\S)--[A-Za-z][\w-]*", called.group(2))
                    yield readme, folder / called.group(1), flags


@pytest.mark.parametrize(
    ("readme", "script", "flags"),
    list(readme_commands()),
    ids=lambda value: getattr(value, "name", None) or " ".join(value),
)
def test_readme_commands_exist(readme, script, flags):
    assert script.is_file(), f"{readme}: {script} does not exist"
    if script.parent.name in FOLDERS:
        text = help_of(script)
        assert [flag for flag in flags if not re.search(rf"{flag}\b", text)] == []
