"""The whole story: data, training, held-out evaluation, figures, report.

    python main.py --demo                                             # synthetic, planted truth
    python main.py dataset=lc_small model=stcnn_exp_leakyrelu_bn      # your recordings

The settings are the YAML files in conf/; each can be changed as key=value. Reads data/stcnn/...,
writes results/stcnn/<run>/: settings.json, model/ (checkpoints, log.csv, scores.csv, items.csv),
control/ (the same training on shuffled labels, with planted truth), figures with their CSV,
report.html, summary.json.
"""

import contextlib
import json
import shutil
import sys
import time
from pathlib import Path

from files import InputError, Parser, one_line_faults, write_json

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "stcnn"


def parse(argv):
    """Return the parsed flags; what looks like key=value goes to the configuration."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("overrides", nargs="*", help="settings of conf/ as key=value, such as lr=0.001")
    add("--demo", action="store_true", help="planted truth: make data, train, check, draw")
    add("--full", action="store_true", help="the demo in the specification's own size")
    add("--fresh", action="store_true", help="start the run anew")
    add("--seed", type=int, default=0, help="of everything random")
    add("--run", default=None, help="name of the results folder (default demo or main)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model trains")
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    args.run = args.run or ("demo_full" if args.full else "demo" if args.demo else "main")
    if Path(args.run).name != args.run or args.run.startswith("."):
        parser.error(f"--run {args.run}: expected a plain name")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: expected 0 or more")
    return args


def settle(args):
    """Return the resolved settings of the run."""
    from configuration import compose_settings

    preset = ["preset=demo_full" if args.full else "preset=demo"] if args.demo or args.full else []
    fixed = [f"seed={args.seed}", f"device={args.device}"]
    return compose_settings([*preset, *args.overrides, *fixed])


def prepare(run_dir, settings, fresh):
    """Make the run folder; return True when the run is already complete."""
    record = run_dir / "settings.json"
    if fresh:
        shutil.rmtree(run_dir, ignore_errors=True)
    if record.is_file():
        old = json.loads(record.read_text(encoding="utf-8"))["settings"]
        changed = sorted(key for key in settings if old.get(key) != settings[key])
        if changed:
            raise InputError(
                f"{run_dir}: holds a run with other settings ({', '.join(changed)}); use "
                "--fresh to start "
                "it anew, or another --run NAME"
            )
        return (run_dir / "summary.json").is_file()
    run_dir.mkdir(parents=True, exist_ok=True)
    return False


def train_both(run_dir, settings, with_control, pool):
    """Train the model and, beside it in another process of ``pool``, its control."""
    from training import train

    jobs = {"model": settings}
    if with_control:
        jobs["control"] = {**settings, "shuffle_labels": True}
    if len(jobs) == 1 or pool is None:
        for name, job in jobs.items():
            train(job, run_dir=run_dir / name)
        return
    for future in [pool.submit(train, job, run_dir=run_dir / name) for name, job in jobs.items()]:
        future.result()


def two_processes():
    """Return a pool of two processes that import the framework while the data is made."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(2, mp_context=context, initializer=_prepare_process)
    for _ in range(2):
        pool.submit(int)  # starts a process; nothing else to do yet
    return pool


def _prepare_process():
    import logging

    import torch

    import training  # noqa: F401 (the import is the work)

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)


def ensure_data(settings, seed):
    """Make the synthetic set when it is absent or was made otherwise; return its truth."""
    from make_synthetic import make_synthetic

    recipe = settings["dataset"].get("make")
    folder = Path(settings["dataset"]["ca_path"]).parent
    record = folder / "truth.json"
    if recipe:
        recipe["seed"] = seed
        wanted = {key: recipe[key] for key in ("seed", "hz", "px", "stimuli")}
        old = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        if any(old.get(key) != value for key, value in wanted.items()):
            print(f"making the synthetic set in {folder}")
            make_synthetic(folder, **recipe)
    if not record.is_file():
        return None
    truth = json.loads(record.read_text(encoding="utf-8"))
    return truth if truth.get("teacher") == "analytic" else None


@one_line_faults
def main(argv=None):
    """Run the story; exit code 1 when a planted-truth score misses its target."""
    args = parse(sys.argv[1:] if argv is None else argv)
    begun = time.monotonic()
    settings = settle(args)
    run_dir = RESULTS / args.run
    if prepare(run_dir, settings, args.fresh):
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
        print(f"{args.run} is complete ({summary['seconds']} s); --fresh starts it anew: {run_dir}")
        return 0
    from files import write_settings

    write_settings(run_dir, settings, libraries=("torch", "hydra-core", "numpy", "scipy"))
    # planted tuning is scored on held-out stimuli only
    holds_out = settings["val_fraction"] > 0 or bool(settings["val_stimuli"])
    with contextlib.ExitStack() as stack:
        pool = None
        if holds_out and settings["dataset"].get("make") and settings["device"] != "cuda":
            pool = stack.enter_context(two_processes())
        truth = ensure_data(settings, args.seed)
        truth = truth if holds_out else None
        train_both(run_dir, settings, truth is not None, pool)
    import csv

    import story

    control_dir = run_dir / "control" if truth is not None else None
    main_score, scores = None, []
    if truth is not None:
        least = story.PEAK_TARGET_FULL if args.full else story.PEAK_TARGET
        main_score, scores = story.planted_scores(
            run_dir / "model", control_dir, truth, least=least
        )
    figures, _ = story.draw_story(run_dir, run_dir / "model", settings, truth, control_dir)
    with open(run_dir / "model" / "scores.csv", newline="") as handle:
        quality = list(csv.DictReader(handle))
    seconds = time.monotonic() - begun
    kind = "synthetic recordings with planted tuning" if truth else settings["dataset"]["name"]
    story.write_story(
        run_dir, title="Calcium of fly visual neurons from movies", data=kind,
        seconds=seconds,
        seed=args.seed, scores=scores, main_score=main_score, figures=figures, quality=quality,
    )  # fmt: skip
    write_json(run_dir / "scores.json", scores)
    for entry in scores:
        print(f"{entry['name']}: {entry['value']} ({entry['target'] or 'no target'})")
    head = f"{main_score['name']} {main_score['value']}" if main_score else "no planted truth"
    print(f"{head}, {seconds:.0f} s: {run_dir / 'report.html'}")
    return 1 if any(entry["passed"] is False for entry in scores) else 0


if __name__ == "__main__":
    sys.exit(main())
