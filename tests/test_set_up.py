"""How run.py builds environments: with uv or pip, from which sources, and what it says when not."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import uv_install
from repository import ROOT

UV = shutil.which("uv", path=os.pathsep.join([*map(str, ROOT.glob(".venvs/uv-*/bin")), os.defpath]))


def write_wheel(folder, version, name="tiny", needs=""):
    """Write a wheel of ``name``, whose only module knows its version."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in {**files, f"{about}/RECORD": record}.items():
            wheel.writestr(file, text)


# Each call of run.py asks pip for its settings, which takes half a second of its start. Where only
# variables set any, this module in the house's folder answers for it, as its own test shows.
LISTING = """import os
for name, value in os.environ.items():
    if name.startswith("PIP_") and value:
        print(f":env:.{name[4:].lower().replace('_', '-')}={value!r}")
"""


@pytest.fixture
def house(bare_house):
    """A repository with run.py and the folder ``left``, where variables alone set what pip does."""
    (bare_house / "pip.py").write_text(LISTING)
    return bare_house


@pytest.fixture
def bare_house(tmp_path):
    """A repository with run.py and the folder ``left``, whose only requirement is ``tiny``."""
    root = tmp_path / "house"
    (root / "left").mkdir(parents=True)
    (root / "tests").mkdir()
    for path in ROOT.glob("*.py"):
        shutil.copy(path, root)
    (root / "tests" / "requirements.txt").write_text("# nothing\n")
    (root / "left" / "requirements.txt").write_text("tiny\n")
    (root / "left" / "main.py").write_text("")
    for version in ("1.0", "2.0", "3.0"):
        write_wheel(tmp_path / "wheels", version)
    return root


