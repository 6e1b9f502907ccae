"""Every setting of main.py once: its value, meaning, choices and range."""

import argparse
import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.files import FOLDER, InputError, Parser, plain_name

# what to do
MODE = "train"  # what to do
RUN = ""  # name of the run, its folder in the results; from the settings when empty
SEED = 42  # seed of every random choice; negative: one is drawn and stored
DEVICE = "auto"  # where to compute: auto, cpu, gpu
DEBUG = False  # show the traceback of a fault
FRESH = False  # start the run anew
FULL = False  # with --demo: the larger demo

# data
DATA_PATH = ""  # folder with tfrecords; for predict also recordings, a folder or one file
PATTERN = "*.mat"  # of predict: file name pattern of the recordings
MASK = ""  # of predict: file with a brain mask, for recordings without one
SPLIT_FILE = str(FOLDER / "mouse_split.json")  # mice of training, validation, test
SPLIT = "epoch"  # epoch (published, leaks between neighbours), block, mouse
TEST_MOUSE = ""  # overrides the split file; several separated by commas
LEAVE_OUT = False  # take the test mice out of the training list
ALLOW_LEAK = False  # permit a test mouse that is trained on
FOLDS = 0  # leave-mouse-out folds; 0 is off
NUM_CLASSES = 3  # 2 joins NREM and REM
NUM_FRAMES = 168  # frames used of every record; 168 are 10 s
HEMISPHERIC = False  # half of the frame only
HEMISPHERE = "left"  # which half: left, right, both-mirrored
LIMIT_TRAIN = 0  # epochs of training; 0 is all
LIMIT_VAL = 0  # epochs of validation; 0 is all
WORKERS = 2  # epochs read at the same time
CLUSTER = ""  # of predict and --folds: tcp://HOST:PORT, local:N, slurm:FILE.json of a dask cluster

# network
NUM_RNN_UNITS = 64  # of the LSTM, per direction; 32 in the released run
NUM_FILTERS = 64  # of every convolution
NUM_BLOCKS = 5  # of convolution and pooling, 1 to 8
KERNEL_INIT = "glorot_uniform"  # glorot_uniform; he_normal leaves the chance level sooner
SPATIAL_ATTENTION = "none"  # after the blocks: none, simam, channel, spatial, cbam
TEMPORAL_ATTENTION = "lstm"  # over time steps: lstm, dense, none
DROPOUT = 0.2  # share of units, 0 to 0.99
MIXED_PRECISION = "off"  # number format of training: off, float16, bfloat16
GRAD_CHECKPOINT = False  # recompute the encoder in the backward pass: less memory

# training
BATCH_SIZE = 4  # global, over all GPUs
NUM_EPOCHS = 200  # passes over the training set
LR_INIT = 1e-4  # learning rate at the start
CONTEXT = 0  # epochs on each side that a second stage sees; 0 is off (published)
LOSS = "focal"  # training loss: focal, cross_entropy, poly, polyfocal
GAMMA = 2.0  # focal exponent
AVERAGE = 0.0  # decay per step of the averaged weights that are validated and saved; 0 is off
PATIENCE = 0  # epochs without improvement before training stops; 0 is off
TENSORBOARD = False  # also write logs for TensorBoard
MODEL_CONTINUE = False  # resume after the last complete epoch

