"""RV failure from echocardiogram movies, the whole story: DICOMs to probabilities and pictures.

    python main.py --root ../data/rvf_twostream/mycohort         (published size: needs a GPU)
    python main.py --demo                                        (synthetic patients, 4 minutes)

Reads <root>/*.dcm, <root>/REDcap_class.csv, <root>/split_allocation_<N>.csv (drawn by patient when
missing) and, for pre-training, an EchoNet-Dynamic folder (--echonet). Movies are written below
<root>, everything else into results/rvf_twostream/<run>/: settings.json, log.csv (a row per epoch),
weights, predictions/, guidedbackprop_visualization/, report.html, summary.json.
"""

import shutil
import sys
import time
from pathlib import Path

from common.device import describe_device, gpu_names_apart
from common.files import DATA_DIR as DATA
from common.files import RESULTS_DIR as RESULTS
from common.files import (
    InputError,
    Parser,
    one_line_faults,
    open_run,
    plain_name,
    read_json,
    write_settings,
)
from common.report import close_run
from options import add_globals, add_place_flags, integer, json_factors, number, one_of

# data
ROOT = "none"  # folder with DICOMs and REDcap_class.csv
ECHONET = "none"  # EchoNet-Dynamic folder for pre-training, or none
SPLITNUM = 0  # number of the split file
VAL_FRACTION = 0.1  # patients for validation when a split is drawn
TEST_FRACTION = 0.25  # patients for the test when a split is drawn
NFRAMES = 32  # frames of a clip
NROWS = 112  # rows of a movie, pixels
NCOLS = 112  # columns of a movie, pixels
CROP = "none"  # none, region (ultrasound region of the header) or sector (detected fan)
DEID = "refuse"  # refuse, warn or ignore DICOMs that name a person
STATS = "train"  # movies behind mean and standard deviation: train, or all as published
RESAMPLE_FPS = 0.0  # frame rate to which movies are interpolated, 1/s; 0: none
FLOW_SIZE = "none"  # ROWSxCOLS at which flow is computed; none: full size, as published

# model
DEPTH = 152  # 18, 34, 50, 101 or 152
WIDTH = 64  # filters of the stem

# training
MODEL_PREFIX = "rvf_"  # name of the model, before the number of the split
PRETRAIN_EPOCH = 100  # epochs of pre-training
PRETRAIN_BATCH_SIZE = 8  # clips per update of pre-training
PRETRAIN_LR = 1e-3  # learning rate of pre-training
EF_BIAS = 55.8  # start of the pre-training head's bias, percent; 0 as published
EPOCH = 75  # epochs of the two-stream network
BATCH_SIZE = 4  # clips per update
LR = 1e-4  # learning rate of the first update
CLASS_WEIGHT = '{"0": 0.2, "1": 1.8}'  # weights of the labels, JSON, or balanced
CKPT_MONITOR = "val_auc"  # what chooses the best epoch: val_auc, as published, or val_loss
VAL_CLIPS = 5  # evenly spaced clips of a validation movie
WORKERS = 2  # processes for files, threads for clips

# inference and figures
N_SAMPLE = 5  # random clips per predicted movie
NSAMPLES = 4  # movies shown by guided back-propagation

# demo
EFFECT = "strong"  # strong, realistic or none: how planted RV function decides failure


def class_weight(text):
    """Check --class_weight and leave it as text for train_twostream.py."""
    if text != "balanced":
        json_factors(text)
    return text


