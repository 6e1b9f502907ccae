"""Jobs over processes, or over the machines of a dask cluster: one flag ``--cluster``.

Every stage that works file by file calls ``run_jobs``. Without a cluster these are joblib's
processes. ``tcp://HOST:8786`` goes to a running scheduler, ``local:N`` starts N worker processes on
this machine, ``slurm:FILE`` reads from a JSON file the arguments of dask_jobqueue.SLURMCluster and
``jobs``, how many to submit. Packages: requirements-cluster.txt, imported only then.

All workers need this folder and the data under the same paths, the same package versions and one
thread each; this is checked on each. A job of a lost worker is run again by the scheduler, and
files are moved into place whole, so nothing is missing and nothing double.
"""

import contextlib
import importlib
import importlib.metadata
import itertools
import logging
import os
import pickle
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from common.faults import InputError, at_end_of_main
from common.files import FOLDER, read_json
from common.locks import release_all

REMEDY = "what is done is kept, the same command goes on"
CONNECT_S = 30  # for the scheduler
WAIT_S = 120  # for the first worker, and without any; jobs of SLURM may stand in its queue longer
POLL_S = 20  # without a finished job: then the scheduler is asked, and has as long to answer
CREW_S = 5  # between two questions how many workers there are
ANSWER_S = 300  # for the result of a finished job
AHEAD = 3  # jobs handed out for each worker: it never waits, and no queue of whole movies builds up
_open: dict[str, contextlib.ExitStack] = {}
_clients: dict[str, Any] = {}
_checked: set[str] = set()  # on a worker: the tokens that it has seen


def run_jobs(
    jobs: Iterable[tuple],
    workers: int,
    *,
    cluster: str = "",
    folder: str | os.PathLike = ".",
) -> Iterator[Any]:
    """Run jobs at the same time and yield their results in the order of the jobs.

    Args:
        jobs: what ``joblib.delayed(function)(...)`` returns; a function at the top of a module.
        workers: processes on this machine.
        cluster: text of ``--cluster``; "" stays on this machine.
        folder: folder that the jobs write into; the workers must see it under the same path.

    Raises:
        InputError: package missing, unknown text, no scheduler, no worker, another file system.
    """
    if not cluster:
        joblib = importlib.import_module("joblib")  # stcnn, whose common/ is the same, has none
        return joblib.Parallel(n_jobs=workers, return_as="generator")(jobs)
    client = connect(cluster)
    return _watched(client, cluster, jobs, Path(folder).resolve())


