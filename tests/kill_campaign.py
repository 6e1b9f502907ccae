"""Kill each stage of each folder at its renames, flushes and links, and start it again.

    python3 tests/kill_campaign.py                            # all stages, six kills each
    python3 tests/kill_campaign.py stcnn --stages train --kills 20
    python3 tests/kill_campaign.py --list

A stage is a command line on tiny data. It runs once without disturbance and once more to learn
which files differ between two such runs (times). Then it is killed (SIGKILL, with its workers)
before its k-th os.replace, os.rename, os.link or os.fsync below its data, and the same command is
given again: it must end well, with the same bytes in every file, no file lost, added or left
hidden. At last the command is started twice at once: one must be told who writes.
Containers that hold times (HDF5, ZIP) count by what is in them. Prints a table and the faults;
exit code 1 when there is one. Minutes of CPU a folder: no part of the tests.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from campaign_stages import FOLDERS, Stage

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 900
# Loaded by every Python below: counts what makes a write final and kills at the chosen one.
INJECTOR = """
import os, signal, time
_log, _below = os.environ.get("CAMPAIGN_LOG"), os.environ.get("CAMPAIGN_BELOW")
_at, _pause = int(os.environ.get("CAMPAIGN_AT", 0)), "CAMPAIGN_PAUSE" in os.environ

def _place(argument):
    if isinstance(argument, int):
        try:
            return os.readlink(f"/proc/self/fd/{argument}")
        except OSError:
            return ""
    return os.path.abspath(os.fsdecode(argument))

