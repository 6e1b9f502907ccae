"""The whole story: check the data, train, predict unseen movies, measure, draw, report.

Follows Dotti et al., Cell Calcium 2024, 102893: 3D U-Net, post-processing, event metrics.

    python main.py                     # config.ini of this folder on data/sparks_unet
    python main.py --demo              # synthetic movies with planted truth

Reads: an INI file; per movie NN ``NN_video.tif`` (T, H, W), ``NN_class_label.tif`` and
``NN_event_label.tif`` (same shape).
Writes to results/sparks_unet/<run>/: settings.json, config.ini, log.csv, network_*.pth,
predictions/ (TIFF stacks, event tables, overlays), metrics.json, summary.csv, figures with the CSV
behind each, report.html and, last, summary.json.
"""

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

from common.device import describe_device
from common.files import (
    FOLDER,
    InputError,
    Parser,
    atomic_path,
    one_line_faults,
    open_run,
    plain_name,
    read_json,
    seed_number,
)
from read_config import load_config

CONFIG = FOLDER / "config.ini"
DEMO_CONFIG = FOLDER / "config_files" / "demo.ini"
FULL_CONFIG = FOLDER / "config_files" / "demo_full.ini"

# demo data: 24 training movies, every second with a wave (12 give too few waves to learn from), 6
# unseen ones with a wave each, 3 without events: two for training, the last as negative control
DEMO_WAVES = (0, 1) * 12 + (1,) * 6 + (0,) * 3
DEMO_DATA = {"movies": len(DEMO_WAVES), "waves": DEMO_WAVES, "empty": 3}
DEMO_RATES = (10, 8, 0.5)  # sparks, puffs, waves of a movie: 5 puffs were too few to learn from
DEMO_GAIN = (
    40.0  # counts per photon; signal-to-noise ratios of 4.5 to 6.5, inside the 2 to 8 wanted
)
CONTROL_ID = f"{len(DEMO_WAVES):02d}"  # the movie without events

# settings that may differ between two calls of the same run
FREE = ("training.cuda", "dataset.num_workers", "general.verbosity", "general.logfile")


def make_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", type=Path, help="INI file; default config.ini")
    parser.add_argument("--demo", action="store_true", help="synthetic data with planted truth")
    parser.add_argument("--fresh", action="store_true", help="start the run anew")
    parser.add_argument("--full", action="store_true", help="with --demo: the larger demo")
    parser.add_argument(
        "--seed", type=seed_number, help="seed of every random choice; default: [training] seed"
    )
    parser.add_argument(
        "--run", help="name of the run, its folder in the results; default: [training] run_name"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu", "cuda"),
        default="auto",
        help="where to compute: auto, cpu, gpu or cuda",
    )
    parser.add_argument("--threads", type=int, help="CPU threads; default: PyTorch's choice")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="section.key=value",
        help="replace one setting of the INI file; repeatable",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


def configured(args):
    """Return Params of the command line."""
    if args.full and not args.demo:
        raise InputError("--full belongs to --demo")
    path = args.config or CONFIG
    if args.demo:
        if args.config:
            raise InputError(f"--demo has its own settings; leave {args.config} out or --demo")
        path = FULL_CONFIG if args.full else DEMO_CONFIG
    overrides = list(args.overrides)
    if args.run is not None:
        overrides.append(f"training.run_name={plain_name(args.run)}")
    if args.seed is not None:
        overrides.append(f"training.seed={args.seed}")
    params = load_config(path, overrides)
    if args.demo:
        # movies of different seeds never share a folder
        folder = f"{params.relative_path}/seed_{params.seed}"
        params = dataclasses.replace(params, relative_path=folder)
    return params


def demo_settings(seed, full):
    """Return the settings of the synthetic movies."""
    from make_demo_data import SMALL, DemoSettings

    size = {} if full else SMALL | {"rates": DEMO_RATES, "gain": DEMO_GAIN}
    return DemoSettings(**size | DEMO_DATA | {"seed": seed})


