"""run.py as a user calls it, on a small repository of its own with two toy folders."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from repository import ROOT, is_running

# uv of this checkout, when it has one: a house needs no copy of its own.
UV = [str(path) for path in ROOT.glob(".venvs/uv-*/bin")]
MAIN = """
import json, pathlib, sys
run = pathlib.Path(__file__).resolve().parents[1] / "results" / "{name}" / "demo"
run.mkdir(parents=True, exist_ok=True)
score = {{"name": "truth found", "value": 0.9, "target": ">= 0.8", "passed": True}}
summary = {{"title": "{name}", "planted_truth": score, "scores": [score], "report": "report.html"}}
(run / "report.html").write_text("<p>report</p>")
(run / "summary.json").write_text(json.dumps(summary))
(run / "arguments").write_text(" ".join(sys.argv[1:]))
sys.exit({code})
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A repository with run.py and two folders: ``left`` works, ``right`` fails."""
    root = tmp_path_factory.mktemp("house")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, root)
    if UV:
        # Each call asks pip for its settings, half a second: it is asked once, this answers for it.
        ask = [sys.executable, "-m", "pip", "config", "list"]
        told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        (root / "pip.py").write_text(f"print({told!r}, end='')\n")
    pins = (ROOT / "tests" / "requirements.txt").read_text().splitlines()
    pytest_alone = next(line for line in pins if line.startswith("pytest==")) + "\n"
    (root / "tests").mkdir()
    (root / "tests" / "requirements.txt").write_text(pytest_alone)
    (root / "tests" / "pytest.ini").write_text("[pytest]\nmarkers = slow: long\n")
    (root / "tests" / "test_root.py").write_text("def test_root():\n    assert True\n")
    for name, code in (("left", 0), ("right", 3)):
        folder = root / name
        (folder / "tests").mkdir(parents=True)
        (folder / "requirements.txt").write_text("# nothing needed\n")
        (folder / "main.py").write_text(MAIN.format(name=name, code=code))
        shutil.copy(root / "tests" / "pytest.ini", folder)
    (root / "left" / "tests" / "requirements.txt").write_text(pytest_alone)
    (root / "left" / "tests" / "test_left.py").write_text(
        "import pytest\n\n"
        "def test_good():\n    assert True\n\n"
        "def test_bad():\n    assert False\n\n"
        "@pytest.mark.slow\ndef test_slow():\n    assert True\n\n"
        "def test_skipped():\n    pytest.skip('reason')\n"
    )
    return root


def call(house, *arguments, **environment):
    """Run run.py in ``house``; return the finished process with its text."""
    return subprocess.run(
        [sys.executable, "run.py", *arguments],
        cwd=house,
        env={**os.environ, "PATH": os.pathsep.join([*UV, os.environ["PATH"]]), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_demo_goes_on_after_a_failing_folder(house):
    done = call(house, "demo", "--fresh")
    assert done.returncode == 1, done.stderr
    rows = dict(re.findall(r"^(left|right) +(ok|failed) .*truth found 0\.9.*$", done.stdout, re.M))
    assert rows == {"left": "ok", "right": "failed"}
    assert (house / "results" / "left" / "demo" / "arguments").read_text() == "--demo --fresh"
    assert "left/demo" in (house / "results" / "index.html").read_text()
    assert call(house, "demo", "left").returncode == 0


def test_demo_tells_a_missed_score_from_a_failed_run(house):
    main = house / "left" / "main.py"
    before = main.read_text()
    missing = before.replace('"passed": True', '"passed": False')
    reused = "import sys\nsys.exit(1)\n"  # a complete demo that missed writes nothing
    for text, state in ((missing.replace("sys.exit(0)", "sys.exit(1)"), "missed"),
                        (reused, "missed"), ("import sys\nsys.exit(2)\n", "failed")):  # fmt: skip
        main.write_text(text)
        done = call(house, "demo", "left")
        assert done.returncode == 1
        row = next(line for line in done.stdout.splitlines() if line.startswith("left  "))
        assert row.split()[1] == state
        assert ("truth found 0.9" in row) == (state == "missed")
        assert ("missed in left: " in done.stdout) == (state == "missed")
    main.write_text(before)


# Waits, at most 20 s, until the demo of the other folder has begun.
MEET = """
import pathlib, sys, time
here, other = pathlib.Path.cwd(), pathlib.Path.cwd().parent / "{other}"
(here / "began").touch()
print("{name} begins")
until = time.monotonic() + 20
while not (other / "began").exists() and time.monotonic() < until:
    time.sleep(0.02)