FRACTION = (number(0.01, 0.9), "share of the patients when a split is drawn")
TABLE = {
    "ROOT": (str, "folder with DICOMs and REDcap_class.csv"),
    "ECHONET": (str, "EchoNet-Dynamic folder for pre-training, or none"),
    "SPLITNUM": (integer(0), "number of the split file"),
    "VAL_FRACTION": FRACTION,
    "TEST_FRACTION": FRACTION,
    "NFRAMES": (integer(8), "frames of a clip"),
    "NROWS": (integer(32), "rows of a movie, pixels"),
    "NCOLS": (integer(32), "columns of a movie, pixels"),
    "CROP": (one_of("none", "region", "sector"), "part of the picture to keep"),
    "DEID": (one_of("refuse", "warn", "ignore"), "what to do about names in headers"),
    "STATS": (one_of("train", "all"), "movies behind mean and standard deviation"),
    "RESAMPLE_FPS": (number(0), "frame rate to interpolate to, 1/s; 0: none"),
    "FLOW_SIZE": (str, "ROWSxCOLS at which flow is computed, or none"),
    "DEPTH": (integer(18, 152), "18, 34, 50, 101 or 152"),
    "WIDTH": (integer(1), "filters of the stem"),
    "MODEL_PREFIX": (str, "name of the model, before the number of the split"),
    "PRETRAIN_EPOCH": (integer(1), "epochs of pre-training"),
    "PRETRAIN_BATCH_SIZE": (integer(1), "clips per update of pre-training"),
    "PRETRAIN_LR": (number(0), "learning rate of pre-training"),
    "EF_BIAS": (number(0, 100), "start of the pre-training head's bias, percent"),
    "EPOCH": (integer(1), "epochs of the two-stream network"),
    "BATCH_SIZE": (integer(1), "clips per update"),
    "LR": (number(0), "learning rate of the first update"),
    "CLASS_WEIGHT": (class_weight, "weights of the labels, JSON, or balanced"),
    "CKPT_MONITOR": (one_of("val_auc", "val_loss"), "chooses the best epoch: val_auc or val_loss"),
    "VAL_CLIPS": (integer(1), "clips of a validation movie"),
    "WORKERS": (integer(1), "processes for files, threads for clips"),
    "N_SAMPLE": (integer(1), "clips per predicted movie"),
    "NSAMPLES": (integer(1), "movies shown by guided back-propagation"),
    "EFFECT": (one_of("strong", "realistic", "none"), "planted effect of the demo"),
}
# Settings that may differ between two calls of the same run.
FREE = ("demo", "fresh", "debug", "run", "device", "workers")
LIBRARIES = ("tensorflow", "keras", "numpy")


