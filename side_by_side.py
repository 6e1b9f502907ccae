"""Run commands side by side, each with its share of the processors; print their output in order.

Called by run.py. Writes the output of each command to ``<logs>/<name>.log`` while it runs. No
process outlives this one: Ctrl-C and SIGTERM end the commands and what they started, and so does
a watcher when this process is killed.
"""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from checkout import watcher

POLL_S = 0.1
REFRESH_S = 1.0  # of the lines on a terminal that tell what runs
GRACE_S = 10  # between SIGTERM and SIGKILL
GB_EACH = 3  # memory of one demo or one folder's tests: a framework twice, and its data
# Numbers of threads are fixed when a library starts. They are handed down by name, not by binding
# a command to processors: so one that starts processes of its own fills a processor that
# another has left idle, and none waits for a processor that a stranger uses.
THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "LOKY_MAX_CPU_COUNT",  # joblib.cpu_count()
    "OPENCV_FOR_THREADS_NUM",
)


class Task(NamedTuple):
    """A command to run; ``command`` None stands for one that can't be run."""

    name: str
    command: "list | None"
    cwd: Path


class Outcome(NamedTuple):
    """How a task ended: exit code (None: not run), time of its start, seconds it took."""

    code: "int | None"
    started: float
    seconds: float


class Running(NamedTuple):
    """A task under way; its process leads a group of its own. ``log`` is None on the terminal."""

    process: subprocess.Popen
    log: object
    started: float
    clock: float


