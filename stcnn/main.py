"""The whole story: data, training, held-out evaluation, figures, report.

    python main.py --demo                                             # synthetic, planted truth
    python main.py dataset=lc_small model=stcnn_exp_leakyrelu_bn      # your recordings

The settings are the YAML files in conf/; each can be changed as key=value. Reads data/stcnn/...,
writes results/stcnn/<run>/: settings.json, model/ (checkpoints, log.csv, scores.csv, items.csv),
control/ (the same training on shuffled labels, with planted truth), figures with their CSV,
report.html, summary.json.
"""

import contextlib
import csv
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from common.device import describe_device
from common.files import (
    InputError,
    Parser,
    atomic_path,
    one_line_faults,
    open_run,
    plain_name,
    read_json,
    seed_number,
    write_settings,
)
from common.report import close_run

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "stcnn"
LIBRARIES = ("torch", "hydra-core", "numpy", "scipy")
# Settings that may differ between two calls of the same run.
FREE = ("device", "num_workers", "print_freq", "debug")


def parse(argv):
    """Return the parsed flags; what looks like key=value goes to the configuration."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("overrides", nargs="*", help="settings of conf/ as key=value, such as lr=0.001")
    add("--demo", action="store_true", help="synthetic data with planted truth")
    add("--full", action="store_true", help="with --demo: the larger demo")
    add("--fresh", action="store_true", help="start the run anew")
    add("--seed", type=seed_number, default=0, help="seed of every random choice")
    add("--run", help="name of the run, its folder in the results; default: demo, demo_full, main")
    add(
        "--device",
        choices=("auto", "cpu", "gpu", "cuda"),
        default="auto",
        help="where to compute: auto, cpu, gpu or cuda",
    )
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    if args.full and not args.demo:
        raise InputError("--full belongs to --demo")
    default = "demo_full" if args.full else "demo" if args.demo else "main"
    args.run = default if args.run is None else plain_name(args.run)
    args.device = "cuda" if args.device == "gpu" else args.device
    return args


def settle(args):
    """Return the resolved settings of the run."""
    from configuration import compose_settings

    preset = ["preset=demo_full" if args.full else "preset=demo"] if args.demo else []
    fixed = [f"seed={args.seed}", f"device={args.device}"]
    return compose_settings([*preset, *args.overrides, *fixed])


def say_device(wanted):
    """Print where the run computes."""
    from training import pick_device

    place = pick_device(wanted)
    print(describe_device("torch", str(place), asked=wanted != "auto"), flush=True)


def train_both(run_dir, settings, with_control, pool):
    """Train the model and its control, beside it in the process of ``pool`` or after it."""
    from training import train

    control = {**settings, "shuffle_labels": True}
    place = {"run_dir": run_dir / "control", "score_training": False}
    beside = pool.submit(train, control, **place) if pool and with_control else None
    train(settings, run_dir=run_dir / "model")
    if beside:
        beside.result()
    elif with_control:
        train(control, **place)


def n_cores():
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity


@contextlib.contextmanager
def one_thread():
    """Compute on one thread: the same numbers whatever the number of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def side_process():
    """Yield a pool of one process that imports the framework while the data is made.

    A fault or Ctrl-C ends it at once. On a single core it would only take memory: yield None.
    """
    if n_cores() < 2:
        yield None
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_prepare_process) as pool:
        # The process inherits it, while it starts as well: Ctrl-C is answered by the parent.
        answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
        pool.submit(int)  # starts the process; nothing else to do yet
        signal.signal(signal.SIGINT, answer)
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _prepare_process():
    import logging

    import torch

    import training  # noqa: F401 (the import is the work)

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)


def truth_file(settings):
    """Return the path of the planted truth of a synthetic set."""
    return Path(settings["dataset"]["ca_path"]).parent / "truth.json"


def ensure_data(settings, seed):
    """Make the synthetic set when it is absent or was made otherwise; return its truth."""
    from make_synthetic import RECIPE, make_synthetic

    recipe = settings["dataset"].get("make")
    record = truth_file(settings)
    folder = record.parent
    if recipe:
        recipe["seed"] = seed
        wanted = {key: recipe[key] for key in ("seed", "hz", "px", "stimuli")}
        wanted["recipe"] = RECIPE
        old = read_json(record, remedy="remove it") if record.is_file() else {}
        if any(old.get(key) != value for key, value in wanted.items()):
            print(f"making the synthetic set in {folder}")
            make_synthetic(folder, **recipe)
    if not record.is_file():
        return None
    truth = read_json(record, remedy="remove it")
    return truth if truth.get("teacher") == "analytic" else None


@one_line_faults
def main(argv=None):
    """Run the story; exit code 1 when a score misses its target, on reuse as well."""
    args = parse(sys.argv[1:] if argv is None else argv)
    begun = time.monotonic()
    settings = settle(args)
    run_dir = RESULTS / args.run
    if not args.fresh and open_run(run_dir, settings, free=FREE):
        print(f"{run_dir} is complete; --fresh starts anew")
        return close_run(run_dir)
    say_device(args.device)  # before --fresh removes a run: it may be refused
    open_run(run_dir, settings, fresh=args.fresh, free=FREE)
    write_settings(run_dir, settings, libraries=LIBRARIES)
    # planted tuning is scored on held-out stimuli only
    holds_out = settings["val_fraction"] > 0 or bool(settings["val_stimuli"])
    with contextlib.ExitStack() as stack:
        pool = None
        if holds_out and settings["dataset"].get("make") and settings["device"] != "cuda":
            stack.enter_context(one_thread())
            pool = stack.enter_context(side_process())
        truth = ensure_data(settings, args.seed)
        if truth is None:
            from training import data_files

            inputs = data_files(settings)
        else:
            inputs = [truth_file(settings)]
        write_settings(run_dir, settings, inputs=inputs, libraries=LIBRARIES)
        truth = truth if holds_out else None
        train_both(run_dir, settings, truth is not None, pool)
    import story

    with atomic_path(run_dir / "log.csv") as temporary:
        shutil.copyfile(run_dir / "model" / "log.csv", temporary)
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
    kind = "synthetic recordings with planted tuning" if truth else settings["dataset"]["name"]
    story.write_story(
        run_dir, title="Calcium of fly visual neurons from movies", data=kind,
        seconds=time.monotonic() - begun,
        seed=args.seed, scores=scores, main_score=main_score, figures=figures, quality=quality,
    )  # fmt: skip
    for entry in scores:
        print(f"{entry['name']}: {entry['value']} ({entry['target'] or 'no target'})")
    return close_run(run_dir)


if __name__ == "__main__":
    sys.exit(main())
