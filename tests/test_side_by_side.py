"""side_by_side.py: commands that run at once, their output in order, and nothing left behind."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from repository import ROOT, is_running

sys.path.insert(0, str(ROOT))
import side_by_side

DRIVE = """
import json, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from side_by_side import Task, run_tasks
toys, width = json.loads(sys.argv[1]), int(sys.argv[2])
here = Path.cwd()
tasks = [Task(name, code and [sys.executable, "-c", code], here) for name, code in toys.items()]
found = run_tasks(tasks, width, here / "logs")
Path("found.json").write_text(json.dumps({{name: list(one) for name, one in found.items()}}))
"""
# Says its name, waits until {other} has begun, at most 20 s; ends with 1 when that never happens.
MEET = """
import pathlib, sys, time
pathlib.Path("{me}.began").touch()
print("{me} begins", flush=True)
until = time.monotonic() + {patience}
while not pathlib.Path("{other}.began").exists() and time.monotonic() < until:
    time.sleep(0.02)
print("{me} ends", file=sys.stderr)
sys.exit(not pathlib.Path("{other}.began").exists())
"""
# Notes its own process and that of a child, which takes no notice of SIGTERM, and stays.
STAY = """
import os, pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("{me}.deaf").touch()
time.sleep(600)
'''])
while not pathlib.Path("{me}.deaf").exists():
    time.sleep(0.02)
pathlib.Path("{me}.part").write_text(str(os.getpid()) + " " + str(child.pid))
print("{me} stays", flush=True)
os.rename("{me}.part", "{me}.pids")
time.sleep(600)
"""


def command(toys, width):
    """Return the command that runs ``toys`` ({name: code or None}), ``width`` at once."""
    return [sys.executable, "-c", DRIVE.format(root=str(ROOT)), json.dumps(toys), str(width)]


def drive(folder, toys, width, **environment):
    """Run ``toys`` in ``folder``; return (text printed, {name: [code, started, seconds]})."""
    done = subprocess.run(
        command(toys, width),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "found.json").read_text())


def test_two_run_at_once_and_output_keeps_the_order(tmp_path):
    """Each waits for the other; the second ends first and is still printed second."""
    slow = MEET.format(me="first", other="second", patience=20) + "\n"
    slow = slow.replace("sys.exit(", "time.sleep(0.7)\nsys.exit(")
    toys = {"first": slow, "second": MEET.format(me="second", other="first", patience=20)}
    text, found = drive(tmp_path, toys, 2)
    assert [found[name][0] for name in toys] == [0, 0]
    begins = [found[name][1] for name in toys]
    ends = [found[name][1] + found[name][2] for name in toys]
    assert max(begins) < min(ends)
    assert ends[1] < ends[0]
    sections = "\n== first\nfirst begins\nfirst ends\n\n== second\nsecond begins\nsecond ends\n"
    assert text.endswith(sections)
    lines = text[: -len(sections)].splitlines()
    assert lines[:2] == ["first: started", "second: started"]
    assert [line.split(" in ")[0] for line in lines[2:]] == ["second: finished", "first: finished"]
    assert "\x1b" not in text
    assert (tmp_path / "logs" / "first.log").read_text() == "first begins\nfirst ends\n"


def test_one_at_a_time_writes_as_it_comes(tmp_path):
    toys = {"first": "print('one')", "second": MEET.format(me="second", other="x", patience=0)}
    text, found = drive(tmp_path, toys, 1)
    assert text == "\n== first\none\n\n== second\nsecond begins\n"
    assert [found[name][0] for name in toys] == [0, 1]
    assert found["first"][1] + found["first"][2] <= found["second"][1] + 0.05
    assert not (tmp_path / "logs").exists()


def test_a_failing_or_missing_command_stops_no_other(tmp_path):
    toys = {"bad": "raise SystemExit(3)", "missing": None, "good": "print('done')", "last": "pass"}
    text, found = drive(tmp_path, toys, 2)
    assert {name: found[name][0] for name in toys} == {
        "bad": 3, "missing": None, "good": 0, "last": 0
    }  # fmt: skip
    assert "bad: ended with exit code 3 in" in text
    assert [line for line in text.splitlines() if line.startswith("== ")] == [
        "== bad", "== missing", "== good", "== last"
    ]  # fmt: skip


def test_each_gets_its_share_of_the_threads(tmp_path):
    names = json.dumps([*side_by_side.THREAD_COUNTS, "TF_FORCE_GPU_ALLOW_GROWTH"])
    code = f"import os, json\nprint(*map(os.environ.get, json.loads('{names}')))"
    text, _ = drive(tmp_path, {"a": code, "b": "pass"}, 2, OMP_NUM_THREADS="7")
    share = str(max(1, side_by_side.count_cores() // 2))
    printed = next(line for line in text.splitlines() if line.endswith(" true"))
    assert printed.split() == [share] * len(side_by_side.THREAD_COUNTS) + ["true"]


@pytest.mark.parametrize(
    ("wanted", "cores", "memory", "n_tasks", "width"),
    [
        (None, 2, 100, 5, 2),
        (None, 16, 100, 5, 5),
        (None, 16, 7, 5, 2),
        (None, 16, 1, 5, 1),
        (None, 1, 100, 5, 1),
        (4, 2, 1, 5, 4),
        (1, 16, 100, 5, 1),
        (9, 2, 100, 3, 3),
        (None, 2, 100, 0, 1),
    ],
)
def test_width_follows_cores_and_memory(monkeypatch, wanted, cores, memory, n_tasks, width):
    monkeypatch.setattr(side_by_side, "count_cores", lambda: cores)
    monkeypatch.setattr(side_by_side, "free_gb", lambda: memory)
    assert side_by_side.choose_width(wanted, n_tasks) == width


def test_cores_are_those_of_the_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert side_by_side.count_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 0 < side_by_side.free_gb() < 100_000


def test_terminal_shows_what_runs(tmp_path):
    """On a terminal a line for each running command, its seconds and its last line of output."""
    ours, theirs = pty.openpty()
    toys = {"first": "import time\nprint('epoch 7', flush=True)\ntime.sleep(1.5)", "second": "pass"}
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command(toys, 2), cwd=tmp_path, stdout=theirs, env=environment) as done:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            seen += part
    os.close(ours)
    assert done.returncode == 0
    text = seen.decode().replace("\r\n", "\n")
    assert "first      1 s  epoch 7\n" in text
    assert "\x1b[1F\x1b[J" in text
    assert text.endswith("\n== first\nepoch 7\n\n== second\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_outlives_a_stopped_run(tmp_path, name):
    toys = {me: STAY.format(me=me) for me in ("first", "second")} | {"third": "print('never')"}
    # A test run in the background of a shell hands down an ignored SIGINT.
    process = subprocess.Popen(
        command(toys, 2),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    files = [tmp_path / "first.pids", tmp_path / "second.pids"]
    until = time.monotonic() + 60
    while not all(path.exists() for path in files):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    pids = [int(pid) for path in files for pid in path.read_text().split()]
    assert len(pids) == 4
    assert all(map(is_running, pids))
    process.send_signal(getattr(signal, name))
    text, _ = process.communicate(timeout=30)
    assert process.returncode == {"SIGINT": -signal.SIGINT, "SIGTERM": 143, "SIGKILL": -9}[name]
    if name == "SIGKILL":  # the watcher asks, then waits 5 s
        until = time.monotonic() + 30
        while any(map(is_running, pids)) and time.monotonic() < until:
            time.sleep(0.1)
    else:
        assert f"stopped: first, second; output so far in {tmp_path / 'logs'}" in text
    assert not any(map(is_running, pids))
    assert (tmp_path / "logs" / "first.log").read_text() == "first stays\n"
    assert "never" not in text
    assert not (tmp_path / "found.json").exists()