def count_cores():
    """Return how many processors this process may use: its affinity and its quota."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def free_gb():
    """Return the memory that is free on this machine, and below the limit of this container."""
    free = math.inf
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        free = int(line.split()[1]) * 1024 / 1e9
    with contextlib.suppress(OSError, ValueError, KeyError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(parts["active_file"]) + int(parts["inactive_file"])  # given back on demand
        free = min(free, (limit - used + cached) / 1e9)
    return free


def choose_width(wanted, n_tasks):
    """Return how many of ``n_tasks`` run at once: ``wanted``, or what cores and memory allow."""
    if wanted is None:
        wanted = int(min(count_cores(), free_gb() / GB_EACH))
    return max(1, min(wanted, n_tasks))


def environment_of(width):
    """Return the environment of a command that runs beside ``width`` - 1 others."""
    share = str(max(1, count_cores() // width))
    shared = dict.fromkeys(THREAD_COUNTS, share)
    # TensorFlow takes all memory of a GPU when it starts, unless told otherwise.
    return {
        **os.environ,
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        **shared,
        "PYTHONUNBUFFERED": "1",  # lines of the log in the order in which they were written
    }


@contextlib.contextmanager
def stop_signals():
    """Yield a list to which SIGINT and SIGTERM are appended instead of interrupting anything.

    An exception between the start of a process and its entry in a list would leave it behind.
    """
    seen, before = [], {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda number, _: seen.append(number))
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send(group, number):
    """Send signal ``number`` to a process group; return whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def end(running):
    """End the processes of ``running`` and their children."""
    groups = [task.process.pid for task in running]
    for group in groups:
        send(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(task.process.poll() is None for task in running) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    # Children that clean up behind a leader which has ended get a moment.
    deadline = time.monotonic() + 0.5
    while any(send(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for group in groups:
        send(group, signal.SIGKILL)
    for task in running:
        task.process.wait()


def last_line(log):
    """Return the last line of text in an open log file, '' when it holds none."""
    size = os.fstat(log.fileno()).st_size
    tail = os.pread(log.fileno(), 4096, max(0, size - 4096)).decode("utf-8", "replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return "".join(c for c in lines[-1] if c.isprintable()) if lines else ""


class Board:
    """What is printed while tasks run: a line for each start and end, the output in order.

    On a terminal also a line for each running task, which is written anew each second.
    """

    def __init__(self, names):
        self.names = list(names)
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.live = 0  # lines to take back
        self.drawn = 0.0
        self.width = max(map(len, self.names), default=0)

    def say(self, text):
        """Print ``text`` in place of the live lines."""
        if self.live:
            print(f"\x1b[{self.live}F\x1b[J", end="")
            self.live = 0
        print(text, end="" if text.endswith("\n") else "\n", flush=True)

    def draw(self, running):
        """Write the live lines when they are a second old."""
        if not self.terminal or time.monotonic() < self.drawn + REFRESH_S:
            return
        # Python 3.9 and 3.10 report 0 columns where a terminal tells no size.
        columns = (shutil.get_terminal_size().columns or 80) - 1
        lines = [
            f"{name:{self.width}} {time.monotonic() - task.clock:5.0f} s  {last_line(task.log)}"
            for name, task in running.items()
        ]
        if lines:
            self.say("".join(f"{line[:columns]}\n" for line in lines))
            self.live = len(lines)
        self.drawn = time.monotonic()

    def show(self, outputs):
        """Print what is complete, as far as the order allows: {name: text} loses those names."""
        while self.names and self.names[0] in outputs:
            name = self.names.pop(0)
            self.say(f"\n== {name}\n{outputs.pop(name)}")


def start(task, log_path, environment):
    """Start the command of ``task``, its output into ``log_path`` when there is one."""
    log = None
    if log_path:
        # Another run.py that writes the same log keeps its own file.
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.unlink(missing_ok=True)
        log = open(log_path, "w+b")  # noqa: SIM115 - text_of() closes it
    process = subprocess.Popen(
        task.command,
        cwd=task.cwd,
        env=environment,
        stdin=subprocess.DEVNULL if log else None,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    return Running(process, log, time.time(), time.monotonic())


def text_of(log):
    """Return the text of an open log file and close it."""
    with log:
        log.seek(0)
        return log.read().decode("utf-8", "replace")


def run_tasks(tasks, width, logs):
    """Run ``tasks``, ``width`` at once, started in their order; return {name: Outcome}.

    With a width of 1 the commands write to the terminal themselves. Otherwise their output is
    printed whole, in the order of ``tasks``, under a line ``== name``. Raises KeyboardInterrupt or
    SystemExit after Ctrl-C or SIGTERM, when all processes have ended.
    """
    aside = width > 1
    environment = environment_of(width) if aside else None
    waiting, running, outcomes, outputs = list(tasks), {}, {}, {}
    board = Board(task.name for task in tasks)
    with stop_signals() as stopped, watcher() as note:
        try:
            while (waiting or running) and not stopped:
                while waiting and len(running) < width and not stopped:
                    task = waiting.pop(0)
                    if not aside:
                        board.say(f"\n== {task.name}")
                    if task.command is None:
                        outcomes[task.name] = Outcome(None, time.time(), 0.0)
                        outputs[task.name] = ""
                        continue
                    if aside:
                        board.say(f"{task.name}: started")
                    log_path = logs / f"{task.name}.log" if aside else None
                    running[task.name] = start(task, log_path, environment)
                    note("+", running[task.name].process.pid)
                for name in [n for n, one in running.items() if one.process.poll() is not None]:
                    one = running.pop(name)
                    note("-", one.process.pid)
                    code, seconds = one.process.returncode, time.monotonic() - one.clock
                    outcomes[name] = Outcome(code, one.started, seconds)
                    if aside:
                        outputs[name] = text_of(one.log)
                        state = "finished" if code == 0 else f"ended with exit code {code}"
                        board.say(f"{name}: {state} in {seconds:.0f} s")
                if aside:
                    board.show(outputs)
                    board.draw(running)
                time.sleep(0 if waiting and len(running) < width else POLL_S)
        finally:
            end(running.values())
            for one in running.values():
                note("-", one.process.pid)
            if running and aside:
                board.say(f"stopped: {', '.join(running)}; output so far in {logs}")
    if signal.SIGINT in stopped:
        raise KeyboardInterrupt
    if stopped:
        sys.exit(143)
    return outcomes
