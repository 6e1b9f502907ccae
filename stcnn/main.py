"""The whole story: data, training, held-out evaluation, figures, report.

    python main.py --demo                                             # synthetic, planted truth
    python main.py dataset=lc_small model=stcnn_exp_leakyrelu_bn      # your recordings

The settings are the YAML files in conf/; each can be changed as key=value. Reads data/stcnn/...,
writes results/stcnn/<run>/: settings.json, model/ (checkpoints, log.csv, scores.csv, items.csv),
control/ (the same training on shuffled labels, with planted truth), figures with their CSV,
report.html, summary.json.
"""

import contextlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import (
    RESULTS_DIR,
    InputError,
    Parser,
    one_line_faults,
    open_run,
    plain_name,
    read_json,
    seed_number,
    write_settings,
)
from common.report import close_run

RESULTS = RESULTS_DIR
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
    add(
        "--config-dir",
        action="append",
        default=[],
        help="folder with YAML files of your own: dataset/, model/, preset/",
    )
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    if args.full and not args.demo:
        raise InputError("--full belongs to --demo")
    default = "demo_full" if args.full else "demo" if args.demo else "main"
    args.run = default if args.run is None else plain_name(args.run)
    args.device = "cuda" if args.device == "gpu" else args.device
    return args


@one_line_faults
def main(argv=None):
    """Run the story; exit code 1 when a score misses its target, on reuse as well."""
    args = parse(sys.argv[1:] if argv is None else argv)
    begun = time.monotonic()
    from runs.configuration import run_settings

    settings = run_settings(args)
    run_dir = RESULTS / args.run
    if not args.fresh and open_run(run_dir, settings, free=FREE):
        inputs = read_json(run_dir / "settings.json", remedy="use --fresh").get("inputs", {})
        if any("/" in name for name in inputs):  # recordings, no planted truth
            from runs.pipeline import check_data

            check_data(run_dir, settings)
        print(f"{run_dir} is complete; --fresh starts anew")
        return close_run(run_dir)
    from runs import pipeline
    from runs.data import is_synthetic

    pipeline.say_device(args.device)  # before --fresh removes a run: it may be refused
    open_run(run_dir, settings, fresh=args.fresh, free=FREE)
    write_settings(run_dir, settings, libraries=LIBRARIES)
    planted = None
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(pipeline.side_process(settings))
        if is_synthetic(settings):
            from demo.planted import plant

            planted = plant(settings, args.seed, full=args.full)
        inputs = pipeline.inputs_of(settings, planted is not None)
        write_settings(run_dir, settings, inputs=inputs, libraries=LIBRARIES)
        planted = planted if pipeline.holds_out(settings) else None
        pipeline.train_both(run_dir, settings, planted is not None, pool)
    pipeline.tell(run_dir, settings, planted, begun=begun)
    return close_run(run_dir)


if __name__ == "__main__":
    sys.exit(main())