def call(house, *arguments, path=None, python=sys.executable, **variables):
    """Run run.py in ``house`` with pip told ``variables`` alone; return the finished process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    kept |= {"PIP_CONFIG_FILE": os.devnull, "UV_CACHE_DIR": str(house.parent / "cache")}
    kept |= {"PIP_RETRIES": "1", "UV_PYTHON_DOWNLOADS": "never"}
    search = path if path is not None else os.pathsep.join([str(Path(UV).parent), kept["PATH"]])
    return subprocess.run(
        [python, "run.py", *arguments],
        cwd=house,
        env=kept | {"PATH": search} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def version_in(house, name="tiny"):
    """Return which version of a package the environment of ``left`` holds, "" without it."""
    found = (house / ".venvs" / "left" / "lib").glob(f"python*/site-packages/{name}.py")
    return "".join(re.findall(r"'(.+)'", "".join(path.read_text() for path in found)))


def offline_settings(house):
    """Return variables that let pip know no index but a folder of wheels, and a constraint."""
    constraint = house.parent / "constraint.txt"
    constraint.write_text("tiny<3\n")
    wheels = house.parent / "wheels"
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": f"{house.parent / 'missing'}\n{wheels}",
        "PIP_CONSTRAINT": str(constraint),
    }


needs_uv = pytest.mark.skipif(not UV, reason="no uv: python3 run.py env root installs it")


def test_the_stand_in_says_what_pip_says(house, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name, value in offline_settings(house).items():
        monkeypatch.setenv(name, value)
    ask = [sys.executable, "-m", "pip", "config", "list"]
    told = [
        sorted(subprocess.check_output(ask, cwd=folder, text=True).splitlines())
        for folder in (house, house.parent)
    ]
    assert told[0] == told[1] != []


@needs_uv
def test_uv_builds_from_the_sources_that_pip_is_told(bare_house):
    done = call(bare_house, "env", "left", **offline_settings(bare_house))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pip builds" not in done.stdout
    assert version_in(bare_house) == "2.0"  # the constraint holds back 3.0
    (installed,) = (bare_house / ".venvs" / "left" / "lib").glob("python*/site-packages/tiny.py")
    assert installed.stat().st_nlink > 1  # a hard link into the cache


@needs_uv
def test_lock_constrains_beside_the_user(house):
    (house / "left" / "requirements.lock").write_text("tiny<2\n")
    settings = offline_settings(house)
    assert call(house, "env", "left", **settings).returncode == 0
    assert version_in(house) == "1.0"
    (house / "left" / "requirements.lock").unlink()
    assert "building left" in call(house, "env", "left", **settings).stdout
    assert version_in(house) == "2.0"


@needs_uv
def test_settings_from_a_file_of_pip(bare_house):
    settings = offline_settings(bare_house)
    wheels = bare_house.parent / "wheels"
    write_wheel(bare_house.parent / "more", "2.5")
    configuration = bare_house.parent / "pip.conf"
    configuration.write_text(
        "[global]\nfind-links = /nowhere\n"
        f"[install]\nno-index = yes\nfind-links =\n    {wheels}\n    {bare_house.parent / 'more'}\n"
        f"constraint = {settings['PIP_CONSTRAINT']}\n"
    )
    done = call(bare_house, "env", "left", PIP_CONFIG_FILE=str(configuration))
    assert done.returncode == 0, done.stdout + done.stderr
    assert version_in(bare_house) == "2.5"


@needs_uv
def test_variables_of_uv_win(house):
    other = house.parent / "other.txt"
    other.write_text("tiny<2\n")
    settings = offline_settings(house) | {"UV_CONSTRAINT": str(other)}
    assert call(house, "env", "left", **settings).returncode == 0
    assert version_in(house) == "1.0"


@needs_uv
def test_local_mirror_is_asked(bare_house):
    simple = bare_house.parent / "simple"
    for name in ("left", "tiny"):
        (simple / name).mkdir(parents=True)
    shutil.copy(bare_house.parent / "wheels" / "tiny-2.0-py3-none-any.whl", simple / "tiny")
    (simple / "tiny" / "index.html").write_text(
        '<a href="tiny-2.0-py3-none-any.whl">tiny-2.0-py3-none-any.whl</a>'
    )
    done = call(bare_house, "env", "left", PIP_INDEX_URL=simple.as_uri())
    assert done.returncode == 0, done.stdout + done.stderr
    assert version_in(bare_house) == "2.0"


def test_pip_builds_where_uv_cannot_be_had(bare_house):
    done = call(bare_house, "env", "left", path="/usr/bin:/bin", **offline_settings(bare_house))
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if "pip builds" in line]
    assert len(said) == 1
    assert "uv cannot be had" in said[0]
    assert version_in(bare_house) == "2.0"


@needs_uv
def test_finished_environment_needs_its_python(house):
    settings = offline_settings(house)
    assert call(house, "env", "left", **settings).returncode == 0
    python = house / ".venvs" / "left" / "bin" / "python"
    python.unlink()
    python.symlink_to(house / "removed" / "python3.11")
    assert "building left" in call(house, "env", "left", **settings).stdout
    assert version_in(house) == "2.0"


def other_python(version):
    """Return the path of an installed Python of ``version``, or skip."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{version}", path=os.defpath)]
    found += map(str, home.glob(f"versions/{version}.*/bin/python"))
    if not any(found):
        pytest.skip(f"no Python {version} installed")
    return next(filter(None, found))


SUMMARY = """
import json, pathlib
run = pathlib.Path("../results/left/demo")
run.mkdir(parents=True)
score = {"name": "truth found", "value": 0.9, "target": ">= 0.8", "passed": True}
summary = {"title": "Left", "seconds": 1.5, "planted_truth": score, "scores": [score]}
(run / "summary.json").write_text(json.dumps(summary))
"""


@needs_uv
@pytest.mark.parametrize(
    ("version", "built"), [("3.9", "3.11"), ("3.12", "3.12"), ("3.13", "3.13")]
)
def test_other_pythons(house, version, built):
    (house / "left" / "main.py").write_text(SUMMARY)
    done = call(house, "demo", python=other_python(version), **offline_settings(house))
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if "uv takes Python 3.11" in line]
    assert len(said) == (version != built)
    assert (house / ".venvs" / "left" / "lib" / f"python{built}").is_dir()
    assert version_in(house) == "2.0"
    assert "<td>truth found</td><td>0.9" in (house / "results" / "index.html").read_text()


