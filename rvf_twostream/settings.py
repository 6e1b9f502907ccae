"""Every setting of this folder once: default, type with its range, meaning with its unit.

A script takes its GLOBALS and flags from here: ``EPOCH = TRAINING.EPOCH`` is the default, ``EPOCH =
30`` in the script another one for that script, ``--epoch 30`` one for a call.
``add_globals(parser, globals(), TRAINING)`` adds the flags. ``with_defaults(TRAINING, epoch=30)``
gives the settings of a job that no command line started. Settings that change no number stand in
FREE_STORY, FREE_TRAINING and FREE_PICTURES: they may differ between two calls of a run.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.device import why_no_gpu
from common.files import FOLDER, InputError, seed_number

SCRIPTS = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
ENGINE_PYTHON = FOLDER.parent / ".venvs" / "rvf_innvestigate" / SCRIPTS
FLOW_PIXEL_MM = (0.1, 5.0)  # sizes of a pixel at which flow may be computed
LIBRARIES = ("tensorflow", "keras", "numpy")  # their versions are stored with a run
FREE_STORY = ("demo", "fresh", "debug", "run", "device", "workers")
FREE_TRAINING = ("device", "workers", "debug", "recalculate", "ckptdir", "root")
FREE_PICTURES = ("debug", "device", "workers", "recalculate", "engine_python", "out")


@dataclass(frozen=True)
class Setting:
    """One setting: its default, the argparse type that checks it, its meaning with unit."""

    default: object
    kind: Callable
    text: str


class Table(dict):
    """Settings by name; an attribute gives the default."""

    def __getattr__(self, name: str):
        try:
            return self[name].default
        except KeyError:
            raise AttributeError(name) from None


class Settings:
    """The settings of a run, frozen; ``vars`` gives them as a dict."""

    def __init__(self, **values):
        self.__dict__.update(values)

    def __setattr__(self, name, value):
        raise AttributeError(f"settings are frozen: {name}")


def with_defaults(*tables: Table, **given) -> Settings:
    """Return the defaults of ``tables`` with those of ``given`` in their place."""
    values = {name.lower(): one.default for table in tables for name, one in table.items()}
    return Settings(**{**values, **given})


def preprocess_settings(**given) -> Settings:
    """Return the settings of ``preprocess_root``: those given, else the defaults."""
    return with_defaults(PREPROCESS, **{**PREPROCESS_FLAGS, **given})


def flow_settings(**given) -> Settings:
    """Return the settings of ``flow_root``: those given, else the defaults."""
    return with_defaults(FLOW, **{**FLOW_FLAGS, **given})


def echonet_settings(**given) -> Settings:
    """Return the settings of ``echonet.prepare``: those given, else the defaults."""
    return with_defaults(ECHONET, **{**ECHONET_FLAGS, **given})


def integer(low: int, high: int | None = None) -> Callable:
    """Return an argparse type: whole number from ``low`` to ``high`` (None: no limit)."""
    return _ranged(int, "a whole number", low, high)


def number(low: float, high: float | None = None) -> Callable:
    """Return an argparse type: finite number from ``low`` to ``high`` (None: no limit)."""
    return _ranged(float, "a number", low, high)


def _ranged(convert, noun, low, high):
    span = f"{noun} >= {low}" if high is None else f"{noun} from {low} to {high}"

    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        # The comparison also turns NaN and infinity away.
        top = float("inf") if high is None else high
        if value is None or not low <= value <= top or value in (float("inf"), -float("inf")):
            raise argparse.ArgumentTypeError(f"{text!r} is not {span}")
        return value

    return parse


def one_of(*names: str) -> Callable:
    """Return an argparse type: one of ``names``."""

    def parse(text):
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return parse


def switch(text: str) -> bool:
    """Parse true or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def json_factors(text: str) -> dict:
    """Parse a JSON object of numbers >= 0, for example {"conv3d": 0.1, "preds": 1}."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from None
    numbers = isinstance(value, dict) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 for v in value.values()
    )
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object of numbers >= 0")
    return value


def class_weight(text: str) -> dict | str:
    """Parse ``balanced`` or a JSON object with keys 0 and 1."""
    if text == "balanced":
        return text
    value = json_factors(text)
    if set(value) != {"0", "1"}:
        raise argparse.ArgumentTypeError(f'{text!r} needs the keys "0" and "1"')
    return value


def class_weight_text(text: str) -> str:
    """Check a class weight and leave it as text, for the settings of a whole story."""
    class_weight(text)
    return text


def size_of_text(text: str) -> tuple[int, int]:
    """Parse ROWSxCOLS."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWSxCOLS, both at least 32")
    return size