# results
WEIGHTS = "best"  # best, last or a path (.weights.h5, TensorFlow-2 checkpoint); train starts there
FRAME_CHUNK = 42  # frames encoded at once outside training
SMOOTH = "none"  # of the predicted hypnogram: none, median, bout, hmm
MIN_CONFIDENCE = 0.0  # 0 to 1: mark less certain epochs
BASELINE = False  # band-power baseline beside the network in test modes
ADAPT = ""  # of predict: scored recording (.mat) of the animal, to which the last layer is fitted
ADAPT_MINUTES = 10.0  # scored minutes of --adapt that are used, from its start
CODES = ""  # of --adapt: its scores, such as 1=REM,2=wake,3=NREM; empty: as those of training
KEEP_ARTIFACTS = False  # of predict: a state for epochs without evidence of one, too
RESULT_ACTION = "save"  # what to do with figures: save, show, both
GRADCAM_LABEL = -1  # state of the map; -1 is all
GRADCAM_METHOD = "gradcam"  # weights of the map: gradcam, gradcam++
GRADCAM_TARGET = "prob"  # what is differentiated: prob, logit
ONLY_CORRECT = True  # maps of correctly classified epochs only
OCCLUSION_PATCH = 0  # pixels per side; 0 is 1/8 of the frame height (1/4 in the demo)
OCCLUSION_PARCELS = False  # hide pairs of atlas parcels instead of square patches
ATLAS = ""  # AtlasandIsbrain.mat, for region tables
MODEL_SAVEDIR = ""  # folder of the weights; the run's folder when empty
LOGS_DIR = ""  # folder of TensorBoard logs; logs/ of the run's folder when empty
RESULT_SAVEDIR = ""  # folder of figures and tables; the run's folder when empty
MODEL_NAME = ""  # published name of --run
CONFIG = ""  # JSON or YAML file with any of these settings; the command line wins
MODEL = ""  # accepted and ignored: module name in the published project
DATASET = ""  # accepted and ignored: module name in the published project

MODES = (
    "train",
    "test",
    "test_subjectwise",
    "gradcam",
    "attention_weights",
    "occlusion",
    "predict",
    "demo",
)
CHOICES = {
    "mode": MODES,
    "device": ("auto", "cpu", "gpu"),
    "split": ("epoch", "block", "mouse"),
    "num_classes": (2, 3),
    "hemisphere": ("left", "right", "both-mirrored"),
    "kernel_init": ("glorot_uniform", "he_normal"),
    "spatial_attention": ("none", "simam", "channel", "spatial", "cbam"),
    "temporal_attention": ("lstm", "dense", "none"),
    "mixed_precision": ("off", "float16", "bfloat16"),
    "loss": ("focal", "cross_entropy", "poly", "polyfocal"),
    "smooth": ("none", "median", "bout", "hmm"),
    "result_action": ("save", "show", "both"),
    "gradcam_label": (-1, 0, 1, 2),
    "gradcam_method": ("gradcam", "gradcam++"),
    "gradcam_target": ("prob", "logit"),
}
# lowest and highest value of a number
RANGES = {
    "folds": (0, None),
    "num_frames": (1, None),
    "limit_train": (0, None),
    "limit_val": (0, None),
    "workers": (1, None),
    "num_rnn_units": (1, None),
    "num_filters": (1, None),
    "num_blocks": (1, 8),
    "dropout": (0, 0.99),
    "batch_size": (1, None),
    "num_epochs": (1, None),
    "context": (0, 30),
    "lr_init": (0, 10),
    "gamma": (0, 10),
    "average": (0, 0.9999),
    "patience": (0, None),
    "frame_chunk": (1, None),
    "min_confidence": (0, 1),
    "adapt_minutes": (1, 1440),
    "occlusion_patch": (0, None),
}
IGNORED = ("model", "dataset")


@dataclass(frozen=True)
class Settings:
    """The resolved settings of a run and which of them the user gave."""

    values: dict
    given: frozenset

    def __getattr__(self, name):
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


def defaults(script_globals: dict | None = None) -> dict:
    """Return the settings by the name of their flag: the values above, or those of a script.

    Args:
        script_globals: globals, in which a user may have changed some.
    """
    script_globals = globals() if script_globals is None else script_globals
    return {name: script_globals[name.upper()] for name in comments()}


def comments() -> dict:
    """Return the comment behind every global, by the name of its flag: the help texts."""
    text = Path(__file__).read_text(encoding="utf-8")
    lines = re.finditer(r"^([A-Z_]+) = .*?  # (.+)$", text, re.M)
    return {line[1].lower(): line[2] for line in lines}