def versions() -> dict[str, str]:
    """Return {package: version} of what requirements.txt names, and of Python."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for line in (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"[A-Za-z][\w.-]*", line):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[match[0]] = importlib.metadata.version(match[0])
    return found


def check_worker(place: dict) -> None:
    """Raise an InputError unless this process may work at ``place`` (run on a worker, each job).

    Args:
        place: folder, token (path and text of a file in it), code (folder) and versions.
    """
    if place["text"] in _checked:
        return
    where = f"--cluster: worker {os.uname().nodename}, process {os.getpid()}"
    if str(FOLDER) != place["code"]:
        raise InputError(
            f"{where}: has loaded modules of {FOLDER}, expected {place['code']}; start workers of "
            "its own for each pipeline"
        )
    own = versions()
    other = [f"{name} {own.get(name)}, expected {v}" for name, v in place["versions"].items()
             if own.get(name) != v]  # fmt: skip
    if other:
        raise InputError(f"{where}: found {'; '.join(other[:3])}; start it in the same environment")
    try:
        seen = Path(place["token"]).read_text(encoding="utf-8")
    except OSError:
        seen = ""
    missing = [place["folder"]] if seen != place["text"] else []
    missing += [] if os.path.isdir(place["cwd"]) else [place["cwd"]]
    if missing:
        raise InputError(
            f"{where}: does not see {missing[0]}; expected a file system that all machines share "
            "under the same path"
        )
    if not os.access(place["folder"], os.W_OK):
        raise InputError(f"{where}: may not write to {place['folder']}")
    _checked.add(place["text"])


def run_one(place: dict, function: Callable, args: tuple, kwargs: dict) -> Any:
    """Run one job (on a worker) where the command was given, and free the folders it held."""
    check_worker(place)
    with contextlib.chdir(place["cwd"]):
        try:
            return function(*args, **kwargs)
        finally:
            release_all()


def caller() -> Callable:
    """Return the function that unpacks a job on a worker and runs it.

    Defined inside, it travels whole: a scheduler reads what it is sent, and has neither this folder
    on its path nor the libraries of the jobs.
    """

    def call(packed):
        run, arguments = pickle.loads(packed)
        return run(*arguments)

    return call


def start(where: str, distributed: Any) -> Any:
    """Return what a Client connects to: an address, or a cluster of our own."""
    if match := re.fullmatch(r"local:([1-9]\d*)", where):
        return distributed.LocalCluster(
            n_workers=int(match[1]),
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=0,  # as joblib's processes: dask's limit would end them at 95 %
            silence_logs=logging.CRITICAL,
        )
    if where.startswith("slurm:"):
        return start_jobs(where)
    if not re.fullmatch(r"(tcp|tls|ucx)://\S+", where):
        raise InputError(f"--cluster {where}: expected tcp://HOST:PORT, local:N or slurm:FILE")
    return where


def start_jobs(where: str) -> Any:
    """Return a dask_jobqueue.SLURMCluster whose jobs are handed in.

    SLURM is asked first whether it takes such a job (``sbatch --test-only``, which hands in
    nothing): dask-jobqueue hands in from a thread of its own, whose fault reaches no caller.
    """
    arguments = read_json(where[len("slurm:") :], remedy="give a JSON file of its arguments")
    jobs = arguments.pop("jobs", 1)
    if type(jobs) is not int or jobs < 1:
        raise InputError(f"--cluster {where}: jobs is {jobs!r}, expected a whole number above 0")
    if shutil.which("sbatch") is None:
        raise InputError(
            f"--cluster {where}: there is no sbatch on this machine; give the command where jobs "
            "are handed in"
        )
    dask_jobqueue = needed("dask_jobqueue")
    try:
        own = dask_jobqueue.SLURMCluster(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"--cluster {where}: {error}; see dask_jobqueue.SLURMCluster") from None
    with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as script:
        script.write(own.job_script())
        script.flush()
        command = ["sbatch", "--test-only", script.name]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        quietly(own.close, timeout=10)
        said = " ".join((asked.stderr or asked.stdout).split())[:200]
        raise InputError(f"--cluster {where}: SLURM refuses the job ({said}); mend the JSON file")
    own.scale(jobs=jobs)
    return own


def needed(package: str) -> Any:
    """Return an optional package, or raise an InputError that names its requirements."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"--cluster: the package {error.name} is missing; "
            "pip install -r requirements-cluster.txt"
        ) from None


