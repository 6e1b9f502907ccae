"""RV failure from echocardiogram movies, the whole story: DICOMs to probabilities and pictures.

    python main.py --root ../data/rvf_twostream/mycohort         (published size: needs a GPU)
    python main.py --demo                                        (synthetic patients, 4 minutes)

Reads <root>/*.dcm, <root>/REDcap_class.csv, <root>/split_allocation_<N>.csv (drawn by patient when
missing) and, for pre-training, an EchoNet-Dynamic folder (--echonet). Movies are written below
<root>, everything else into results/rvf_twostream/<run>/: settings.json, log.csv (a row per epoch),
weights, predictions/, guidedbackprop_visualization/, report.html, summary.json.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.device import describe_device, gpu_names_apart
from common.files import (
    DATA_DIR,
    RESULTS_DIR,
    InputError,
    Parser,
    one_line_faults,
    open_run,
    plain_name,
    write_settings,
)
from common.report import close_run
from settings import (
    FREE_STORY,
    LIBRARIES,
    STORY,
    add_globals,
    add_place_flags,
    check_depth,
    check_size,
    choose_device,
)

# data
ROOT = STORY.ROOT  # folder with DICOMs and REDcap_class.csv
ECHONET = STORY.ECHONET  # EchoNet-Dynamic folder for pre-training, or none
SPLITNUM = STORY.SPLITNUM  # number of the split file
VAL_FRACTION = STORY.VAL_FRACTION  # patients for validation when a split is drawn
TEST_FRACTION = STORY.TEST_FRACTION  # patients for the test when a split is drawn
NFRAMES = STORY.NFRAMES  # frames of a clip
NROWS = STORY.NROWS  # rows of a movie, pixels
NCOLS = STORY.NCOLS  # columns of a movie, pixels
CROP = STORY.CROP  # none, region (ultrasound region of the header) or sector (detected fan)
DEID = STORY.DEID  # refuse, warn or ignore DICOMs that name a person
STATS = STORY.STATS  # movies behind mean and standard deviation: train, or all as published
RESAMPLE_FPS = STORY.RESAMPLE_FPS  # frame rate to which movies are interpolated, 1/s; 0: none
FRAME_RATE = STORY.FRAME_RATE  # frames/s of files that tell none; 0 leaves it unknown
STORE = STORY.STORE  # compact: uint8 grey and float16 flow; or float32
FLOW_UNIT = STORY.FLOW_UNIT  # px_per_frame as published, px_per_s or cm_per_s
FLOW_SIZE = STORY.FLOW_SIZE  # ROWSxCOLS or 1.5mm a pixel, where flow is computed; none: full size

# model
DEPTH = STORY.DEPTH  # 18, 34, 50, 101 or 152
WIDTH = STORY.WIDTH  # filters of the stem

# training
MODEL_PREFIX = STORY.MODEL_PREFIX  # name of the model, before the number of the split
PRETRAIN_EPOCH = STORY.PRETRAIN_EPOCH  # epochs of pre-training
PRETRAIN_BATCH_SIZE = STORY.PRETRAIN_BATCH_SIZE  # clips per update of pre-training
PRETRAIN_LR = STORY.PRETRAIN_LR  # learning rate of pre-training
EF_BIAS = STORY.EF_BIAS  # start of the pre-training head's bias, percent; 0 as published
EPOCH = STORY.EPOCH  # epochs of the two-stream network
BATCH_SIZE = STORY.BATCH_SIZE  # clips per update
LR = STORY.LR  # learning rate of the first update
CLASS_WEIGHT = STORY.CLASS_WEIGHT  # weights of the labels, JSON, or balanced
CKPT_MONITOR = STORY.CKPT_MONITOR  # what chooses the best epoch: val_auc, as published, or val_loss
VAL_CLIPS = STORY.VAL_CLIPS  # evenly spaced clips of a validation movie
WORKERS = STORY.WORKERS  # processes for files, threads for clips

# inference and figures
N_SAMPLE = STORY.N_SAMPLE  # random clips per predicted movie
NSAMPLES = STORY.NSAMPLES  # movies shown by guided back-propagation

# demo
EFFECT = STORY.EFFECT  # strong, realistic or none: how planted RV function decides failure


def build_parser():
    """Return the parser of the whole story."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="synthetic data with planted truth")
    parser.add_argument("--full", action="store_true", help="with --demo: the larger demo")
    parser.add_argument("--quick", action="store_true", help="with --demo: test size, 12 patients")
    parser.add_argument(
        "--no_text",
        action="store_true",
        help="with --demo: no scale and word outside the fan, as a control of what they give away",
    )
    parser.add_argument("--fresh", action="store_true", help="start the run anew")
    parser.add_argument(
        "--run",
        help="name of the run, its folder in the results; default: demo, or that of ROOT",
    )
    add_place_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(parser, globals(), STORY)
    return parser