if not (other / "began").exists():
    sys.exit("{name} is alone")
"""


def test_demos_run_side_by_side(house):
    """Two at once, one misses a score, the other fails: as one after the other, said in order."""
    before = {name: (house / name / "main.py").read_text() for name in ("left", "right")}
    left = before["left"].replace('"passed": True', '"passed": False')
    (house / "left" / "main.py").write_text(
        MEET.format(name="left", other="right")
        + "time.sleep(1)\n"  # right ends first and is still told second
        + left.replace("sys.exit(0)", "sys.exit(1)")
    )
    (house / "right" / "main.py").write_text(
        MEET.format(name="right", other="left") + before["right"]
    )
    done = call(house, "demo", "--jobs", "2")
    for name, text in before.items():
        (house / name / "main.py").write_text(text)
        (house / name / "began").unlink()
    assert done.returncode == 1, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    sections = lines[lines.index("== left") : lines.index("== right") + 2]
    assert sections == ["== left", "left begins", "", "== right", "right begins"]
    ends = [line.rsplit(" in ", 1)[0] for line in lines if "exit code" in line]
    assert ends == ["right: ended with exit code 3", "left: ended with exit code 1"]
    rows = [line.split()[:2] for line in lines if re.match(r"(left|right)  ", line)]
    assert rows == [["left", "missed"], ["right", "failed"]]
    assert "missed in left: truth found 0.900 (target >= 0.8)" in lines
    assert (house / "results" / "logs" / "demo" / "right.log").read_text() == "right begins\n"


def test_finished_environment_is_reused_and_interrupted_one_rebuilt(house):
    stamp = house / ".venvs" / "right" / "stamp"
    assert call(house, "env", "right").returncode == 0
    first = stamp.stat().st_mtime_ns
    assert "building" not in call(house, "env", "right").stdout
    assert stamp.stat().st_mtime_ns == first
    stamp.unlink()
    assert "building right" in call(house, "env", "right").stdout
    (house / "right" / "requirements.txt").write_text("# still nothing needed\n")
    assert "building right" in call(house, "env", "right").stdout


def test_two_that_build_one_environment_wait_for_each_other(house):
    assert call(house, "env", "left").returncode == 0
    with open(house / ".venvs" / "left.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [sys.executable, "-u", "run.py", "env", "left"],
            cwd=house, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        lines = iter(second.stdout.readline, "another run.py builds left: waiting for it\n")
        assert all(lines)  # an empty line would be its end
        assert second.poll() is None
    assert "left         ready" in second.communicate(timeout=120)[0]
    assert second.returncode == 0


def test_unbuildable_environment_is_reported(house):
    requirements = house / "right" / "requirements.txt"
    before = requirements.read_text()
    requirements.write_text("./no-such-package\n")
    done = call(house, "env", "right")
    requirements.write_text(before)
    assert done.returncode == 1
    assert "building right failed: " in done.stdout
    assert "no-such-package" in done.stdout
    assert not (house / ".venvs" / "right" / "stamp").exists()


def test_closing_line_counts_all_folders(house):
    done = call(house, "test", "left")
    assert done.stdout.splitlines()[-1] == "2 passed, 1 failed, 1 skipped"
    assert done.returncode == 1
    again = call(house, "test", "left", "--jobs", "1", CI="true")
    for lines in (done.stdout.splitlines(), again.stdout.splitlines()):
        assert lines[-1] == "2 passed, 1 failed, 1 skipped"
        assert [line for line in lines if line in ("== left", "== root")] == ["== left", "== root"]
    assert again.returncode == 1
    slow = call(house, "test", "left", "--slow")
    assert slow.stdout.splitlines()[-1] == "3 passed, 1 failed, 1 skipped"


def test_folder_without_pytest_counts_as_failed(house):
    done = call(house, "test", "right")
    assert done.stdout.splitlines()[-1] == "1 passed, 1 failed"


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["demo", "lefd"], "left"),
        (["tset"], "test"),
        (["test", "--slwo"], "--slow"),
        (["env", "rigt"], "right"),
    ],
)
def test_unknown_word_names_the_nearest(house, arguments, nearest):
    done = call(house, *arguments)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"did you mean {nearest}?")
    assert len(done.stderr.splitlines()) == 1


def test_it_starts_where_python_looks_in_no_folder_of_a_script(house):
    assert call(house, "--help", PYTHONSAFEPATH="1").returncode == 0


def test_number_of_jobs_is_checked(house):
    for wrong in ("0", "-1", "two"):
        done = call(house, "demo", f"--jobs={wrong}")
        assert done.returncode == 2
        assert f"{wrong}: expected a whole number of at least 1" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "jobs"), [("SIGINT", "1"), ("SIGTERM", "1"), ("SIGINT", "2"), ("SIGKILL", "2")]
)
def test_stopping_ends_the_children(house, name, jobs):
    folder = house / "left"
    before = (folder / "main.py").read_text()
    pid_file = folder / "pid"
    pid_file.unlink(missing_ok=True)
    (folder / "main.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path('pid.part').write_text(str(os.getpid()))\nos.rename('pid.part', 'pid')\n"
        "time.sleep(600)\n"
    )
    try:
        # A test run in the background of a shell hands down an ignored SIGINT.
        process = subprocess.Popen(
            [sys.executable, "run.py", "demo", "left", "right", "--jobs", jobs],
            cwd=house,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not pid_file.exists():
            assert process.poll() is None
            time.sleep(0.05)
        child = int(pid_file.read_text())
        assert is_running(child)
        os.kill(process.pid, getattr(signal, name))
        code = process.wait(timeout=30)
        assert code == {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -signal.SIGKILL}[name]
        until = time.monotonic() + (10 if name == "SIGKILL" else 0)
        while is_running(child) and time.monotonic() < until:
            time.sleep(0.05)
        assert not is_running(child)
    finally:
        (folder / "main.py").write_text(before)


def test_a_killed_call_takes_its_children_along(tmp_path):
    """What env and bench start, a child of a child that is deaf to SIGTERM, ends with them."""
    deaf = "import os, pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    deaf += "pathlib.Path('part').write_text(str(os.getpid()))\nos.rename('part', 'pid')\n"
    deaf += "time.sleep(600)"
    starts = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {deaf!r}])"
    code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom checkout import call\n"
    code += f"call([sys.executable, '-c', {starts!r}], cwd={str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "pid").exists():
        assert process.poll() is None
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    assert is_running(child)
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(child)


def test_clean_keeps_data_and_runs(house):
    (house / ".venvs.removed.7").mkdir()  # of a clean that was killed
    (house / "data" / "left").mkdir(parents=True, exist_ok=True)
    (house / "data" / "left" / "mine.txt").write_text("mine")
    call(house, "demo", "left")
    assert call(house, "clean").returncode == 0
    assert not list(house.glob(".venvs*"))
    assert not (house / "results" / "index.html").exists()
    assert (house / "results" / "left" / "demo" / "summary.json").exists()
    assert (house / "data" / "left" / "mine.txt").read_text() == "mine"
