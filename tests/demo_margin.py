#!/usr/bin/env python3
"""Run every demo on other seeds and arithmetic; print how far each score is from its target.

    python3 tests/demo_margin.py [folder ...] [--seeds 2] [--out FILE] [--pythons FOLDER]

Outside CI: ten runs of each demo take about a quarter of an hour a folder on two cores. A run is
``python main.py --demo --seed N`` in a copy of the folder, once on one core with the default
kernels and once on two threads with other kernels (``ATEN_CPU_CAPABILITY=avx2`` for PyTorch,
oneDNN off for TensorFlow). Appends a row per score and run to FILE (CSV: folder, seed, arithmetic,
score, value, target, margin, passed, seconds); what stands there already is not run again, so a
stopped call goes on. Ends with 1 when a target was missed or when the worst margin of a demo's
main score is below half of its median.
"""

import argparse
import csv
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = {"sleep_bilstm": 42}
TENSORFLOW = ("sleep_bilstm", "rvf_twostream")
ONE, OTHER = "one thread", "two threads, other kernels"
COLUMNS = (
    "folder", "seed", "arithmetic", "score", "value", "target", "margin", "passed", "seconds",
    "main",
)  # fmt: skip
NUMBER = r"(-?\d+(?:\.\d+)?)"
MEDIAN_SHARE = 0.5  # the worst margin may not be below this share of the median margin


def margin(value, target):
    """Return how far ``value`` is inside ``target`` (negative: missed), None without a bound."""
    if value is None or not target:
        return None
    if found := re.search(rf"{NUMBER} (?:to|-) {NUMBER}", target):
        low, high = map(float, found.groups())
        return min(value - low, high - value)
    if found := re.search(rf"within {NUMBER} ?% of {NUMBER}", target):
        share, wanted = map(float, found.groups())
        return wanted * share / 100 - abs(value - wanted)
    if found := re.search(rf"within \+-{NUMBER}", target):
        return float(found.group(1)) - abs(value)
    if found := re.findall(rf"(?:>=|>|at least|above) ?{NUMBER}", target):
        return value - max(map(float, found))  # "> 0 and > 0.055": the tighter one
    if found := re.search(rf"(<=|<|at most|below) ?{NUMBER}", target):
        return float(found.group(2)) - (abs(value) if target.startswith("|") else value)
    return None


def run_once(folder, seed, arithmetic, cores, python):
    """Run one demo in a copy of ``folder``; return its rows (dicts of COLUMNS)."""
    environment = dict(os.environ)
    threads = str(len(cores))
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"]
    if folder in TENSORFLOW:
        names += ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]
    # Threads that wait without turning leave the cores to others and change no number.
    environment |= dict.fromkeys(names, threads) | {"OMP_WAIT_POLICY": "PASSIVE"}
    if arithmetic == OTHER:
        environment |= (
            {"TF_ENABLE_ONEDNN_OPTS": "0"}
            if folder in TENSORFLOW
            else {"ATEN_CPU_CAPABILITY": "avx2"}
        )
    with tempfile.TemporaryDirectory(prefix="margin_") as scratch:
        copy = Path(scratch) / folder
        leave_out = shutil.ignore_patterns("__pycache__", "tests")
        shutil.copytree(ROOT / folder, copy, ignore=leave_out)
        started = time.monotonic()
        done = subprocess.run(
            [str(python), "main.py", "--demo", "--seed", str(seed)],
            cwd=copy, env=environment, capture_output=True, text=True, check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        seconds = round(time.monotonic() - started)
        path = Path(scratch) / "results" / folder / "demo" / "summary.json"
        if not path.exists():
            raise SystemExit(f"{folder} seed {seed}: exit {done.returncode}\n{done.stderr[-2000:]}")
        summary = json.loads(path.read_text(encoding="utf-8"))
    main = (summary.get("planted_truth") or {}).get("name")
    return [
        {
            "folder": folder, "seed": seed, "arithmetic": arithmetic, "score": score["name"],
            "value": score["value"], "target": score.get("target") or "",
            "margin": margin(score["value"], score.get("target")), "passed": score.get("passed"),
            "seconds": seconds, "main": score["name"] == main,
        }
        for score in summary["scores"]
    ]  # fmt: skip


def read_rows(path):
    """Return the rows of an earlier call, values as text."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def verdict(rows):
    """Print the table of all scores with a target; return the lines of what does not hold."""
    bad = []
    groups = {}
    for row in rows:
        if row["target"]:
            groups.setdefault((row["folder"], row["score"]), []).append(row)
    print(f"{'folder':14} {'score':58} {'target':>12} runs missed   median    worst  share")
    for (folder, name), group in groups.items():
        margins = [margin(float(row["value"]), row["target"]) for row in group if row["value"]]
        margins = sorted(inside for inside in margins if inside is not None)
        missed = sum(str(row["passed"]) == "False" for row in group)
        if missed:
            bad.append(f"{folder}: {name} missed in {missed} of {len(group)} runs")
        cells = " " * 24
        if margins:
            middle, worst = statistics.median(margins), margins[0]
            share = worst / middle if middle else 0.0
            cells = f"{middle:8.3f} {worst:8.3f} {share:6.2f}"
            if share < MEDIAN_SHARE and str(group[0]["main"]) == "True":
                bad.append(f"{folder}: {name}: worst margin {worst:.3f}, median {middle:.3f}")
        target = group[0]["target"]
        print(f"{folder:14} {name[:58]:58} {target[-12:]:>12} {len(group):4} {missed:6} {cells}")
    return bad


def main(argv=None):
    """Run what is missing, print the table; return 1 when something does not hold."""
    known = sorted(path.parent.name for path in ROOT.glob("*/main.py"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds; default 5")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "demo_margin.csv")
    parser.add_argument(
        "--pythons", type=Path, default=ROOT / ".venvs", help="folder with <folder>/bin/python"
    )
    args = parser.parse_args(argv)
    args.folders = args.folders or known
    if strange := set(args.folders) - set(known):
        parser.error(f"no folder named {', '.join(sorted(strange))}; known: {', '.join(known)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    ready = {(row["folder"], row["seed"], row["arithmetic"]) for row in read_rows(args.out)}
    cores = sorted(os.sched_getaffinity(0))

    def keep(rows):
        new = not args.out.exists()
        with open(args.out, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerows(rows)
        head = rows[0]
        missed = [row["score"] for row in rows if row["passed"] is False]
        print(
            f"{head['folder']} seed {head['seed']}, {head['arithmetic']}: {head['seconds']} s"
            + (f", missed: {'; '.join(missed)}" if missed else ""),
            flush=True,
        )

    jobs = [
        (folder, FIRST_SEED.get(folder, 0) + k, arithmetic)
        for arithmetic in (ONE, OTHER)
        for folder in args.folders
        for k in range(args.seeds)
    ]
    jobs = [job for job in jobs if (job[0], str(job[1]), job[2]) not in ready]
    alone = [job for job in jobs if job[2] == ONE]
    free = list(cores)

    def on_one_core(job):
        core = free.pop()
        try:
            return run_once(*job, {core}, args.pythons / job[0] / "bin" / "python")
        finally:
            free.append(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        for rows in pool.map(on_one_core, alone):
            keep(rows)
    for job in jobs:
        if job[2] == OTHER:
            keep(run_once(*job, set(cores[:2]), args.pythons / job[0] / "bin" / "python"))
    bad = verdict([row for row in read_rows(args.out) if row["folder"] in args.folders])
    print("".join(f"{line}\n" for line in bad) or "all hold\n", end="")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
