"""Every setting once: value, type, range, and whether it changes numbers.

``RunSettings`` holds those of main.py, ``OnsetSettings`` the recipe of the onset map, ``DemoMovie``
that of the synthetic movie. The globals and flags of the scripts are made from them.
"""

import argparse
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.faults import CLUSTER_HELP
from common.files import DATA_DIR, InputError, Parser, seed_number


@dataclass(frozen=True)
class Flag:
    """What a flag may hold.

    ``kind`` is int, float, str, Path, bool, or ``tuple`` for a comma-separated list of text.
    ``low`` and ``high`` are inclusive, ``above`` and ``below`` exclusive bounds.
    """

    kind: type
    help: str
    choices: tuple = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def read(self, name: str, text: Any) -> Any:
        """Turn ``text`` (or a value) into the flag's kind, or raise an InputError."""
        if text is None:
            return None
        try:
            value = self._convert(text)
        except (ValueError, TypeError, KeyError):
            expected = f"found {text!r}, expected {self.kind.__name__}"
            raise InputError(f"--{name}: {expected}; see --help") from None
        if self.choices and value not in self.choices:
            allowed = ", ".join(str(choice) for choice in self.choices)
            raise InputError(f"--{name}: found {value!r}, expected one of {allowed}")
        if self.kind in (int, float):
            self._check_range(name, value)
        return value

    def _convert(self, text):
        if self.kind is tuple:
            parts = text.split(",") if isinstance(text, str) else text
            return tuple(str(part).strip() for part in parts if str(part).strip())
        if self.kind is bool:
            if isinstance(text, bool):
                return text
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                str(text).lower()
            ]
        return self.kind(text)

    def _check_range(self, name, value):
        bounds = [
            (self.low is not None and value < self.low, f">= {self.low}"),
            (self.high is not None and value > self.high, f"<= {self.high}"),
            (self.above is not None and value <= self.above, f"> {self.above}"),
            (self.below is not None and value >= self.below, f"< {self.below}"),
            (self.kind is float and not math.isfinite(value), "a finite number"),
        ]
        for broken, wanted in bounds:
            if broken:
                raise InputError(f"--{name}: found {value}, expected {wanted}")


def flag_name(name: str) -> str:
    """Return the flag of a global: lower case, except for the published one-letter name T."""
    return name if len(name) == 1 else name.lower()


def parse(
    argv: Sequence[str] | None,
    description: str,
    defaults: dict,
    flags: dict[str, Flag],
    *,
    extra: Callable | None = None,
) -> argparse.Namespace:
    """Read the command line of a script whose globals are its settings.

    Args:
        argv: arguments without the program's name, or None for ``sys.argv[1:]``.
        description: first sentence of the help text.
        defaults: ``globals()`` of the script.
        flags: dict of global name (UPPER_CASE) -> Flag.
        extra: function that adds further arguments to the parser (``--demo`` for example).

    Returns:
        argparse.Namespace with lower-case names; ``given`` is the set of names set by the user.
    """
    # The help texts name the globals' values themselves.
    parser = Parser(description=description, formatter_class=argparse.HelpFormatter)
    for name, flag in flags.items():
        shown = defaults[name]
        note = f"{flag.help} (default: {','.join(shown) if isinstance(shown, tuple) else shown})"
        choices = f" [{', '.join(map(str, flag.choices))}]" if flag.choices else ""
        optional = {"nargs": "?", "const": "true"} if flag.kind is bool else {}
        parser.add_argument(
            *dict.fromkeys((f"--{flag_name(name)}", f"--{name.lower()}")),
            default=None,
            dest=flag_name(name),
            metavar=flag.kind.__name__ if flag.kind is not tuple else "A,B",
            help=(note + choices).replace("%", "%%"),
            **optional,
        )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    if extra:
        extra(parser)
    arguments = parser.parse_args(argv)
    names = [flag_name(name) for name in flags]
    arguments.given = {name for name in names if getattr(arguments, name) is not None}
    for (name, flag), key in zip(flags.items(), names, strict=True):
        text = getattr(arguments, key)
        setattr(arguments, key, flag.read(key, defaults[name] if text is None else text))
    return arguments