def build_parser(script_globals: dict | None = None, description: str = "") -> Parser:
    """Return the command line, one flag per setting; only given flags appear in the result."""
    parser = Parser(
        description=description,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument(
        "--demo", action="store_const", const="demo", dest="mode", help="same as --mode demo"
    )
    texts = comments()
    for name, value in defaults(script_globals).items():
        text = texts[name].replace("%", "%%")
        if value != "" and value is not False:
            text += f" (default: {value})"
        if isinstance(value, bool):
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(f"--{name}", type=type(value), choices=CHOICES.get(name), help=text)
    return parser


YES_NO = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}


def typed(
    value: Any, default: bool | int | float | str, *, from_text: bool
) -> bool | int | float | str:
    """Return ``value`` of a settings file as the type of ``default``.

    Args:
        value: what the file holds.
        default: value of the setting in this file.
        from_text: the file holds text without types (YAML), in which 1e-4, off and 0123 are what
            they look like.

    Raises:
        ValueError: it cannot be that type.
    """
    if isinstance(default, str):
        if isinstance(value, list):
            return ",".join(typed(one, "", from_text=from_text) for one in value)
        if isinstance(value, (dict, bool)) or value is None:
            raise ValueError("expected text")
        return "" if from_text and value in ("~", "null") else str(value)
    if from_text and isinstance(value, str):
        if isinstance(default, bool):
            if value.lower() not in YES_NO:
                raise ValueError("expected true or false")
            return YES_NO[value.lower()]
        return type(default)(value)
    kinds = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
        raise ValueError("another type")
    return value


def read_config_file(path: Path) -> dict:
    """Read settings from a JSON or YAML file; every key must be a known setting of the right type.

    Raises:
        InputError: unreadable file, unknown key, or a value of another type.
    """
    from_text = path.suffix.lower() in (".yml", ".yaml")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if from_text:
            try:
                # Types come from the settings: PyYAML reads 1e-4 as text, off as False, 012 as 10.
                held = yaml.BaseLoader(text).get_single_data()
            except yaml.YAMLError as error:
                raise ValueError(error) from error
        else:
            held = json.loads(text)
        if not isinstance(held, dict):
            raise ValueError("it holds no mapping of settings")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a settings file ({error})") from error
    known, values = defaults(), {}
    for key, value in held.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise InputError(
                f"{path}: unknown setting {key}; "
                + (f"did you mean {near[0]}?" if near else "see --help")
            )
        try:
            values[key] = typed(value, known[key], from_text=from_text)
        except ValueError:
            raise InputError(
                f"{path}: {key} is {value!r}; expected {type(known[key]).__name__}"
            ) from None
    return values


def check_values(values: dict) -> None:
    """Raise an InputError for a value out of its choices or range."""
    for name, allowed in CHOICES.items():
        if values[name] not in allowed:
            raise InputError(
                f"{name} is {values[name]}: expected one of {', '.join(map(str, allowed))}"
            )
    for name, (low, high) in RANGES.items():
        value = values[name]
        if not low <= value or (high is not None and not value <= high):
            limit = f"{low} or more" if high is None else f"{low} to {high}"
            raise InputError(f"{name} is {value}: expected {limit}")
    if values["num_classes"] == 2 and values["loss"] in ("poly", "polyfocal"):
        raise InputError(
            f"loss {values['loss']} needs three classes: choose focal or cross_entropy"
        )


def resolve(
    argv: list[str] | None = None, script_globals: dict | None = None, description: str = ""
) -> Settings:
    """Return the checked settings: globals of a script, then --config, then flags."""
    given = vars(build_parser(script_globals, description).parse_args(argv))
    from_file = read_config_file(Path(given["config"])) if given.get("config") else {}
    values = {**defaults(script_globals), **from_file, **given}
    check_values(values)
    if values["run"]:
        plain_name(values["run"])
    if values["full"] and values["mode"] != "demo":
        raise InputError("--full belongs to --demo")
    if values["adapt"] and values["mode"] != "predict":
        raise InputError("--adapt belongs to --mode predict")
    if values["codes"] and not values["adapt"]:
        raise InputError("--codes belongs to --adapt; nothing else here reads scores of recordings")
    return Settings(values, frozenset({*from_file, *given}))
