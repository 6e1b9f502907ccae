"""Rules that hold for the whole repository, checked on its files."""

import re
import subprocess
import sys

import pytest
import yaml

from house import dotted
from repository import FOLDERS, ROOT, imported, nodes, requirements, third_party, tracked

SOURCES = tracked("*.py")
# File -> reason for which it may be longer than 500 lines.
LONG_FILES = {}
# (File, call) -> reason for which it may stand there though it reads a pickle.
PICKLES = {("cluster.py", "pickle.loads"): "a worker unpacks a job as dask itself unpacks it"}
# Requirement -> reason for which no source file imports it.
NOT_IMPORTED = {
    "imagecodecs": "tifffile loads it to decode compressed pages",
    "imageio-ffmpeg": "imageio loads it to write MP4",
    "pylibjpeg": "pydicom loads it to decode JPEG",
    "pylibjpeg-libjpeg": "pydicom loads it to decode JPEG",
    "pylibjpeg-openjpeg": "pydicom loads it to decode JPEG 2000",
    "tensorboard": "PyTorch and Keras load it for their TensorBoard writers",
}


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", FOLDERS)
def test_environment_recipe_holds_no_version_but_python(folder):
    recipe = yaml.safe_load((ROOT / "environments" / f"{folder}.yml").read_text())
    pip = [entry for entry in recipe["dependencies"] if isinstance(entry, dict)]
    conda = [entry for entry in recipe["dependencies"] if isinstance(entry, str)]
    # torch's build for Linux is one for CUDA; TensorFlow gets NVIDIA's libraries by an extra
    gpu = "-gpu" if (ROOT / folder / "requirements-gpu.txt").exists() else ""
    files = [f"-r ../{folder}/requirements{gpu}.txt", f"-c ../{folder}/requirements.lock"]
    assert recipe["name"] == folder
    assert pip == [{"pip": files}]
    assert sorted(conda) == ["pip", "python=3.11"]


def test_every_recipe_names_existing_files():
    for recipe in tracked("environments/*.yml"):
        for flag in ("-r", "-c"):
            (line,) = re.findall(rf" {flag} (\S+)", recipe.read_text())
            assert (recipe.parent / line).is_file(), f"{recipe.name}: {line}"


def test_gpu_requirements_add_nothing_but_the_extra():
    for path in tracked("*requirements-gpu.txt"):
        assert "tensorflow[and-cuda]" in path.read_text()
        assert requirements(path) == requirements(path.with_name("requirements.txt"))


@pytest.mark.parametrize("path", tracked("*requirements*.txt"), ids=relative)
def test_requirements_are_exact(path):
    loose = {
        name: v for name, v in requirements(path).items() if not re.fullmatch(r"==[\w.!+]+", v)
    }
    assert not loose


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_and_requirements_agree(folder):
    base = ROOT / folder
    own = [path for path in SOURCES if base in path.parents]
    scripts = [path for path in own if base / "tests" not in path.parents]
    optional = {}
    for path in base.glob("requirements-*.txt"):
        optional |= requirements(path)
    needed = requirements(base / "requirements.txt")
    tests = requirements(base / "tests" / "requirements.txt")
    modules = {path.stem for path in own}

    def packages(paths):
        # The same files in all folders: device.py asks whichever framework the folder has, and
        # cluster.py serves the four whose stages work file by file.
        paths = [path for path in paths if path.name not in ("device.py", "cluster.py")]
        return third_party(paths) - {name.lower() for name in modules}

    assert packages(scripts) <= set(needed) | set(optional)
    assert packages(own) <= set(needed) | set(optional) | set(tests)
    assert set(needed) - packages(scripts) - set(NOT_IMPORTED) == set()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_folder_imports_another(path):
    here = path.relative_to(ROOT).parts[0]
    assert not imported(path) & (set(FOLDERS) - {here})


def forbidden_calls(path):
    """Yield the calls of ``path`` that run foreign code, or read or write a pickle.

    A subclass of pickle.Unpickler that admits named types only is not among them. Tests may write
    a pickle: the readers of published files need one to read or to refuse.
    """
    pickle_calls = {"load", "loads", "Unpickler"}
    if "tests" not in path.parts:
        pickle_calls |= {"dump", "dumps", "Pickler"}
    for node in nodes(path)[1]:
        name = dotted(node.func)
        module, _, function = name.rpartition(".")
        pickled = module in {"pickle", "cPickle", "dill", "cloudpickle", "joblib"}
        if name in {"exec", "eval", "yaml.load", "yaml.unsafe_load"} or (
            pickled and function in pickle_calls and (path.name, name) not in PICKLES
        ):
            yield f"{node.lineno}: {name}"
        for keyword in node.keywords:
            flag = (keyword.arg, getattr(keyword.value, "value", None))
            if flag in {("shell", True), ("allow_pickle", True), ("weights_only", False)}:
                yield f"{node.lineno}: {keyword.arg}={flag[1]}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_forbidden_call(path):
    assert list(forbidden_calls(path)) == []


def test_forbidden_calls_are_found(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import pickle, torch, subprocess, numpy as np\n"
        "pickle.load(f)\neval('1')\ntorch.load(f, weights_only=False)\n"
        "subprocess.run('x', shell=True)\nnp.load(f, allow_pickle=True)\nmodel.eval()\n"
    )
    assert len(list(forbidden_calls(bad))) == 5


PAGE = (  # of every folder, so that who knows one finds the way in the others
    "Install and demo",
    "What you get",
    "Your own data",
    "How to read the report",
    "Coming from the published project",
    "Limits",
    "Trained weights",
    "Troubleshooting",
    "Citation and licences",
)


def anchor(heading):
    """Return what a link writes after # for a heading: lower case, no signs, hyphens."""
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", tracked("*.md"), ids=relative)
def test_links_of_pages_resolve(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)]+)\)", text)
    for link in (re.sub(r"\s", "", link) for link in links if not re.match(r"[a-z]+:", link)):
        name, _, place = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.M) if place else ()
        assert not place or place in map(anchor, headings), link


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pages_of_the_folders_have_one_form(folder):
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.M) == list(PAGE)
    before = text.split("## What you get")[0]
    commands = [
        line
        for block in re.findall(r"```bash\n(.*?)```", before, re.S)
        for line in block.splitlines()
    ]
    assert 2 <= len(commands) <= 3
    assert "where it is now" in text
    assert len(text.splitlines()) <= 130  # one page; the rest is in DETAILS.md
    assert text.split("![")[0].count("\n") <= 3  # the picture comes first


@pytest.mark.parametrize("folder", [*FOLDERS, "tests"])
def test_pytest_knows_the_marks_that_run_py_leaves_out(folder):
    # pytest refuses an expression -m with a mark that its configuration does not name
    known = (ROOT / folder / "pytest.ini").read_text()
    for mark in ("slow", "data"):
        assert re.search(rf"^ +{mark}: ", known, re.M), mark


def test_files_stay_under_500_lines():
    long = {relative(path) for path in SOURCES if len(path.read_text().splitlines()) > 500}
    assert long == set(LONG_FILES)


def test_nothing_large_is_tracked():
    pictures = {".png", ".gif"}
    large = [p for p in tracked("*") if p.stat().st_size > 1_000_000 and p.suffix not in pictures]
    assert [relative(path) for path in large] == []


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
