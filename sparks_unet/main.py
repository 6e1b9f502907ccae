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
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import FOLDER, InputError, Parser, one_line_faults, plain_name, seed_number
from settings.flags import with_given
from settings.read_config import load_config
from settings.recording import add_recording_flags, given_by_flags

CONFIG = FOLDER / "config.ini"
DEMO_CONFIG = FOLDER / "config_files" / "demo.ini"
FULL_CONFIG = FOLDER / "config_files" / "demo_full.ini"


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
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


def configured(args):
    """Return Params of the command line."""
    if args.full and not args.demo:
        raise InputError("--full belongs to --demo")
    path = args.config or CONFIG
    if args.demo:
        if not (FOLDER / "demo").is_dir():
            raise InputError(
                "--demo: the folder demo/ is not here; bring it back, or give own data"
            )
        if args.config:
            raise InputError(f"--demo has its own settings; leave {args.config} out or --demo")
        path = FULL_CONFIG if args.full else DEMO_CONFIG
    overrides = list(args.overrides)
    if args.run is not None:
        overrides.append(f"training.run_name={plain_name(args.run)}")
    if args.seed is not None:
        overrides.append(f"training.seed={args.seed}")
    params = with_given(load_config(path, overrides), given_by_flags(args))
    if args.demo:
        # movies of different seeds never share a folder
        folder = f"{params.relative_path}/seed_{params.seed}"
        params = dataclasses.replace(params, relative_path=folder)
    return params


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    args = make_parser().parse_args(argv)
    params, demo = configured(args), None
    if args.demo:
        from demo.demo_run import CONTROL_ID, demo_settings, ensure_demo_data

        data = demo_settings(params.seed, args.full)
        make_movies = functools.partial(ensure_demo_data, settings=data)
        demo = (dataclasses.asdict(data), make_movies, CONTROL_ID)
    try:
        from runs.pipeline import story

        options = {"device": args.device, "threads": args.threads, "fresh": args.fresh}
        return story(params, **options, demo=demo)
    except KeyboardInterrupt:
        print("the same command goes on")
        raise


if __name__ == "__main__":
    raise SystemExit(main())