def change(path, before, after):
    """Write ``after`` in place of ``before`` in a file that holds it."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def fault(done):
    """Return the one line that a command without success wrote about it."""
    assert done.returncode, done.stdout
    assert "Traceback" not in done.stderr
    told = done.stderr.splitlines() + [x for x in done.stdout.splitlines() if " failed: " in x]
    assert len(told) == 1, done.stdout + done.stderr
    return told[0]


PYTHONS = "PYTHONS = ((3, 11), (3, 12), (3, 13))"


@needs_uv
def test_python_that_is_nowhere(house):
    change(house / "venvs.py", PYTHONS, "PYTHONS = ((3, 98), (3, 99))")
    said = fault(call(house, "env", "left", **offline_settings(house)))
    assert said.startswith("building left failed: no Python 3.98 can be had: ")


def test_wrong_python_without_uv(bare_house):
    change(bare_house / "venvs.py", PYTHONS, "PYTHONS = ((3, 98), (3, 99))")
    said = fault(
        call(bare_house, "env", "left", path="/usr/bin:/bin", **offline_settings(bare_house))
    )
    assert "3.98 to 3.99 is needed, found Python 3." in said
    assert "call python3.98 run.py" in said


@needs_uv
def test_newer_python_is_told_what_is_missing(house):
    change(house / "venvs.py", PYTHONS, "PYTHONS = ((3, 8), (3, 9))")
    done = call(house, "env", "left", **offline_settings(house))
    assert "has no build of TensorFlow yet: uv takes Python 3.8" in done.stdout


@needs_uv
def test_too_little_disk(house):
    change(house / "venvs.py", '("uv", "cpu"): 1', '("uv", "cpu"): 10**9')
    said = fault(call(house, "env", "left", **offline_settings(house)))
    assert ": 1000000000 GB free are needed for left, found" in said


def test_disk_that_fills_up(house):
    programs = house.parent / "programs"
    programs.mkdir()
    (programs / "uv").write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo uv 99.0.0 && exit 0\n[ $1 = venv ] && exit 0\n"
        "echo error: Failed to install: tiny-2.0-py3-none-any.whl >&2\n"
        "echo '  cause: failed to copy file: No space left on device (os error 28)' >&2\nexit 2\n"
    )
    (programs / "uv").chmod(0o755)
    said = fault(call(house, "env", "left", path=f"{programs}:/usr/bin:/bin"))
    assert said == (
        "building left failed: the disk is full: free some space, or point UV_CACHE_DIR to a "
        "disk that has it"
    )


@needs_uv
def test_no_network(house):
    said = fault(call(house, "env", "left", PIP_INDEX_URL="http://127.0.0.1:9/simple"))
    assert said.startswith("building left failed: no answer from http://127.0.0.1:9/simple/tiny")
    assert "check the network" in said


@pytest.mark.parametrize(
    ("printed", "start"),
    [
        (
            "WARNING: Retrying (Retry(total=0, connect=None, read=None)) after connection broken by"
            " 'NewConnectionError(Connection refused)': /simple/tiny/\n"
            "ERROR: Could not find a version that satisfies the requirement tiny (from versions:"
            " none)\nERROR: No matching distribution found for tiny\n",
            "no answer from the package index: check the network",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on"
            " device\n",
            "the disk is full",
        ),
        (
            "ERROR: Cannot install tiny==2.0 because these package versions have conflicting"
            " dependencies.\nERROR: ResolutionImpossible: for help visit the page\n",
            "ResolutionImpossible",
        ),
        ("\n", "no message"),
    ],
    ids=["network", "disk", "conflict", "silent"],
)
def test_complaints_of_pip_are_one_line(printed, start):
    said = uv_install.explain_text(printed)
    assert said.startswith(start)
    assert "\n" not in said


@pytest.mark.parametrize("path", [pytest.param(None, marks=needs_uv, id="uv"), "/usr/bin:/bin"])
def test_python_without_its_venv_module(house, path):
    # as Debian ships it: no ensurepip; and no pip either
    (house / "sitecustomize.py").write_text(
        "import sys\nsys.modules['ensurepip'] = sys.modules['pip'] = None\n"
    )
    settings = offline_settings(house) | {"PYTHONPATH": str(house)}
    done = call(house, "env", "left", path=path, **settings)
    if path is None:  # uv needs none of it; pip's variables count without pip
        assert done.returncode == 0, done.stdout + done.stderr
        assert version_in(house) == "2.0"
    else:
        assert "venv module is incomplete: apt install python3." in fault(done)


def test_clean_waits_for_nobody(house):
    (house / ".venvs").mkdir()
    with open(house / ".venvs" / "in_use", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert "another run.py uses .venvs" in fault(call(house, "clean"))
    assert call(house, "clean").returncode == 0
    assert not (house / ".venvs").exists()


@needs_uv
def test_device_is_decided_once(house):
    left, wheels = house / "left", house.parent / "wheels"
    (left / "requirements.txt").write_text("torch==1.0\n")
    (left / "requirements-gpu.txt").write_text("nvidia_tiny\n-r requirements.txt\n")
    for version in ("1.0", "1.0+cpu"):
        write_wheel(wheels, version, name="torch")
    write_wheel(wheels, "1.0", name="nvidia_tiny")
    settings = offline_settings(house)

    def env(*flags, **more):
        done = call(house, "env", "left", *flags, **settings, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, version_in(house, "torch"), version_in(house, "nvidia_tiny")

    said, *found = env("--device", "cpu")
    assert "environments for cpu (asked for with --device)" in said
    assert found == ["1.0+cpu", ""]
    said, *found = env("--device", "cuda")  # 1.0+cpu satisfies ==1.0 and is the newer one
    assert found == ["1.0", "1.0"]
    said, *found = env()
    assert said.split() == ["environment", "state", "left", "ready"]
    assert found == ["1.0", "1.0"]
    assert "building left" in env("--device", "cpu")[0]
    programs = house.parent / "driver"
    programs.mkdir()
    (programs / "nvidia-smi").touch(mode=0o755)
    search = os.pathsep.join([str(programs), str(Path(UV).parent), os.environ["PATH"]])
    said, *found = env("--device", "auto", path=search)
    assert "environments for cuda (NVIDIA driver found: " in said
    assert found == ["1.0", "1.0"]
    wrong = call(house, "env", "--device", "gpu")
    assert wrong.returncode == 2
    assert "invalid choice: 'gpu'" in fault(wrong)


@needs_uv
def test_resolve_installs_nothing(house):
    done = call(house, "env", "left", "--resolve", **offline_settings(house))
    assert done.stdout.splitlines()[-2:] == ["left: 1 packages", "tiny==2.0"]
    assert not (house / ".venvs" / "left").exists()


@needs_uv
def test_lock_holds_what_lies_below_the_requirements(house):
    wheels, lock = house.parent / "wheels", house / "left" / "requirements.lock"
    write_wheel(wheels, "2.0", needs="tinier[more]>0")
    write_wheel(wheels, "1.0", name="tinier")
    (house / "left" / "requirements.txt").write_text("tiny==2.0\n")
    settings = offline_settings(house)
    done = call(house, "lock", "left", **settings)
    assert done.stdout == "left/requirements.lock: 1 versions\n", done.stderr
    head, pins, *lines = lock.read_text().splitlines()
    assert "python3 run.py lock" in head
    assert lines == ["tinier==1.0"]
    write_wheel(wheels, "1.5", name="tinier")
    call(house, "lock", "left", **settings)
    assert lock.read_text().splitlines()[2:] == ["tinier==1.0"]
    call(house, "lock", "left", "--upgrade", **settings)
    assert lock.read_text().splitlines()[1:] == [pins, "tinier==1.5"]
    (house / "left" / "requirements.txt").write_text("tiny==9.0\n")
    assert fault(call(house, "lock", "left", **settings)).startswith("error: no lock for left: ")
    assert lock.read_text().splitlines()[2:] == ["tinier==1.5"]