def flow_size_of_text(text: str) -> tuple[int, int] | str:
    """Parse ROWSxCOLS, or the size of a pixel as ``1.5mm``."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s?mm", text)
    if match is None and not re.fullmatch(r"\d+x\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither ROWSxCOLS nor a pixel's size as 1mm")
    if match is None:
        return size_of_text(text)
    low, high = FLOW_PIXEL_MM
    if not low <= float(match[1]) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not from {low:g}mm to {high:g}mm")
    return f"{float(match[1]):g}mm"


CROP = Setting("none", one_of("none", "region", "sector"), "part of the picture to keep")
DEID = Setting("refuse", one_of("refuse", "warn", "ignore"), "what to do about identity in headers")
STATS = Setting("all", one_of("all", "train"), "movies behind mean and standard deviation")
STORE = Setting("compact", one_of("compact", "float32"), "uint8 grey and float16 flow, or float32")
FLOW_UNITS = ("px_per_frame", "px_per_s", "cm_per_s")  # full-size pixels, cm of the patient
FRAME_RATE = Setting(0.0, number(0, 300), "frames/s of files that tell none; 0: leave unknown")
CLIP = Table(
    NFRAMES=Setting(32, integer(8), "frames of a clip"),
    NROWS=Setting(112, integer(32), "rows of a movie, pixels"),
    NCOLS=Setting(112, integer(32), "columns of a movie, pixels"),
)
MOVIE = Table(CLIP, NFRAMES=Setting(32, integer(8), "fewest frames of a movie"))
THRESHOLD = Setting(2, integer(0, 2), "failure when the class index is larger")

PREPROCESS = Table(
    MOVIE,
    CROP=CROP,
    GREY=Setting("luma", one_of("luma", "reference"), "weights of the colours"),
    RESAMPLE_FPS=Setting(0.0, number(0, 1000), "frame rate to interpolate to; 0: none"),
    FRAME_RATE=FRAME_RATE,
    STORE=STORE,
    DEID=DEID,
    STATS=STATS,
    SPLITNUM=Setting(0, integer(0), "split of --stats train"),
)
FARNEBACK = Table(
    PYR_SCALE=Setting(0.5, number(0.1, 0.95), "scale of the next level of the pyramid"),
    LEVELS=Setting(3, integer(1), "levels of the pyramid"),
    WINSIZE=Setting(15, integer(3), "averaging window, pixels"),
    ITERATIONS=Setting(3, integer(1), "iterations at each level"),
    POLY_N=Setting(5, integer(3), "neighbourhood of the polynomial, pixels"),
    POLY_SIGMA=Setting(1.2, number(0.1), "width of the polynomial's weights, pixels"),
)
FLOW = Table(
    MOVIE, STATS=STATS, SPLITNUM=Setting(0, integer(0), "split of --stats train"), **FARNEBACK
)
SPLIT = Table(
    THRESHOLD=Setting(2, integer(0, 2), "a class index above it is positive"),
    SEED=Setting(0, seed_number, "seed of --make_splits"),
    VAL_FRACTION=Setting(0.10, number(0.01, 0.5), "patients for validation, --make_splits"),
    TEST_FRACTION=Setting(0.25, number(0.01, 0.8), "patients for the test, --make_splits 1"),
)
ECHONET = Table(
    MOVIE,
    NFRAMES=Setting(32, integer(8), "fewest frames of a video"),
    DTYPE=Setting("float16", one_of("float16", "float32"), "type of the stored movies"),
    LIMIT=Setting(0, integer(0), "videos to take from the list; 0: all"),
    SEED=Setting(0, seed_number, "seed of --make_split"),
)

PLACE = Table(
    SEED=Setting(0, seed_number, "seed of every random choice"),
    DEVICE=Setting("auto", one_of("auto", "cpu", "gpu"), "where to compute: auto, cpu, gpu"),
)
DEVICE = Table(PLACE, WORKERS=Setting(2, integer(1), "threads that read clips"))
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
DEPTHS = (18, 34, 50, 101, 152)
MODEL = Table(
    WIDTH=Setting(64, integer(1), "filters of the stem"),
    GPUS=Setting(1, integer(1), "replicas; BATCH_SIZE is shared among them"),
    PRECISION=Setting("float32", one_of(*PRECISIONS), f"{', '.join(PRECISIONS)} (not on a CPU)"),
    WEIGHT_DECAY=Setting(0.0, number(0), "decoupled decay per update"),
)
DEPTH = Setting(152, int, "layers")
PRETRAIN_MONITORS = ("val_loss", "val_mae", "val_r2", "val_accuracy")
PRETRAIN = Table(
    CLIP,
    BATCH_SIZE=Setting(8, integer(1), "clips per update"),
    EPOCH=Setting(100, integer(1), "passes over the training set"),
    LR=Setting(1e-3, number(0), "learning rate of the first update"),
    COSINE_ANNEAL=Setting(True, switch, "cosine from LR to 0 over all updates"),
    LR_WEIGHT=Setting(
        {"conv3d": 1, "fc_6": 1, "fc_7": 1},
        json_factors,
        "factors of LR by part of a variable's name, JSON",
    ),
    MODEL_PREFIX=Setting("Resnet152_Echonet_norm_greyscale_Oct15_", str, "name of the model"),
    CKPT_MONITOR=Setting(
        "val_loss", one_of(*PRETRAIN_MONITORS), "column that chooses the best epoch"
    ),
    CKPT_MODE=Setting("min", one_of("min", "max"), "min or max"),
)
FLOW_MODEL_PREFIX = "Resnet152_Echonet_norm_OF_Oct15_"  # Differs: the published name is grey's
# Settings of pre-training that are flags alone.
TASK = {
    "init_weights": "none",
    "task": "regression",
    "labels": None,
    "ef_bias": 0.0,
    "standardize_ef": False,
}

COLUMNS = ("loss", "accuracy", "auc", "average_precision")
MONITORS = tuple(f"val_{name}" for name in COLUMNS)
TRAINING = Table(
    CLIP,
    THRESHOLD=THRESHOLD,
    USE_AUG=Setting(True, switch, "augment training clips"),
    BATCH_SIZE=Setting(4, integer(1), "clips per update"),
    EPOCH=Setting(75, integer(1), "passes over the training set"),
    LR=Setting(1e-4, number(0), "learning rate of the first update"),
    COSINE_ANNEAL=Setting(True, switch, "cosine from LR to 0 over all updates"),
    LR_WEIGHT=Setting(
        {"conv3d": 1}, json_factors, "factors of LR by part of a variable's name, JSON"
    ),
    CLASS_WEIGHT=Setting(
        {"0": 0.2, "1": 1.8}, class_weight, "weights of the two labels, JSON, or balanced"
    ),
    USE_CLR=Setting(False, switch, "cyclic rate; excludes COSINE_ANNEAL and REDUCE_LR"),
    MIN_LR=Setting(1e-5, number(0), "lowest cyclic rate"),
    MAX_LR=Setting(1e-3, number(0), "highest cyclic rate"),
    CLR_MODE=Setting(
        "triangular", one_of("triangular", "triangular2", "exp_range"), "shape of the cycles"
    ),
    REDUCE_LR=Setting(
        False, switch, "LR times 0.1 on a plateau; excludes COSINE_ANNEAL and USE_CLR"
    ),
    # Differs: the published val_auc_1 never exists.
    MONITOR_PARAM=Setting(
        "val_auc", one_of(*MONITORS), f"watched by REDUCE_LR: {', '.join(MONITORS)}"
    ),
    PATIENCE=Setting(2, integer(0), "epochs without improvement before REDUCE_LR acts"),
    EARLY_STOP=Setting(
        0, integer(0), "epochs without a better CKPT_MONITOR before stopping; 0 never"
    ),
    CKPT_MONITOR=Setting(
        "val_auc", one_of(*MONITORS), f"chooses the best epoch: {', '.join(MONITORS)}"
    ),
    CKPT_MODE=Setting("max", one_of("max", "min"), "max or min"),
    VAL_CLIPS=Setting(5, integer(1), "evenly spaced clips of a validation movie"),
)
PREDICTION = Table(
    THRESHOLD=THRESHOLD,
    N_SAMPLE=Setting(5, integer(1), "clips per movie"),
    # Differs: published starts are random; even ones are those of the validation in training.
    SAMPLING=Setting("even", one_of("random", "even"), "even or random starts of the clips"),
)
# Flags of prediction that are no globals: what is computed beside it.
BESIDE = {"baseline": False, "baseline_weights": None, "fan_only": False}
PICTURES = Table(
    THRESHOLD=THRESHOLD,
    TARGET=Setting("rvf", one_of("rvf", "normal"), "rvf: the logit; normal: minus the logit"),
    ENGINE=Setting(
        "tensorflow", one_of("tensorflow", "innvestigate"), "what computes the gradients"
    ),
)

FRACTION = "share of the patients when a split is drawn"
STORY = Table(
    ROOT=Setting("none", str, "folder with DICOMs and REDcap_class.csv"),
    ECHONET=Setting("none", str, "EchoNet-Dynamic folder for pre-training, or none"),
    SPLITNUM=Setting(0, integer(0), "number of the split file"),
    VAL_FRACTION=Setting(0.1, number(0.01, 0.9), FRACTION),
    TEST_FRACTION=Setting(0.25, number(0.01, 0.9), FRACTION),
    **CLIP,
    CROP=CROP,
    DEID=DEID,
    STATS=Setting("train", STATS.kind, "movies behind mean and standard deviation"),
    RESAMPLE_FPS=Setting(0.0, number(0), "frame rate to interpolate to, 1/s; 0: none"),
    FRAME_RATE=FRAME_RATE,
    STORE=STORE,
    FLOW_UNIT=Setting("px_per_frame", one_of(*FLOW_UNITS), f"{', '.join(FLOW_UNITS)}"),
    FLOW_SIZE=Setting("none", str, "ROWSxCOLS or pixel (1.5mm) at which flow is computed, or none"),
    DEPTH=Setting(152, integer(18, 152), "18, 34, 50, 101 or 152"),
    WIDTH=MODEL["WIDTH"],
    MODEL_PREFIX=Setting("rvf_", str, "name of the model, before the number of the split"),
    PRETRAIN_EPOCH=Setting(100, integer(1), "epochs of pre-training"),
    PRETRAIN_BATCH_SIZE=Setting(8, integer(1), "clips per update of pre-training"),
    PRETRAIN_LR=Setting(1e-3, number(0), "learning rate of pre-training"),
    EF_BIAS=Setting(55.8, number(0, 100), "start of the pre-training head's bias, percent"),
    EPOCH=Setting(75, integer(1), "epochs of the two-stream network"),
    BATCH_SIZE=TRAINING["BATCH_SIZE"],
    LR=TRAINING["LR"],
    CLASS_WEIGHT=Setting(
        '{"0": 0.2, "1": 1.8}', class_weight_text, "weights of the labels, JSON, or balanced"
    ),
    CKPT_MONITOR=Setting(
        "val_auc", one_of("val_auc", "val_loss"), "chooses the best epoch: val_auc or val_loss"
    ),
    VAL_CLIPS=Setting(5, integer(1), "clips of a validation movie"),
    WORKERS=Setting(2, integer(1), "processes for files, threads for clips"),
    N_SAMPLE=Setting(5, integer(1), "clips per predicted movie"),
    NSAMPLES=Setting(4, integer(1), "movies shown by guided back-propagation"),
    EFFECT=Setting("strong", one_of("strong", "realistic", "none"), "planted effect of the demo"),
)
# Flags of the data scripts that are no globals.
FILE_FLAGS = {"workers": 1, "cluster": "", "recalculate": False, "debug": False}
PREPROCESS_FLAGS = {**FILE_FLAGS, "csv": "REDcap_class.csv", "move": False, "find_text": False}
PREPROCESS_FLAGS |= {"with_flow": "none"}
FLOW_FLAGS = {**FILE_FLAGS, "flow_size": None, "per_second": False, "crop": None}
FLOW_FLAGS |= {"flow_unit": FLOW_UNITS[0]}
ECHONET_FLAGS = {**FILE_FLAGS, "make_split": False, "kinds": ("norm1", "norm_OF")}
SYNTHETIC = Table(
    N_PATIENTS=Setting(110, integer(1), "patients"),
    N_VIDEOS=Setting(40, integer(4), "videos of the EchoNet look-alike"),
    EFFECT=Setting("strong", STORY["EFFECT"].kind, "how strongly RV function decides failure"),
    SEED=Setting(0, seed_number, "seed of every random choice"),
    ROWS=Setting(600, integer(96), "rows of a frame, pixels"),
    COLS=Setting(800, integer(96), "columns of a frame, pixels"),
    MIN_FRAMES=Setting(40, integer(20), "shortest movie, frames"),
    MAX_FRAMES=Setting(90, integer(20), "longest movie, frames"),
    WORKERS=Setting(1, integer(1), "processes"),
)
GEOMETRY = Table(
    N_PATIENTS=Setting(200, integer(24), "patients, one movie each"),
    SEED=Setting(0, seed_number, "seed of every random choice"),
    WORKERS=Setting(1, integer(1), "processes"),
)
BENCHMARK = Table(
    DEPTH=Setting(18, integer(18, 152), "18, 34, 50, 101 or 152"),
    WIDTH=Setting(8, integer(1), "filters of the stem"),
    NFRAMES=Setting(32, integer(8), "frames of a clip"),
    NROWS=Setting(112, integer(32), "rows of a clip, pixels"),
    NCOLS=Setting(112, integer(32), "columns of a clip, pixels"),
)
MEASUREMENTS = ("preprocess", "flow", "augment", "memory", "predict", "guided", "step")
NFRAMES, NROWS, NCOLS = CLIP.NFRAMES, CLIP.NROWS, CLIP.NCOLS


def add_globals(parser: argparse.ArgumentParser, values: dict, table: Table) -> None:
    """Add one flag per global of a script.

    Args:
        parser: the script's parser.
        values: ``globals()`` of the script, the source of the defaults.
        table: the settings that the script has as globals.
    """
    for name, setting in table.items():
        default = values[name]
        # argparse passes a text default through the type, so a wrong global is reported too.
        shown = json.dumps(default) if isinstance(default, dict | bool) else str(default)
        parser.add_argument(
            f"--{name.lower()}", type=setting.kind, default=shown, help=setting.text
        )


def _defaults(table):
    return {name: one.default for name, one in table.items()}


def add_place_flags(parser: argparse.ArgumentParser) -> None:
    """Add --seed and --device."""
    add_globals(parser, _defaults(PLACE), PLACE)


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags about the machine that training and inference share."""
    add_globals(parser, _defaults(DEVICE), DEVICE)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags about the network and its training that the training scripts share."""
    parser.add_argument("--depth", type=int, choices=DEPTHS, default=DEPTH.default, help=DEPTH.text)
    add_globals(parser, _defaults(MODEL), MODEL)


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags about processes and faults that the data scripts share."""
    parser.add_argument("-m", "--multiprocess", action="store_true", help="use all cores")
    parser.add_argument("--workers", type=integer(1), help="processes, instead of all cores")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")