def _wrap(name):
    real = getattr(os, name)
    def counted(*arguments, **more):
        if any(_place(one).startswith(_below) for one in arguments[:2]):
            log = os.open(_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(log, name[0].encode())
            count = os.fstat(log).st_size
            os.close(log)
            if count == _at and _pause:
                open(_log + ".paused", "w").close()
                while not os.path.exists(_log + ".go"):
                    time.sleep(0.05)
            elif count == _at:
                os.killpg(0, signal.SIGKILL)
        return real(*arguments, **more)
    setattr(os, name, counted)

if _log:
    for _name in ("replace", "rename", "link", "fsync"):
        _wrap(_name)
"""
# Prints {path: digest} of a folder; run by the folder's Python, which may have h5py.
SNAPSHOT = r"""
import hashlib, json, re, sys, zipfile
from pathlib import Path
root, found = Path(sys.argv[1]), {}

def digest(path):
    parts = hashlib.sha256()
    if path.suffix in (".h5", ".mat", ".hdf5"):
        try:
            import h5py
            with h5py.File(path) as file:
                def add(name, item):
                    if isinstance(item, h5py.Dataset):
                        parts.update(name.encode() + str(item.dtype).encode() + item[()].tobytes())
                file.visititems(add)
            return parts.hexdigest()
        except (ImportError, OSError):
            pass
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            for one in file.infolist():  # PyTorch names the folder in it after the file
                parts.update(one.filename.partition("/")[2].encode() + b"%d" % one.CRC)
        return parts.hexdigest()
    text = path.read_bytes()
    if path.suffix in (".json", ".html"):  # the commit may change while the campaign runs
        text = re.sub(rb"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])", b"COMMIT", text)
        # a time in tenths of a second is the same twice by chance, and then another one
        text = re.sub(rb'"seconds": ?[0-9.]+', b'"seconds": 0', text)
    return hashlib.sha256(text).hexdigest()

dated = sorted({part for path in root.rglob("*") for part in path.relative_to(root).parts
                if re.match(r"\d{8}[_-]\d{6}", part)})
names = {name: "DATED" if name == dated[-1] else "DATED BEFORE" for name in dated}
for path in sorted(root.rglob("*")):
    if path.is_file() and "__pycache__" not in path.parts:
        parts = [names.get(part, part) for part in path.relative_to(root).parts]
        found["/".join(parts)] = digest(path)
print(json.dumps(found))
"""


class Row(NamedTuple):
    """What the campaign found out about a stage."""

    stage: str
    operations: int
    kills: int
    equal: int
    twice: str
    varying: int
    faults: list


class Bench:
    """The work folder of one pipeline folder, its state before a stage, and how to run there."""

    def __init__(self, folder: Path, python: str, scratch: Path):
        self.folder, self.python, self.scratch = folder, python, scratch
        self.work, self.base = scratch / "work", scratch / "base"
        self.work.mkdir(parents=True)
        (scratch / "site").mkdir()
        (scratch / "site" / "sitecustomize.py").write_text(INJECTOR)
        self.log = scratch / "operations"

    def expand(self, words):
        """Return a command line with its places filled in."""
        newest = [p for p in self.work.glob("runs/*") if (p / "config.json").exists()]
        places = {"w": self.work, "newest": max(newest, default="")}
        return [self.python, *(word.format(**places) for word in words)]

    def command(self, stage: Stage, *, again: bool = False):
        """Return the command line of a stage, or the one that goes on after a kill."""
        if again and stage.again:
            words = self.expand(stage.again)
            if all(word.split("=")[-1] for word in words):  # there is something to go on with
                return words
        return self.expand(stage.command)

    def start(self, command, *, at: int = 0, pause: bool = False, count: bool = True):
        """Start a command in a process group of its own; ``at`` is where it is killed or paused."""
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        threads = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
        environment = {**os.environ, **quiet, **threads, "TF_NUM_INTEROP_THREADS": "1"}
        if count:
            self.log.unlink(missing_ok=True)
            environment |= {"PYTHONPATH": str(self.scratch / "site"), "CAMPAIGN_AT": str(at)}
            environment |= {"CAMPAIGN_LOG": str(self.log), "CAMPAIGN_BELOW": str(self.work)}
            environment |= {"CAMPAIGN_PAUSE": "1"} if pause else {}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command, **how):
        """Run a command; return (exit code, the last lines of what it said)."""
        process = self.start(command, **how)
        text, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, " | ".join(text.strip().splitlines()[-3:])

    def reset(self):
        """Bring the work folder back to its state before the stage, hard links too."""
        shutil.rmtree(self.work)
        subprocess.run(["cp", "-a", self.base, self.work], check=True)

    def keep(self):
        """Make the present work folder the state before the next stage."""
        shutil.rmtree(self.base, ignore_errors=True)
        subprocess.run(["cp", "-a", self.work, self.base], check=True)

    def snapshot(self) -> dict:
        """Return {path: digest} of the work folder."""
        done = subprocess.run(
            [self.python, "-c", SNAPSHOT, self.work], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)


def differences(expected: dict, found: dict, varying: set) -> list[str]:
    """Return what is lost, added or other in ``found``; ``varying`` files may differ."""
    lost = [f"lost {name}" for name in expected if name not in found]
    added = [f"added {name}" for name in found if name not in expected]
    other = [
        f"other {name}"
        for name in expected
        if name in found and found[name] != expected[name] and name not in varying
    ]
    return lost + added + other


def spread(operations: int, kills: int) -> list[int]:
    """Return at most ``kills`` of the places 1 to ``operations``: first, last, those between."""
    if operations <= kills:
        return list(range(1, operations + 1))
    if kills == 1:
        return [(operations + 1) // 2]
    return sorted({1 + round(k * (operations - 1) / (kills - 1)) for k in range(kills)})


def try_twice(bench: Bench, stage: Stage, operations: int, expected: dict, varying: set):
    """Start a stage while another one of it is half-way; return (word for the table, faults)."""
    bench.reset()
    for mark in (".paused", ".go"):
        Path(f"{bench.log}{mark}").unlink(missing_ok=True)
    first = bench.start(bench.command(stage), at=(operations + 1) // 2, pause=True)
    until = time.monotonic() + PATIENCE_S
    while not Path(f"{bench.log}.paused").exists() and first.poll() is None:
        time.sleep(0.05)
        if time.monotonic() > until:
            break
    code, said = bench.run(bench.command(stage), count=False)
    Path(f"{bench.log}.go").touch()
    text, _ = first.communicate(timeout=PATIENCE_S)
    faults = []
    if first.returncode != stage.code:
        faults.append(f"twice: the first ended with {first.returncode}: {text[-300:]}")
    if stage.own_folder:  # each start makes a run folder of its own
        return "own folders" if code == stage.code else f"code {code}", faults
    faults += [f"twice: {line}" for line in differences(expected, bench.snapshot(), varying)]
    if code == 2 and "is being written by process" in said:
        return "refused", faults
    faults.append(f"twice: the second ended with {code}: {said}")
    return f"code {code}", faults


def try_stage(bench: Bench, stage: Stage, kills: int, *, twice: bool) -> Row:
    """Run the campaign on one stage; leave the work folder as an uninterrupted run leaves it."""
    bench.keep()
    snapshots, operations = [], 0
    for _ in range(2):
        bench.reset()
        code, said = bench.run(bench.command(stage))
        if code != stage.code:
            return Row(stage.name, 0, 0, 0, "", 0, [f"ends with {code} undisturbed: {said}"])
        operations = bench.log.stat().st_size if bench.log.exists() else 0
        snapshots.append(bench.snapshot())
    expected = snapshots[0]
    varying = {name for name in expected if snapshots[1].get(name) != expected[name]}
    faults, equal, places = [], 0, spread(operations, kills)
    for place in places:
        bench.reset()
        code, said = bench.run(bench.command(stage), at=place)
        if code != -9:
            faults.append(f"kill {place}: ended with {code} before it: {said}")
            continue
        code, said = bench.run(bench.command(stage, again=True), count=False)
        wrong = [] if code == stage.code else [f"started again it ends with {code}: {said}"]
        wrong = wrong or differences(expected, bench.snapshot(), varying)
        equal += not wrong
        faults += [f"kill {place} of {operations}: {line}" for line in wrong[:4]]
    word = ""
    if twice and operations:
        word, more = try_twice(bench, stage, operations, expected, varying)
        faults += more
    bench.reset()
    bench.run(bench.command(stage), count=False)
    return Row(stage.name, operations, len(places), equal, word, len(varying), faults)


def campaign(folder: Path, python: str, stages: list[Stage], prepare: str, options) -> list[Row]:
    """Try the stages of one folder in their order; each builds on what the former ones made."""
    scratch = Path(tempfile.mkdtemp(prefix=f"campaign_{folder.name}_", dir=options.scratch))
    rows = []
    try:
        bench = Bench(folder, python, scratch)
        code, said = bench.run([python, "-c", prepare, str(bench.work)], count=False)
        if code:
            return [Row("prepare", 0, 0, 0, "", 0, [f"ends with {code}: {said}"])]
        for stage in stages:
            if options.stages and stage.name not in options.stages:
                code, said = bench.run(bench.command(stage), count=False)
                if code != stage.code:
                    rows.append(Row(stage.name, 0, 0, 0, "", 0, [f"ends with {code}: {said}"]))
                    break
                continue
            rows.append(try_stage(bench, stage, options.kills, twice=not options.once))
            print_row(folder.name, rows[-1])
            if rows[-1].faults and rows[-1].operations == 0:
                break  # the next stages lack what this one makes
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return rows


def print_row(folder: str, row: Row) -> None:
    """Print one line of the table and its faults below."""
    print(
        f"| {folder} {row.stage} | {row.operations} | {row.kills} | {row.equal} | {row.twice} "
        f"| {row.varying} |",
        *(f"    {line}" for line in row.faults[:12]),
        sep="\n",
        flush=True,
    )


def main(argv=None):
    """Run the campaign; return 1 when a stage has a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help="default: all")
    parser.add_argument("--stages", nargs="+", help="names of stages; default: all")
    parser.add_argument("--kills", type=int, default=6, help="at most, a stage")
    parser.add_argument("--once", action="store_true", help="do not start a stage twice at once")
    parser.add_argument("--scratch", type=Path, help="where the data go; default: the system's")
    parser.add_argument("--list", action="store_true", help="print the stages")
    options = parser.parse_args(argv)
    print("| stage | operations | kills | equal | twice at once | files that always differ |")
    print("|---|---|---|---|---|---|")
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # each start would compile a framework anew
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".venvs" / "bytecode"))
    broken = False
    for name in options.folders or FOLDERS:
        prepare, stages = FOLDERS[name.rstrip("/")]
        if options.list:
            print(*(f"{name} {stage.name}" for stage in stages), sep="\n")
            continue
        python = str(ROOT / ".venvs" / name / "bin" / "python")
        rows = campaign(ROOT / name, python, stages, prepare, options)
        if rows and rows[-1].stage == "prepare":
            print_row(name, rows[-1])
        broken |= any(row.faults for row in rows)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
