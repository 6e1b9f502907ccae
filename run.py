#!/usr/bin/env python3
"""Build the environments, run the demos, the tests and the benchmarks of every pipeline folder.

    python3 run.py demo  [folder ...] [--fresh]           synthetic data through every pipeline
    python3 run.py test  [folder ...] [--slow] [--data]   all tests, one pytest process per folder
    python3 run.py bench [folder ...]                     speed and memory beside a plain baseline
    python3 run.py gpu   [folder ...] [--tiny]            a GPU beside the processor, 8 minutes
    python3 run.py env   [name ...] [--device cpu|cuda]   environments only
    python3 run.py lock  [name ...] [--upgrade]           versions of the indirect packages
    python3 run.py clean                                  remove what this script made

demo and test run folders side by side where cores and memory allow; --jobs N sets how many.
Reads the folders that hold a requirements.txt and a main.py; writes .venvs/<name>/,
results/logs/<command>/<name>.log and results/index.html. Needs nothing but the standard library
of Python 3.9 or newer; uv and the packages of the pipelines are installed into .venvs/.
"""

import argparse
import errno
import json
import os
import signal
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

import gpu_day
import results_index
from accelerator import DEVICES, decide
from checkout import ROOT, VENVS, Fault, call, choose, find_folders
from locks import write_lock
from side_by_side import Task, choose_width, count_cores, run_tasks
from uv_install import find_uv
from venvs import build_all, find_environments, in_use, interpreter, remove_all, resolve

RESULTS = ROOT / "results"
LOGS = RESULTS / "logs"
# The longest first, so that what runs last beside an idle core is short. CPU seconds of the demos:
# 201, 185, 145, 166, 37; two at a time in this order they end together.
DEMOS_BY_LENGTH = ("sparks_unet", "rvf_twostream", "sleep_bilstm", "stcnn", "csd_darnn")
TESTS_BY_LENGTH = ("sleep_bilstm", "rvf_twostream", "stcnn", "csd_darnn", "sparks_unet", "root")


def print_table(header, rows):
    """Print ``rows`` under ``header`` in aligned columns."""
    rows = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        print(
            # (no strict=: the script has to start on Python 3.9)
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        )


def run_folders(tasks, by_length, options):
    """Run ``tasks`` side by side, the longest first; return {name: Outcome}."""
    width = choose_width(options.jobs, len(tasks))
    if width > 1:
        # An unknown folder may be long: it starts at once.
        tasks = sorted(tasks, key=lambda t: by_length.index(t.name) if t.name in by_length else -1)
        print(
            f"{width} at once, {max(1, count_cores() // width)} of {count_cores()} cores each; "
            "the output of each follows when it is complete, --jobs 1 shows it as it comes",
            flush=True,
        )
    return run_tasks(tasks, width, LOGS / options.command)


def demo(options):
    """Run the demo of each folder, write results/index.html, print the table of scores.

    A demo ends with 1 when a score with a target failed, also when it was complete before.
    """
    folders = choose(options.folders, find_folders(), "folder")
    flags = ["--demo", "--fresh"] if options.fresh else ["--demo"]
    rows, misses, usable = [], [], build_all(folders)
    tasks = [
        Task(folder, [str(interpreter(folder)), "main.py", *flags], ROOT / folder)
        for folder in folders
    ]
    tasks = [task if usable[task.name] else task._replace(command=None) for task in tasks]
    outcomes = run_folders(tasks, DEMOS_BY_LENGTH, options)
    for folder in folders:
        code, started, seconds = outcomes[folder]
        path = RESULTS / folder / "demo" / "summary.json"
        summary = results_index.read_summary(path) or {}
        missed = [s for s in summary.get("scores") or [] if s.get("passed") is False]
        state = "ok" if code == 0 else "missed" if code == 1 and missed else "failed"
        # A summary that is older than a failed run belongs to another run.
        if state == "failed" and not (path.exists() and path.stat().st_mtime >= started):
            summary = {}
        if state == "missed":
            misses += [f"missed in {folder}: {results_index.score_text(s)}" for s in missed]
        score = results_index.score_text(summary.get("planted_truth"))
        report = f"results/{folder}/demo/{summary['report']}" if "report" in summary else "none"
        rows.append((folder, state, f"{seconds:.0f}", score, report))
    page = results_index.write_index(RESULTS)
    print()
    print_table(("folder", "state", "seconds", "planted truth", "report"), rows)
    print("".join(f"{line}\n" for line in misses), end="")
    print(f"open {page.relative_to(ROOT)}")
    return int(any(state != "ok" for _, state, *_ in rows))


def pytest_task(name, cwd, tests, arguments, report):
    """Return the task that runs pytest on the folder ``tests`` below ``cwd``."""
    pytest = [str(interpreter(name)), "-m", "pytest", "-c", "pytest.ini"]
    # The tests' folder comes first: its conftest.py must be known when its options are read.
    return Task(name, [*pytest, tests, f"--junitxml={report}", *arguments], cwd)


def count_tests(report, code):
    """Return (passed, failed, skipped) of a run of pytest that ended with exit code ``code``."""
    if not report.exists():
        return 0, 1, 0
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    passed = max(0, total - failed - skipped)
    return passed, max(failed, int(code != 0)), skipped