def check_size(flag: str, text: str) -> None:
    """Raise an InputError unless ``text`` is ROWSxCOLS or the size of a pixel in mm."""
    try:
        flow_size_of_text(text)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{flag}: {error}") from None


def choose_device(device: str, cards: list) -> str:
    """Return "cpu" or "gpu" for ``auto``, ``cpu`` or ``gpu`` and the GPUs that TensorFlow sees."""
    if device == "gpu" and not cards:
        raise InputError(
            f"--device gpu: TensorFlow sees no GPU ({why_no_gpu('tensorflow')}); use --device cpu"
        )
    return "cpu" if device == "cpu" or not cards else "gpu"


def check_depth(depth: int) -> None:
    """Raise an InputError unless there is a network of this depth."""
    if depth not in DEPTHS:
        raise InputError(f"--depth {depth}: choose 18, 34, 50, 101 or 152")


def check_prefix(prefix: str) -> None:
    """Raise an InputError for a name of a model that leads into another folder."""
    if Path(prefix).name != prefix:
        raise InputError(f"--model_prefix {prefix!r} is part of a file name: no slashes")


def chosen_sets(text: str) -> list[str]:
    """Return the list of sets in ``text``."""
    known = ("train", "val", "test")
    sets = [name.strip() for name in text.split(",")]
    unknown = [name for name in sets if name not in known]
    if unknown or len(set(sets)) != len(sets):
        raise InputError(f"--sets {text!r}: expected some of {', '.join(known)}, each once")
    return sets
