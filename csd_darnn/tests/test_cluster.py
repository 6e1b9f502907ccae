"""Jobs on a cluster: two worker processes, a killed worker, a dead scheduler, one-line faults."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from joblib import delayed

import main
from common import cluster
from common.files import InputError, atomic_path
from common.locks import LOCK_NAME, hold
from helpers import SMALL, tiny_movie

distributed = pytest.importorskip("distributed", reason="requirements-cluster.txt")
HERE = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def convert(number, out, slow=0.0):
    """Write one file as a stage does; return the process that did."""
    time.sleep(slow)
    with atomic_path(Path(out) / f"{number}.txt") as temporary:
        temporary.write_text(f"{number}\n" * 100)
    return os.getpid()


def kill_once(number, out):
    """Write one file; the first process that gets number 3 is killed before it does."""
    trace = Path(out) / "killed"
    if number == 3 and not trace.exists():
        trace.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number, convert(number, out)


def write_held(number, out):
    """Write into a folder that this process keeps for itself, as a training does."""
    hold(Path(out) / str(number % 2))
    convert(number, Path(out) / str(number % 2))
    return os.getcwd()


def refuse(number):
    """Refuse number 2 as a stage does."""
    if number == 2:
        raise InputError("two.txt: found nothing, expected something")
    return number


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def two():
    """Text of --cluster for two workers; this file is put on their path for its functions."""
    tests = str(Path(__file__).parent)
    before, sys.path = sys.path, [tests, *sys.path]  # inherited by the workers
    yield "local:2"
    cluster.disconnect()
    sys.path = before


def test_a_cluster_writes_the_bytes_of_two_processes(two, tmp_path):
    plain, far = tmp_path / "plain", tmp_path / "far"
    plain.mkdir()
    list(cluster.run_jobs((delayed(convert)(n, plain) for n in range(8)), 2))
    jobs = (delayed(convert)(n, far, 0.05) for n in range(8))
    processes = list(cluster.run_jobs(jobs, 1, cluster=two, folder=far))
    assert len(set(processes)) == 2
    assert os.getpid() not in processes
    assert contents(far) == contents(plain)  # and no token is left


def test_a_killed_worker_loses_and_doubles_nothing(two, tmp_path):
    jobs = (delayed(kill_once)(n, tmp_path) for n in range(8))
    found = list(cluster.run_jobs(jobs, 1, cluster=two, folder=tmp_path))
    assert [number for number, _ in found] == list(range(8))
    assert sorted(contents(tmp_path)) == sorted([*(f"{n}.txt" for n in range(8)), "killed"])


def test_jobs_run_where_the_command_was_given_and_free_their_folders(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = (delayed(write_held)(n, Path("out")) for n in range(6))
    assert set(cluster.run_jobs(jobs, 1, cluster=two, folder="out")) == {str(tmp_path)}
    held = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert held == [f"{n}.txt" for n in range(6)]
    assert LOCK_NAME not in held


def test_a_fault_of_a_job_ends_the_work_in_its_own_words(two, tmp_path):
    jobs = (delayed(refuse)(n) for n in range(20))
    found = cluster.run_jobs(jobs, 1, cluster=two, folder=tmp_path)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(InputError, match=r"^two.txt: found nothing, expected something$"):
        next(found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"token": "/nowhere"}, "does not see .*expected a file system that all machines share"),
        ({"cwd": "/nowhere"}, "does not see /nowhere; expected a file system"),
        ({"code": "/elsewhere"}, "expected /elsewhere; start workers of its own"),
        ({"versions": {"numpy": "0.1"}}, r"found numpy \d.*, expected 0.1; start it in the same"),
    ],
)
def test_a_worker_of_another_place_is_refused(tmp_path, change, fault):
    place = {"code": str(cluster.FOLDER), "versions": cluster.versions(), "text": "never seen"}
    place |= {"token": str(tmp_path / "token"), "folder": str(tmp_path), "cwd": os.getcwd()}
    (tmp_path / "token").write_text("never seen")
    with pytest.raises(InputError, match=fault):
        cluster.check_worker(place | change)
    assert "numpy" in place["versions"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nonsense", "expected tcp://HOST:PORT, local:N or slurm:FILE"),
        ("local:0", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:1", "no scheduler or no worker"),
        ("slurm:/nowhere.json", "/nowhere.json"),
    ],
)
def test_faults_of_the_flag(text, line, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "WAIT_S", 1)
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with pytest.raises(InputError, match=line):
        cluster.run_jobs([], 1, cluster=text, folder=tmp_path)


SBATCH = """#!/bin/sh
# Takes what SLURM takes, and runs a job at once.
for script; do :; done
if grep -q "SBATCH -p none" "$script"; then echo "error: invalid partition" >&2; exit 1; fi
[ "$1" = --test-only ] && exit 0
cp "$1" {folder}/job.$$ && setsid sh {folder}/job.$$ > {folder}/noise.$$ 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""