def published(script: str, table: dict[str, str], name: str) -> Any:
    """Return a published function of a door script from the module that holds it.

    Called by the script's ``__getattr__``: ``from main import da_rnn`` works, while ``--help``
    loads nothing heavy.

    Args:
        table: name of the function -> module that holds it.
    """
    if name not in table:
        raise AttributeError(f"module {script!r} has no attribute {name!r}")
    return getattr(importlib.import_module(table[name]), name)


def setting(
    default: Any, kind: Callable, help: str, *, numbers: bool = False, later: bool = False, **bounds
) -> Any:
    """Return the field of a setting.

    Args:
        default: its value unless a flag says otherwise.
        kind, help, bounds: see Flag.
        numbers: True when the setting changes numbers: a run goes on or is shown again only when
            these settings are the same.
        later: True for a setting that older runs do not know: it counts unless it has its default.
    """
    told = {"flag": Flag(kind, help, **bounds), "numbers": numbers, "later": later}
    return field(default=default, metadata=told)


def flags_of(settings: type) -> dict[str, Flag]:
    """Return the flags of a settings class: name of the global (UPPER_CASE) -> Flag."""
    return {f.name.upper(): f.metadata["flag"] for f in fields(settings) if "flag" in f.metadata}


def taken(settings: type, chosen: argparse.Namespace, **more) -> Any:
    """Return the settings object whose values ``chosen``, a parsed command line, holds."""
    names = [f.name for f in fields(settings) if "flag" in f.metadata]
    return settings(**{name: getattr(chosen, name) for name in names}, **more)


def number_settings(settings: "RunSettings") -> dict:
    """Return the settings that change numbers: name -> value, lists for tuples.

    Those that older runs do not know are left out while they have their default, so that such a
    run goes on.
    """
    told = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        known = not f.metadata.get("later") or value != f.default
        if f.metadata.get("numbers") and known:
            told[f.name] = list(value) if isinstance(value, tuple) else value
    return told


