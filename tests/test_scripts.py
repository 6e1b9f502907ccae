"""Every script answers --help without a framework, and every README names flags that exist."""

import ast
import re
import subprocess
from functools import cache

import pytest

from repository import FOLDERS, ROOT, tracked, tree

FRAMEWORKS = ("torch", "tensorflow", "keras", "innvestigate")
ASK_FOR_HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as leave:
    assert leave.code in (None, 0), leave.code
print("loaded:", *[name for name in {frameworks} if name in sys.modules])
"""


def is_script(path):
    """Tell whether a source file has an ``if __name__ == "__main__"`` part."""
    return any(
        getattr(node, "test", None) is not None and "__main__" in ast.unparse(node.test)
        for node in tree(path).body
    )


SCRIPTS = [
    path
    for folder in FOLDERS
    for path in tracked(f"{folder}/*.py")
    if path.parent == ROOT / folder and is_script(path)
]


@cache
def help_of(path):
    """Return what ``path --help`` prints in the environment of its folder."""
    python = ROOT / ".venvs" / path.parent.name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment: python3 run.py env {path.parent.name}")
    done = subprocess.run(
        [python, "-c", ASK_FOR_HELP.format(frameworks=FRAMEWORKS), path.name],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_help_needs_no_framework(path):
    text = help_of(path)
    assert text.rstrip().endswith("loaded:"), text.splitlines()[-1]
    assert "--help" in text


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