def stand_in(folder, monkeypatch, *, jobs=2, **arguments):
    """Put an sbatch into PATH that runs jobs here; return the text of --cluster."""
    for name, text in (("sbatch", SBATCH), ("scancel", '#!/bin/sh\nkill -- "-$1"\n')):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    paths = [str(cluster.FOLDER / "tests"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    settings = {"cores": 1, "memory": "1GB", "log_directory": str(folder), "jobs": jobs}
    (folder / "jobs.json").write_text(json.dumps(settings | arguments))
    return f"slurm:{folder}/jobs.json"


def test_jobs_of_slurm_write_the_same_bytes(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="requirements-cluster.txt")
    where, out = stand_in(tmp_path, monkeypatch), tmp_path / "out"
    out.mkdir()
    jobs = [delayed(convert)(number, str(out)) for number in range(6)]
    try:
        workers = set(cluster.run_jobs(jobs, 1, cluster=where, folder=out))
    finally:
        cluster.disconnect()
    assert os.getpid() not in workers
    assert contents(out) == {f"{n}.txt": (f"{n}\n" * 100).encode() for n in range(6)}


def test_what_slurm_refuses_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="requirements-cluster.txt")
    where = stand_in(tmp_path, monkeypatch, queue="none")
    with pytest.raises(InputError, match=r"SLURM refuses the job \(error: invalid partition\)"):
        cluster.run_jobs([], 1, cluster=where, folder=tmp_path)


def test_a_machine_without_slurm_is_told(tmp_path, monkeypatch):
    where = stand_in(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no sbatch on this machine"):
        cluster.run_jobs([], 1, cluster=where, folder=tmp_path)


@pytest.mark.parametrize("jobs", [0, "two", True, 1.5])
def test_jobs_is_a_whole_number(tmp_path, monkeypatch, jobs):
    where = stand_in(tmp_path, monkeypatch, jobs=jobs)
    with pytest.raises(InputError, match=f"jobs is {jobs!r}, expected a whole number above 0"):
        cluster.run_jobs([], 1, cluster=where, folder=tmp_path)


def test_a_missing_package_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"distributed is missing; pip install -r requirements-cl"):
        cluster.run_jobs([], 1, cluster="local:3", folder=tmp_path)


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler and two workers as a user starts them: (address, scheduler's process)."""
    note, folder = tmp_path / "scheduler.json", str(cluster.FOLDER / "tests")
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    first = subprocess.Popen([*command, "--port", "0", "--scheduler-file", str(note)], **HERE)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(note)]
    command += ["--nworkers", "2", "--nthreads", "1", "--no-dashboard"]
    second = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": folder}, **HERE)
    until = time.monotonic() + 120
    while not (note.is_file() and note.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    yield json.loads(note.read_text())["address"], first
    cluster.disconnect()
    for process in (first, second):
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line(scheduler, tmp_path):
    address, process = scheduler
    jobs = [delayed(convert)(n, tmp_path / "out", 0.3) for n in range(20)]
    found = cluster.run_jobs(jobs, 1, cluster=address, folder=tmp_path / "out")
    next(found)
    process.kill()
    with pytest.raises(InputError, match=r"scheduler is gone; what is done is kept, the same comm"):
        list(found)
    assert (tmp_path / "out" / "0.txt").is_file()


@pytest.mark.slow
def test_a_scheduler_that_only_falls_silent_is_one_line(scheduler, tmp_path, monkeypatch):
    address, process = scheduler
    monkeypatch.setattr(cluster, "POLL_S", 2)
    jobs = [delayed(convert)(n, tmp_path / "out", 0.3) for n in range(20)]
    found = cluster.run_jobs(jobs, 1, cluster=address, folder=tmp_path / "out")
    next(found)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(InputError, match="scheduler is gone"):
        list(found)


@pytest.mark.slow
def test_targets_on_a_cluster_equal_those_of_two_processes(two, tmp_path):
    movie, runs = tiny_movie(tmp_path / "movie.npy"), []
    settings = SMALL | {"maps": False, "n_epochs": 1, "device": "cpu", "target_grid": "1,2"}
    for name, spread in (("here", {"jobs": 2}), ("far", {"cluster": two})):
        main.run_all(movie, **settings, **spread, run_dir=tmp_path / name)
        names = ("final_y_pred.npy", "iter_loss.npy", "encoder.safetensors", "metrics.csv")
        paths = [p for p in (tmp_path / name).rglob("*") if p.name in names]
        runs.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in paths})
    assert len(runs[0]) == 8
    assert runs[0] == runs[1]
    assert not list((tmp_path / "far").rglob(".*"))  # neither token nor lock is left