def given_flags(argv):
    """Return the names of the globals given as flags; the demo's presets yield to them."""
    words = sys.argv[1:] if argv is None else argv
    names = {word.split("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    return names & {name.lower() for name in STORY}


def resolve(args):
    """Return the settings of a run on own data, checked."""
    settings = vars(args)
    check_depth(args.depth)
    for name in ("root", "echonet", "flow_size"):
        settings[name] = None if settings[name] == "none" else settings[name]
    if settings["flow_size"]:
        check_size("--flow_size", settings["flow_size"])
    if args.run is not None:
        plain_name(args.run)
    for name in ("full", "quick", "no_text"):
        if settings[name] and not args.demo:
            raise InputError(f"--{name} belongs to --demo")
    if not settings["no_text"]:
        del settings["no_text"]  # runs of older versions do not tell
    if args.full and args.quick:
        raise InputError("--full and --quick exclude each other")
    if not args.demo:
        if settings["root"] is None:
            raise InputError("give --root FOLDER with DICOMs and REDcap_class.csv, or --demo")
        for name in ("root", "echonet"):
            if settings[name] is not None and not Path(settings[name]).is_dir():
                raise InputError(f"--{name} {settings[name]}: no such folder")
    return settings


def say_device(wanted):
    """Print where the run computes; TensorFlow itself is loaded after the steps that fork."""
    names = [] if wanted == "cpu" else gpu_names_apart("tensorflow")
    chosen = choose_device(wanted, names)
    line = describe_device("tensorflow", chosen, asked=wanted != "auto", names=names[:1])
    print(line, flush=True)


@one_line_faults
def main(argv=None):
    """Run the story of own data or of the demo; return the exit code."""
    args = build_parser().parse_args(argv)
    settings = resolve(args)
    if args.demo:
        from demo.presets import demo_settings

        settings = demo_settings(settings, given_flags(argv))
    say_device(args.device)
    run_dir = RESULTS_DIR / (
        args.run or ("demo" if args.demo else Path(settings["root"]).resolve().name)
    )
    if open_run(run_dir, settings, fresh=args.fresh, free=FREE_STORY):
        print(f"{run_dir} is complete; --fresh starts anew")
        return close_run(run_dir)
    from inputs.sorting import inputs_of

    write_settings(run_dir, settings, inputs=inputs_of(settings), libraries=LIBRARIES)
    begun = time.perf_counter()
    root, echonet = settings["root"], settings["echonet"]
    if args.demo:
        from demo.data import make_data

        root, echonet = make_data(settings, DATA_DIR / run_dir.name, fresh=args.fresh)
        write_settings(run_dir, settings, inputs=[root / "truth.json"], libraries=LIBRARIES)
    from runs.cohort import prepare_all

    prepare_all(root, echonet, settings)
    # TensorFlow starts only now: the workers of the steps above need no copy of it.
    from runs.pipeline import run_networks

    results = run_networks(Path(root), run_dir, settings, echonet=echonet)
    if args.demo:
        from demo.report import report_demo

        return report_demo(results, run_dir, settings, root=root, begun=begun)
    from runs.run_report import report_own_data

    return report_own_data(results, run_dir, settings, begun=begun)


if __name__ == "__main__":
    sys.exit(main())