@dataclass(frozen=True)
class RunSettings:
    """Settings of one run of main.py (section 9)."""

    # recording
    data: Path = setting(  # noqa: RUF009  it returns a field
        DATA_DIR / "splits" / "crop_0.csv", Path, "recording, or a folder of crop_<i>.csv"
    )
    targ_cols: tuple = setting(("target",), tuple, "labels of the predicted columns", numbers=True)
    target: str = setting(
        "", str, "row,col of the target, several as row,col;row,col", numbers=True
    )
    each_target: bool = setting(False, bool, "one network for each target")
    target_grid: str = setting("", str, "R,C: one network for each of R x C pixels")
    shape: str = setting("", str, "H,W of a bare pixel CSV", numbers=True)
    gray: bool = setting(False, bool, "mean of the channels of a colour movie", numbers=True)
    legacy_labels: str = setting(
        "reference",
        str,
        "labels of a published CSV",
        choices=("reference", "intended"),
        numbers=True,
    )
    allow_duplicate_target: bool = setting(
        False, bool, "accept a driving series equal to the target"
    )
    time_column: str = setting(
        "auto",
        str,
        "clock of a table: auto, none, or the name of a column",
        numbers=True,
        later=True,
    )
    frame_rate_hz: float = setting(
        0.0, float, "frames per second of the recording, 0 = from the file", low=0
    )
    frame_times: str = setting(
        "", str, "file with the time in s of every frame, one a line, empty = from the file"
    )
    pixel_um: float = setting(
        0.0, float, "size of a pixel in micrometres, 0 = from the file", low=0
    )
    row_um: float = setting(
        0.0, float, "height of a pixel where it is not its width, 0 = the same", low=0
    )
    offset: float = setting(0.0, float, "level of darkness in units of the recording")
    mask: str = setting(
        "",
        str,
        "picture or NPY (H, W), not 0 where the recording has data",
        numbers=True,
        later=True,
    )
    bad_frames: str = setting(
        "",
        str,
        "frames without a picture, such as 3,17-20, or a file of them; none; auto = those of one"
        " colour and repeated ones; empty = those of one colour",
        numbers=True,
        later=True,
    )
    channel: str = setting(
        "", str, "k/n: the k-th of n channels whose frames follow each other", numbers=True,
        later=True,
    )  # fmt: skip
    haemodynamic: str = setting(
        "", str, "correct the channel by the other one of a pair (470 and 405 nm)",
        choices=("", "ratio", "regress"), numbers=True, later=True,
    )  # fmt: skip
    crop: str = setting(
        "", str, "top,left,height,width of the part that is used", numbers=True, later=True
    )
    axes: str = setting(
        "", str, "order of the axes of an array where frames are not first: HWF, KF", numbers=True,
        later=True,
    )  # fmt: skip
    dataset: str = setting(
        "", str, "name of the dataset in an HDF5 file of several", numbers=True, later=True
    )
    # model
    T: int = setting(10, int, "window parameter, rows", low=2, numbers=True)
    encoder_hidden_size: int = setting(64, int, "hidden size m", low=1, numbers=True)
    decoder_hidden_size: int = setting(64, int, "hidden size p", low=1, numbers=True)
    attention: str = setting(
        "linear", str, "input attention", choices=("linear", "tanh"), numbers=True
    )
    readout: str = setting(
        "bottom", str, "decoder layer of the output", choices=("bottom", "top"), numbers=True
    )
    predict: str = setting(
        "level", str, "what the output is", choices=("level", "change"), numbers=True
    )
    layers: int = setting(2, int, "LSTM layers", low=1, high=8, numbers=True)
    attention_scale: str = setting(
        "1", str, "factor on the weighted series, n = their number", numbers=True
    )
    horizon: int = setting(
        2, int, "rows from the last history row to the target row", low=1, numbers=True
    )
    current_x: bool = setting(False, bool, "driving series up to the target row", numbers=True)
    # training
    batch_size: int = setting(20, int, "windows in a step", low=1, numbers=True)
    n_epochs: int = setting(5, int, "epochs", low=0)
    learning_rate: float = setting(0.01, float, "rate of Adam", above=0, numbers=True)
    train_fraction: float = setting(
        0.7, float, "first part of the recording", above=0, below=1, numbers=True
    )
    validation: float = setting(
        0.0, float, "last part of the training rows", low=0, high=0.5, numbers=True
    )
    scaler: str = setting(
        "train", str, "rows that mean and scale come from", choices=("train", "all"), numbers=True
    )
    shuffle_pixels: str = setting(
        "epoch", str, "order of the driving series", choices=("epoch", "none"), numbers=True
    )
    seed: int = setting(0, seed_number, "seed of every random choice", numbers=True)
    device: str = setting("auto", str, "where to compute: auto, cpu, gpu or cuda, cuda:k, mps")
    jobs: int = setting(1, int, "runs at the same time", low=1)
    cluster: str = setting("", str, CLUSTER_HELP)
    # results
    run: str = setting("run", str, "name of the run, its folder in the results; a demo's: demo")
    weight_tensor_dir: str = setting("", str, "file of the weight tensor")
    iter_loss_dir: str = setting("", str, "file of the iteration losses")
    epoch_loss_dir: str = setting("", str, "file of the epoch losses")
    final_y_pred_dir: str = setting("", str, "file of the prediction")
    save_weight_tensor: str = setting(
        "auto", str, "form of the attention", choices=("full", "compact", "auto")
    )
    max_ram: float = setting(4.0, float, "GB for the weight tensor in memory", above=0)
    # displays
    save_plots: bool = setting(True, bool, "draw the plots")
    maps: bool = setting(True, bool, "draw the maps and compute the importance")
    map: str = setting(
        "reference",
        str,
        "map of the movie",
        choices=("reference", "attention", "control", "signed"),
    )
    clim: str = setting(
        "frame", str, "colour limits of the movie", choices=("frame", "global", "p99")
    )
    align: str = setting("target", str, "frame behind the map", choices=("target", "input"))
    fps: float = setting(5.0, float, "frames per second of the movie", above=0)
    movie: str = setting(
        "mp4+gif", str, "kinds of movie", choices=("mp4+gif", "mp4", "gif", "none")
    )
    block: int = setting(4, int, "side of an importance block, pixels", low=1)
    importance_every: int = setting(7, int, "every k-th training window", low=1)
    importance_repeats: int = setting(3, int, "permutations of a block", low=1)
    error_rate: float = setting(
        0.0, float, "chance of any false driver in the search for drivers, 0 = none", low=0, below=1
    )
    gradient_epochs: int = setting(
        1, int, "last epochs whose networks the gradient map is the mean of", low=1, numbers=True,
        later=True,
    )  # fmt: skip

    # no flags of their own
    run_dir: Path | None = None  # folder of the run; None: results/csd_darnn/<run>
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class OnsetSettings:
    """Recipe of the onset map (section 13, item 4)."""

    smooth_s: float = setting(2.0, float, "length of the moving average in s", above=0)
    hold_s: float = setting(5.0, float, "time that a rise has to last in s", above=0)
    smooth_frames: int = setting(20, int, "the same in frames where the rate is unknown", low=1)
    hold_frames: int = setting(50, int, "that time in frames where the rate is unknown", low=1)
    least_score: float = setting(
        5.0, float, "height of a rise over the noise of the record that counts", above=0
    )
    polarity: str = setting("rise", str, "which way a wave changes the light",
                            choices=("rise", "fall"))  # fmt: skip
    surrogates: int = setting(199, int, "records with shifted blocks a wave is tested on", low=0)
    error_rate: float = setting(
        0.01, float, "share of surrogates that may hold as much as a wave", above=0, high=1
    )
    bootstrap: int = setting(200, int, "resamplings of blocks for the interval of the speed", low=0)
    seed: int = setting(0, seed_number, "seed of the surrogates and of the resampling")
    least_peak: float | None = None  # pixels with a smaller peak (dF/F) are left out