def build_parser():
    """Return the parser of the whole story."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="synthetic data with planted truth")
    parser.add_argument("--full", action="store_true", help="with --demo: the larger demo")
    parser.add_argument("--quick", action="store_true", help="with --demo: test size, 12 patients")
    parser.add_argument("--fresh", action="store_true", help="start the run anew")
    parser.add_argument(
        "--run",
        help="name of the run, its folder in the results; default: demo, or that of ROOT",
    )
    add_place_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(parser, globals(), TABLE)
    return parser


def given_flags(argv):
    """Return the names of the globals given as flags; the demo's presets yield to them."""
    words = sys.argv[1:] if argv is None else argv
    names = {word.split("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    return names & {name.lower() for name in TABLE}


def inputs_of(settings):
    """Return the tables and DICOM files that the run reads; those of a demo are not made yet."""
    if settings["root"] is None:
        return []
    from sorting import dicom_files

    root = Path(settings["root"])
    tables = [root / "REDcap_class.csv", root / f"split_allocation_{settings['splitnum']}.csv"]
    if settings["echonet"] is not None:
        tables.append(Path(settings["echonet"]) / "FileList.csv")
    return [*(path for path in tables if path.is_file()), *dicom_files(root)]


def resolve(args):
    """Return the settings of a run on own data, checked."""
    settings = vars(args)
    if args.depth not in (18, 34, 50, 101, 152):
        raise InputError(f"--depth {args.depth}: choose 18, 34, 50, 101 or 152")
    for name in ("root", "echonet", "flow_size"):
        settings[name] = None if settings[name] == "none" else settings[name]
    if args.run is not None:
        plain_name(args.run)
    for name in ("full", "quick"):
        if settings[name] and not args.demo:
            raise InputError(f"--{name} belongs to --demo")
    if args.full and args.quick:
        raise InputError("--full and --quick exclude each other")
    if not args.demo:
        if settings["root"] is None:
            raise InputError("give --root FOLDER with DICOMs and REDcap_class.csv, or --demo")
        for name in ("root", "echonet"):
            if settings[name] is not None and not Path(settings[name]).is_dir():
                raise InputError(f"--{name} {settings[name]}: no such folder")
    return settings


def own_data(settings, run_dir):
    """Run the story on the user's cohort and report it."""
    from common.report import (
        figure_block,
        score_table,
        settings_table,
        table_block,
        write_report,
        write_summary,
    )
    from pipeline import cohort_table, result_figures, run_pipeline

    begun = time.perf_counter()
    root = Path(settings["root"])
    results = run_pipeline(root, run_dir, settings, echonet=settings["echonet"])
    shutil.copy(run_dir / "two_stream_csv" / f"{results['name']}.csv", run_dir / "log.csv")
    figures = result_figures(run_dir, results)
    patients = results["metrics"]["test"]["patients"]
    low, high = patients["auc_ci95_bootstrap"] or (None, None)
    scores = [
        {
            "name": f"test {name}",
            "value": value,
            "unit": "",
            "target": "",
            "passed": None,
            "control": False,
        }
        for name, value in (
            ("AUC over patients", patients["auc"]),
            ("AUC, lower end of its 95 % interval (bootstrap of patients)", low),
            ("AUC, upper end of its 95 % interval (bootstrap of patients)", high),
            ("specificity at 80 % sensitivity", patients["spec_at_sens80"]),
            ("sensitivity at 80 % specificity", patients["sens_at_spec80"]),
            ("Brier score", patients["brier"]),
            ("patients", patients["n"]),
            ("patients with RV failure", patients["n_positive"]),
        )
    ]
    record = read_json(run_dir / "settings.json")
    # The name of a DICOM file may be that of a person: the page that is passed on leaves it out.
    tables = {name: value for name, value in record["inputs"].items() if name.endswith(".csv")}
    sections = [
        ("Scores", score_table(scores)),
        ("Cohort", table_block(*cohort_table(root))),
        ("Figures", figure_block(run_dir, figures)),
        ("Settings", settings_table(record | {"inputs": tables})),
    ]
    title = f"RV failure: {run_dir.name}"
    write_report(run_dir, title, "Two-stream network on your cohort.", sections)
    seconds = round(time.perf_counter() - begun, 1)
    write_summary(
        run_dir,
        {
            "folder": DATA.name,
            "run": run_dir.name,
            "title": title,
            "seconds": seconds,
            "seed": settings["seed"],
            "data": f"{patients['n']} test patients of {root.name}",
            "main_picture": figures[1]["path"],
            "main_picture_alt": figures[1]["alt"],
            "figures": figures,
            "scores": scores,
            "planted_truth": None,
            "report": "report.html",
        },
    )
    return close_run(run_dir)


def say_device(wanted):
    """Print where the run computes; TensorFlow itself is loaded after the steps that fork."""
    from training import choose_device

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
        from run_demo import demo, demo_settings

        settings = demo_settings(settings, given_flags(argv))
    run_dir = RESULTS / (
        args.run or ("demo" if args.demo else Path(settings["root"]).resolve().name)
    )
    if not args.fresh and open_run(run_dir, settings, free=FREE):
        print(f"{run_dir} is complete; --fresh starts anew")
        return close_run(run_dir)
    say_device(args.device)  # before --fresh removes a run: it may be refused
    open_run(run_dir, settings, fresh=args.fresh, free=FREE)
    write_settings(run_dir, settings, inputs=inputs_of(settings), libraries=LIBRARIES)
    if args.demo:
        return demo(settings, run_dir, DATA / run_dir.name, fresh=args.fresh)
    return own_data(settings, run_dir)


if __name__ == "__main__":
    sys.exit(main())
