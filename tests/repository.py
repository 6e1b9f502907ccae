"""What the root tests look at: folders, sources, requirements and README files of this checkout."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from house import syntax_tree

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(p.parent.name for p in ROOT.glob("*/main.py"))

# Import name -> name on the package index, where they differ.
DISTRIBUTIONS = {
    "cc3d": "connected-components-3d",
    "cv2": "opencv-python-headless",
    "dicomanonymizer": "dicom-anonymizer",
    "hydra": "hydra-core",
    "focal_loss": "focal-loss",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


@cache
def tracked(pattern):
    """Return the files that git tracks, or would track, and that match ``pattern``, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [
        ROOT / line for line in sorted(set(listed.stdout.splitlines())) if (ROOT / line).exists()
    ]


@cache
def nodes(path):
    """Return (imports, calls) of a source file, at any depth: one walk serves all tests."""
    found = [], []
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found[0].append(node)
        elif isinstance(node, ast.Call):
            found[1].append(node)
    return found


@cache
def imported(path):
    """Return the top-level names that a source file imports, at any depth."""
    names = set()
    for node in nodes(path)[0]:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def third_party(paths):
    """Return the index names of the packages that ``paths`` import: neither Python's nor own."""
    own = {path.stem for path in paths} | {path.parent.name for path in paths}
    names = {name for path in paths for name in imported(path)} - own - set(sys.stdlib_module_names)
    found = (DISTRIBUTIONS.get(name, name) for name in names)
    return {name.lower().replace("_", "-") for name in found}


def requirements(path):
    """Return {package: version specifier} of a requirements file and of those it names."""
    found = {}
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("-r"):
            found |= requirements(path.parent / line[2:].strip())
        elif line:
            name, version = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?(.*)", line).groups()
            found[name.lower().replace("_", "-")] = version.strip()
    return found


def is_running(pid):
    """Tell whether process ``pid`` runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