def test(options):
    """Run the tests of each folder, then the root checks; print the closing line last."""
    folders = choose(options.folders, find_folders(), "folder")
    usable = build_all([*folders, "root"])
    marks = [f"not {mark}" for mark in ("slow", "data") if not getattr(options, mark)]
    selected = ["-m", " and ".join(marks)] if marks else []
    with tempfile.TemporaryDirectory() as scratch:
        reports = {name: Path(scratch) / f"{name}.xml" for name in (*folders, "root")}
        tasks = []
        for folder in folders:
            arguments = list(selected)
            for flag, base in (("--real", options.real), ("--fixtures", options.fixtures)):
                if base and (Path(base) / folder).is_dir():
                    arguments += [flag, str((Path(base) / folder).resolve())]
            tasks.append(pytest_task(folder, ROOT / folder, "tests", arguments, reports[folder]))
        tasks.append(pytest_task("root", ROOT / "tests", ".", selected, reports["root"]))
        tasks = [task if usable[task.name] else task._replace(command=None) for task in tasks]
        outcomes = run_folders(tasks, TESTS_BY_LENGTH, options)
        counts = [count_tests(reports[name], outcomes[name].code) for name in outcomes]
    passed, failed, skipped = (sum(column) for column in zip(*counts))
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return int(failed > 0)


def bench(options):
    """Run the benchmark of each folder and print one table of all of them."""
    folders = choose(options.folders, find_folders(), "folder")
    rows, usable, failed = [], build_all(folders), []
    for folder in folders:
        print(f"\n== {folder}", flush=True)
        if not usable[folder] or call(
            [str(interpreter(folder)), "benchmark.py"], cwd=ROOT / folder
        ):
            failed.append(folder)
            continue
        table = json.loads((RESULTS / folder / "benchmark" / "benchmark.json").read_text())
        for row in table["rows"]:
            cells = [
                row.get(key) for key in ("ours_s", "baseline_s", "ratio", "ours_mb", "baseline_mb")
            ]
            numbers = ["" if cell is None else f"{cell:.4g}" for cell in cells]
            rows.append((folder, row["what"], *numbers, row.get("target") or ""))
        print(f"machine: {table['machine']}")
    print()
    print_table(
        ("folder", "what", "ours s", "plain s", "ratio", "ours MB", "plain MB", "target"), rows
    )
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def gpu(options):
    """Compare a GPU with the processor in every folder and time it; builds nothing."""
    folders = choose(options.folders, find_folders(), "folder")
    return gpu_day.run(folders, options.device or "cuda", options.tiny)


def env(options):
    """Build environments only, for --device; --resolve prints what they would hold instead."""
    known = find_environments()
    names = choose(options.folders, known, "environment")
    if options.resolve:
        device, reason = decide(options.device)
        print(f"environments for {device} ({reason})", flush=True)
        for name in names:
            packages = resolve(known[name], device, demand_uv())
            print(f"\n{name}: {len(packages)} packages", *packages, sep="\n", flush=True)
        return 0
    usable = build_all(names, options.device)
    print_table(
        ("environment", "state"), [(n, "ready" if ok else "failed") for n, ok in usable.items()]
    )
    return int(not all(usable.values()))


def demand_uv():
    """Return the path of uv, without which nothing is resolved."""
    uv, why = find_uv()
    if not uv:
        raise Fault(f"uv is needed and cannot be had: {why}")
    return uv


def lock(options):
    """Write <folder>/requirements.lock: the versions of all indirect packages."""
    known = find_environments()
    for name in choose(options.folders, known, "environment"):
        write_lock(known[name], demand_uv(), options.upgrade)
    return 0


def clean(options):
    """Remove the environments and the index page; data and runs stay."""
    remove_all()
    (RESULTS / "index.html").unlink(missing_ok=True)
    print("removed .venvs and results/index.html; data/ and the runs in results/ stay")
    return 0


def positive(text):
    """Return ``text`` as a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1")
    return int(text)


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose complaint is one line, exit code 2."""

    def error(self, message):
        raise Fault(f"{message} (see python3 run.py --help)")


def parse(argv):
    """Return the parsed command line; an unknown option is a Fault naming the nearest one."""
    options = {
        "demo": {"--fresh": "start the demos anew"},
        "test": {"--slow": "also the tests marked slow", "--data": "also the tests marked data"},
        "bench": {},
        "gpu": {"--tiny": "small networks and data: a rehearsal"},
        "env": {"--resolve": "print the packages, install nothing"},
        "lock": {"--upgrade": "take the newest versions, also where the old ones still fit"},
        "clean": {},
    }
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    known = ["--help"]
    for name, flags in options.items():
        sub = commands.add_parser(name, help=globals()[name].__doc__, allow_abbrev=False)
        if name != "clean":
            sub.add_argument("folders", nargs="*", help="default: all")
        if name in ("demo", "test"):
            sub.add_argument("--jobs", type=positive, help="folders at once; default: all cores")
        if name == "env":
            sub.add_argument("--device", choices=DEVICES, help="auto: cuda beside an NVIDIA driver")
        if name == "gpu":
            sub.add_argument("--device", choices=("cuda", "cpu"), help="cpu: compared with itself")
        for flag, text in flags.items():
            sub.add_argument(flag, action="store_true", help=text)
        if name == "test":
            sub.add_argument("--real", help="folder with <folder>/ of real data for --data")
            sub.add_argument("--fixtures", help="folder with <folder>/ of other parity fixtures")
        known += [flag for action in sub._actions for flag in action.option_strings]
    if argv and not argv[0].startswith("-"):
        choose(argv[:1], list(options), "command")
    parsed, unknown = parser.parse_known_args(argv)
    choose([word.split("=")[0] for word in unknown], known, "option")
    return parsed


def main(argv=None):
    """Run one command; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        options = parse(argv if argv is not None else sys.argv[1:])
        if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
            # Each start would compile a framework anew, 2 to 5 s: bytecode lies apart instead.
            os.environ.setdefault("PYTHONPYCACHEPREFIX", str(VENVS / "bytecode"))
        with in_use(alone=options.command == "clean"):
            return globals()[options.command](options)
    except Fault as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    except OSError as fault:
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        place = fault.filename or ROOT
        print(f"error: {place} cannot be written: {fault.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
