"""How run.py builds environments: with uv or pip, from which sources, and what it says when not."""

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from repository import ROOT

UV = shutil.which("uv", path=os.pathsep.join([*map(str, ROOT.glob(".venvs/uv-*/bin")), os.defpath]))


def write_wheel(folder, version):
    """Write a wheel of the package ``tiny``, whose only module knows its version."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", f"version = {version!r}\n")
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(
            f"{about}/RECORD", f"tiny.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n"
        )


@pytest.fixture
def house(tmp_path):
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
        timeout=300,
    )


def version_in(house):
    """Return which version of ``tiny`` the environment of ``left`` holds."""
    python = house / ".venvs" / "left" / "bin" / "python"
    command = [python, "-c", "import tiny; print(tiny.version)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


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


@needs_uv
def test_uv_builds_from_the_sources_that_pip_is_told(house):
    done = call(house, "env", "left", **offline_settings(house))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pip builds" not in done.stdout
    assert version_in(house) == "2.0"  # the constraint holds back 3.0
    inside = house / ".venvs" / "left" / "lib"
    (installed,) = inside.glob("python*/site-packages/tiny.py")
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
def test_settings_from_a_file_of_pip(house):
    settings = offline_settings(house)
    wheels = house.parent / "wheels"
    write_wheel(house.parent / "more", "2.5")
    configuration = house.parent / "pip.conf"
    configuration.write_text(
        "[global]\nfind-links = /nowhere\n"
        f"[install]\nno-index = yes\nfind-links =\n    {wheels}\n    {house.parent / 'more'}\n"
        f"constraint = {settings['PIP_CONSTRAINT']}\n"
    )
    done = call(house, "env", "left", PIP_CONFIG_FILE=str(configuration))
    assert done.returncode == 0, done.stdout + done.stderr
    assert version_in(house) == "2.5"


@needs_uv
def test_variables_of_uv_win(house):
    other = house.parent / "other.txt"
    other.write_text("tiny<2\n")
    settings = offline_settings(house) | {"UV_CONSTRAINT": str(other)}
    assert call(house, "env", "left", **settings).returncode == 0
    assert version_in(house) == "1.0"


@needs_uv
def test_local_mirror_is_asked(house):
    simple = house.parent / "simple"
    for name in ("left", "tiny"):
        (simple / name).mkdir(parents=True)
    shutil.copy(house.parent / "wheels" / "tiny-2.0-py3-none-any.whl", simple / "tiny")
    (simple / "tiny" / "index.html").write_text(
        '<a href="tiny-2.0-py3-none-any.whl">tiny-2.0-py3-none-any.whl</a>'
    )
    done = call(house, "env", "left", PIP_INDEX_URL=simple.as_uri())
    assert done.returncode == 0, done.stdout + done.stderr
    assert version_in(house) == "2.0"


def test_pip_builds_where_uv_cannot_be_had(house):
    done = call(house, "env", "left", path="/usr/bin:/bin", **offline_settings(house))
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if "pip builds" in line]
    assert len(said) == 1
    assert "uv cannot be had" in said[0]
    assert version_in(house) == "2.0"


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


@needs_uv
@pytest.mark.parametrize(
    ("version", "built"), [("3.9", "3.11"), ("3.12", "3.12"), ("3.13", "3.13")]
)
def test_other_pythons(house, version, built):
    done = call(house, "env", python=other_python(version), **offline_settings(house))
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if "uv takes Python 3.11" in line]
    assert len(said) == (version != built)
    assert (house / ".venvs" / "left" / "lib" / f"python{built}").is_dir()
    assert version_in(house) == "2.0"


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


def test_wrong_python_without_uv(house):
    change(house / "venvs.py", PYTHONS, "PYTHONS = ((3, 98), (3, 99))")
    said = fault(call(house, "env", "left", path="/usr/bin:/bin", **offline_settings(house)))
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
    assert "1000000000 GB of free disk are needed for left, found" in said


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


@pytest.mark.parametrize("path", [pytest.param(None, marks=needs_uv, id="uv"), "/usr/bin:/bin"])
def test_no_network(house, path):
    nobody = "http://127.0.0.1:9/simple"
    done = call(house, "env", "left", path=path, PIP_INDEX_URL=nobody)
    said = fault(done)
    assert said.startswith("building left failed: no answer from ")
    assert "check the network" in said


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