def connect(where: str) -> Any:
    """Return the client of a cluster, opened once a script and closed at its end."""
    if where in _clients:
        return _clients[where]
    distributed = needed("distributed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # ours is one line
    stack = contextlib.ExitStack()
    try:
        address = start(where, distributed)
        if address is not where:
            stack.callback(quietly, address.close, timeout=10)
        client = distributed.Client(address, timeout=CONNECT_S)
        stack.callback(quietly, client.close, timeout=5)
        if where.startswith("slurm:"):
            print("cluster: waiting for the first job of SLURM, Ctrl-C gives up", flush=True)
        client.wait_for_workers(1, timeout=None if where.startswith("slurm:") else WAIT_S)
    except (OSError, TimeoutError) as error:
        stack.close()
        text = " ".join(str(error).split())[:200]
        raise InputError(f"--cluster {where}: no scheduler or no worker ({text})") from None
    except BaseException:
        stack.close()
        raise
    client.register_plugin(path_plugin(str(FOLDER)))
    _open[where], _clients[where] = stack, client
    crew = len(workers_of(client))
    print(f"cluster: {crew} worker{'s' * (crew != 1)}", flush=True)
    return client


def quietly(close: Callable, **options: Any) -> None:
    """Close what may have lost its other side."""
    with contextlib.suppress(Exception):
        close(**options)


def disconnect() -> None:
    """Close every client, and the clusters that this process has started."""
    while _open:
        where, stack = _open.popitem()
        _clients.pop(where, None)
        stack.close()


at_end_of_main(disconnect)


def path_plugin(folder: str) -> Any:
    """Return the plug-in that makes the modules of ``folder`` importable in each worker.

    Defined inside, it travels whole: nothing of the folder can be imported yet.
    """

    class PutOnPath(needed("distributed").WorkerPlugin):
        def setup(self, worker):
            if folder not in sys.path:
                sys.path.insert(0, folder)

    return PutOnPath()


def workers_of(client: Any) -> dict[str, int]:
    """Return {worker: threads}; no answer of the scheduler is a TimeoutError."""
    return client.sync(client.scheduler.ncores, workers=None, callback_timeout=POLL_S)


def check_threads(client: Any) -> None:
    """Raise an InputError where a worker runs several jobs in one process."""
    for worker, threads in workers_of(client).items():
        if threads > 1:
            raise InputError(
                f"--cluster: worker {worker} runs {threads} jobs in one process, expected 1: start "
                f"it with --nworkers {threads} --nthreads 1"
            )


class Crew:
    """How many workers there are: asked again every CREW_S while jobs run."""

    def __init__(self, client: Any):
        self.client, self.count, self.asked, self.seen = client, 1, 0.0, time.monotonic()

    def size(self, *, now: bool = False) -> int:
        """Return the number of workers; there may be none for WAIT_S.

        Raises:
            InputError: there has been none for longer.
            OSError, TimeoutError: the scheduler does not answer. A machine that lost its power
                closes no connection: only a question without answer tells.
        """
        moment = time.monotonic()
        if now or moment - self.asked > CREW_S:
            self.count, self.asked = len(workers_of(self.client)), moment
            if self.count:
                self.seen = moment
            elif moment - self.seen > WAIT_S:
                raise InputError(f"--cluster: no worker for {WAIT_S} s; {REMEDY}")
        return self.count


def _spread(client: Any, jobs: Iterable[tuple], place: dict) -> Iterator[Any]:
    """Yield the results of jobs on a cluster, in order."""
    jobs, waiting, running = enumerate(jobs, 1), deque(), []
    distributed, dumps = needed("distributed"), needed("cloudpickle").dumps
    call, crew = caller(), Crew(client)
    try:
        while True:
            running = [future for future in running if not future.done()]
            room = AHEAD * max(1, crew.size()) - len(running)
            for number, (function, args, kwargs) in itertools.islice(jobs, max(0, room)):
                packed = dumps((run_one, (place, function, args, kwargs)))
                future = client.submit(call, packed, pure=False)
                waiting.append((number, function.__name__, future))
                running.append(future)
            if not waiting and not running:
                return
            if waiting and not waiting[0][-1].done():
                try:
                    distributed.wait(running, timeout=POLL_S, return_when="FIRST_COMPLETED")
                except TimeoutError:
                    crew.size(now=True)
            while waiting and waiting[0][-1].done():
                number, name, future = waiting[0]
                result = future.result(timeout=ANSWER_S)
                waiting.popleft()
                yield result
    except distributed.KilledWorker:
        raise InputError(
            f"--cluster: job {number} ({name}) ended each worker that took it, as for want of "
            f"memory; {REMEDY}"
        ) from None
    finally:
        for _, _, future in waiting:
            # Asks for no answer, which a scheduler that is gone would never give.
            quietly(future.release)


def _watched(client: Any, where: str, jobs: Iterable[tuple], folder: Path) -> Iterator[Any]:
    """Yield the results of jobs; where the cluster is lost, end with one line that says so."""
    distributed = needed("distributed")
    gone = distributed.client  # one future asked for its result, or several waited for
    lost = (gone.FutureCancelledError, gone.FuturesCancelledError)
    lost += (distributed.comm.CommClosedError, TimeoutError)
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".cluster.{os.getpid()}.tmp"  # a killed run's is removed by the next one
    text = secrets.token_hex(8)
    place = {"folder": str(folder), "token": str(token), "text": text}
    place |= {"cwd": os.getcwd(), "code": str(FOLDER), "versions": versions()}
    try:
        token.write_text(text, encoding="utf-8")
        check_threads(client)
        client.run(check_worker, place)  # also at the first job of workers that come later
        yield from _spread(client, jobs, place)
    except lost as error:
        # A job of our own may have raised a TimeoutError: then the scheduler still answers.
        if isinstance(error, TimeoutError) and client.status == "running" and answers(client):
            raise
        raise InputError(f"--cluster {where}: the scheduler is gone; {REMEDY}") from None
    finally:
        token.unlink(missing_ok=True)


def answers(client: Any) -> bool:
    """Tell whether the scheduler answers."""
    try:
        workers_of(client)
    except (OSError, TimeoutError):
        return False
    return True