def ensure_demo_data(folder, settings):
    """Make the synthetic movies unless the folder holds those of the same settings."""
    from make_demo_data import make_demo_data

    wanted = json.loads(json.dumps(dataclasses.asdict(settings)))
    truth = folder / "truth.json"
    if truth.is_file() and read_json(truth, remedy="remove it")["settings"] == wanted:
        print(f"synthetic movies in {folder} are reused")
        return
    make_demo_data(folder, **dataclasses.asdict(settings))
    print(f"{settings.movies} synthetic movies with planted truth in {folder}")


def is_complete(run_dir, settings, *, fresh):
    """Return whether ``run_dir`` holds a finished run of these settings; clear it when ``fresh``.

    Raises:
        InputError: the folder holds a run of other settings, or files of something else.
    """
    # import_checkpoint.py makes a folder with a network and without settings
    imported = not (run_dir / "settings.json").is_file() and any(run_dir.glob("network_*.pth"))
    return not imported and open_run(run_dir, settings, fresh=fresh, free=FREE)


def copy_log(run_dir):
    """Write log.csv, the name that all pipelines share, from the published loss.csv."""
    if (run_dir / "loss.csv").is_file():
        with atomic_path(run_dir / "log.csv") as temporary:
            shutil.copyfile(run_dir / "loss.csv", temporary)


def predict_all(params, place, ids):
    """Predict the movies ``ids`` with the newest network; return {id: (sample, results)}.

    On a CPU each thread takes one movie at a time in a process of its own: the event tables and
    overlays cost as much as the network.
    """
    import torch
    from joblib import Parallel, delayed

    from checkpoints import available_iterations, checkpoint_path, load_network
    from dataset_tools import adapted, read_samples
    from load_trainings_predict import predict_and_write
    from training_tools import seeded_model

    iteration = available_iterations(params.output_dir)[-1]
    model = seeded_model(params, place.device)
    load_network(model, checkpoint_path(params.output_dir, "network", iteration))
    samples = read_samples(
        params.data_dir, ids, labels=None, events=None, sparks_type=params.sparks_type
    )
    samples = adapted(samples, params)
    workers = 1 if place.device.type == "cuda" else min(torch.get_num_threads(), len(samples))
    found = Parallel(n_jobs=workers)(
        delayed(predict_and_write)(
            *(model, sample, params),
            out_dir=params.output_dir / "predictions",
            stem=f"{params.run_name}_{iteration}_{sample.id}_{params.inference}",
            overlay="gif",
        )
        for sample in samples
    )
    return {sample.id: (sample, *one) for sample, one in zip(samples, found, strict=True)}


def say_device(params, wanted):
    """Print where the run computes; the first of the processes of torchrun speaks for all."""
    from training_tools import choose_device

    name, asked = choose_device(params, wanted)
    if int(os.environ.get("RANK", 0)) == 0:
        print(describe_device("torch", name, asked=asked), flush=True)


def story(params, args):
    """Run everything for ``params``; return the exit code."""
    from common.report import close_run
    from run_report import write_run_report
    from training import prepare, resumed, run, settings_of, write_record

    started = time.time()
    demo = demo_settings(params.seed, args.full) if args.demo else None
    extra = {} if demo is None else {"demo": dataclasses.asdict(demo)}
    settings = settings_of(params) | extra
    if not args.fresh and is_complete(params.output_dir, settings, fresh=False):
        print(f"{params.output_dir} is complete; --fresh starts anew")
        return close_run(params.output_dir)
    say_device(params, args.device)  # before --fresh removes a run: it may be refused
    is_complete(params.output_dir, settings, fresh=args.fresh)
    if demo is not None:
        ensure_demo_data(params.data_dir, demo)
    todo = resumed(params)
    place, train, val = prepare(todo, device=args.device, threads=args.threads)
    if place.first:
        write_record(params, **extra)
    if params.training:
        run(dataclasses.replace(todo, testing=False), place, train, val)
    if not place.first:
        return 0
    ids = list(params.ids("test"))
    results = predict_all(params, place, ids + ([CONTROL_ID] if demo else []))
    copy_log(params.output_dir)
    write_run_report(params, results, control_id=CONTROL_ID if demo else None, started=started)
    return close_run(params.output_dir)


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    args = make_parser().parse_args(argv)
    try:
        return story(configured(args), args)
    except KeyboardInterrupt:
        print("the same command goes on")
        raise


if __name__ == "__main__":
    raise SystemExit(main())
