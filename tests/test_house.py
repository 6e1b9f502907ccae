"""Door and wings: the rules of house.py on every moved folder, and that each rule can fail."""

import pytest

import house
from repository import FOLDERS, ROOT

MOVED = [name for name in FOLDERS if house.is_moved(ROOT / name)]
DOOR = '''"""Do the work.

    python main.py
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import settings

SEED = 0  # any whole number


def make_parser():
    return argparse.ArgumentParser()


def main(argv=None):
    args = make_parser().parse_args(argv)
    from runs.work import work

    return work(args)


if __name__ == "__main__":
    raise SystemExit(main())
'''


@pytest.fixture
def folder(tmp_path):
    """A folder that keeps every rule."""
    base = tmp_path / "pipe"
    for wing in house.WINGS:
        (base / wing).mkdir(parents=True)
        (base / wing / "__init__.py").write_text(f'"""The wing {wing}."""\n')
    (base / "settings.py").write_text("from common.files import FOLDER\n")
    (base / "common" / "files.py").write_text("FOLDER = 1\n")
    (base / "inputs" / "recording.py").write_text("import numpy\nfrom common import files\n")
    (base / "runs" / "work.py").write_text("import torch\nfrom inputs.recording import numpy\n")
    (base / "main.py").write_text(DOOR)
    return base


def test_a_folder_in_order_has_no_faults(folder):
    assert house.faults(folder) == []
    numbers = house.describe(folder)
    assert numbers["floors"] == 4  # main, runs.work, inputs.recording, common.files
    assert numbers["arrows"] == 5
    assert (numbers["late"], numbers["at the door"]) == (1, 2)


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("inputs/up.py", "from runs.work import work\n", "imports runs.work, which lies above"),
        ("common/up.py", "import settings\n", "imports settings, which lies above common"),
        ("runs/script.py", "def f():\n    import main\n", "imports the door script main"),
        ("other.py", DOOR + "import main\n", "imports the door script main"),
        ("runs/again.py", "from runs import again\n", "circle: runs.again"),
        ("runs/late.py", "def f():\n    import scipy\n", "imports scipy inside a function"),
        ("runs/late.py", "def f():\n    import runs.work\n", "imports runs.work inside a"),
        ("runs/late.py", "f = lambda: importlib.import_module('runs.work')\n", "inside a function"),
        ("runs/hidden.py", "if __name__ == '__main__':\n    pass\n", "a script inside a wing"),
        ("tools/more.py", "", "lies in no wing"),
        ("runs/__init__.py", "import torch\n", "holds more or less than a docstring"),
        ("demo.py", DOOR, "demo.py: bears the name of a wing"),
        ("helper.py", '"""Help."""\n', "no script, it has no __main__ part"),
        ("main.py", DOOR.replace("make_parser", "compute"), "compute belongs into a wing"),
        ("main.py", DOOR.replace("SEED", "seed"), "seed is no GLOBAL"),
        ("main.py", DOOR + "class Settings:\n    pass\n", "ClassDef at the door"),
        ("main.py", DOOR + "import numpy\n", "imports numpy at the door"),
        ("main.py", DOOR.replace("argv=None", "argv"), "main takes no argv=None"),
        ("main.py", DOOR.replace("sys.path.insert(0", "print(0"), "own module before sys.path"),
        ("settings.py", "import inputs.recording, matplotlib.figure\n", "main: loads matplotlib"),
        ("main.py", "import settings\n".join(["", DOOR]), "own module before sys.path"),
        ("main.py", DOOR.replace("    return work", "    1\n" * 40 + "    return work"), "has 45"),
    ],
)
def test_each_rule_finds_its_breach(folder, path, text, fault):
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text(text)
    assert [line for line in house.faults(folder) if fault in line], house.faults(folder)


def test_missing_wings_and_settings_are_found(folder):
    (folder / "analysis" / "__init__.py").unlink()
    (folder / "settings.py").unlink()
    found = house.faults(folder)
    assert "analysis/: has no __init__.py" in found
    assert "settings: neither settings.py nor settings/ is there" in found


def test_a_circle_of_three_is_found_and_is_one_floor(folder):
    for one, two in (("a", "b"), ("b", "c"), ("c", "a")):
        (folder / "runs" / f"{one}.py").write_text(f"def f():\n    from runs import {two}\n")
    modules = house.read_folder(folder)
    assert house.circles(modules) == [["runs.a", "runs.b", "runs.c"]]
    assert len(house.floors(modules)) == 4


def test_optional_packages_may_come_late(folder):
    (folder / "runs" / "log.py").write_text("def f():\n    import wandb, extra_one.part\n")
    assert any("extra_one" in line for line in house.faults(folder))
    (folder / "requirements-more.txt").write_text("# reason\nextra-one==1.0\n")
    assert house.faults(folder) == []


@pytest.mark.parametrize("name", MOVED)
def test_house_is_in_order(name):
    assert house.faults(ROOT / name) == []


def test_common_is_the_same_text_in_all_folders():
    texts = {
        name: {
            path.relative_to(ROOT / name / "common").as_posix(): path.read_bytes()
            for path in (ROOT / name / "common").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        for name in FOLDERS
    }
    first = texts[FOLDERS[0]]
    assert {"__init__.py", "device.py", "figures.py", "files.py", "report.py"} <= set(first)
    assert [name for name in FOLDERS if texts[name] != first] == []