@dataclass(frozen=True)
class DemoMovie:
    """Recipe of the synthetic movie (section 4.5)."""

    seed: int = setting(0, seed_number, "seed of every random choice")
    height: int = setting(18, int, "rows of the movie in pixels", low=8)
    width: int = setting(23, int, "columns of the movie in pixels", low=10)
    n_frames: int = setting(3000, int, "number of frames", low=200)
    frame_rate_hz: float = setting(10.0, float, "frames per second", above=0)
    field_mm: float = setting(4.0, float, "width of the field of view in mm", above=0)
    train_csd: bool = setting(False, bool, "add a wave inside the training part")
    depression: bool = setting(False, bool, "silence spontaneous events for 120 s behind the wave")
    driver: bool = setting(
        True, bool, "false is the negative control: the patch carries no private events"
    )


# The flags that tell what the numbers of a recording mean; onset.py takes them, too.
SCALE_NAMES = (
    "frame_rate_hz", "frame_times", "pixel_um", "row_um", "offset", "mask", "bad_frames", "channel",
    "haemodynamic", "crop", "axes", "dataset",
)  # fmt: skip


def given_scales(chosen: argparse.Namespace) -> RunSettings:
    """Return RunSettings with the scales of a command line that has SCALE_NAMES as flags."""
    names = [name for name in SCALE_NAMES if hasattr(chosen, name)]  # resize.py has some of them
    return RunSettings(**{name: getattr(chosen, name) for name in names})
