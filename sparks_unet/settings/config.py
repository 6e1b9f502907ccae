"""Constants of the project and the frozen dataclasses that hold every setting of a run.

The metadata of a field name the section and key of the INI file it is read from (read_config.py),
so that defaults, allowed values, printing and the resolved copy come from one place.

Source: specification sections 4.2, 8.2, 9.
"""

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path

from common.files import FOLDER, RESULTS_DIR
from settings.config_kinds import (
    ARCHITECTURE,
    BOOL,
    COUNT,
    DILATION,
    FRACTION,
    IDS,
    NORMALIZATION,
    POSITIVE,
    RECORDING,
    SCAN,
    TEXT,
    UNSCORED,
    choice,
    integer,
    integers,
    number,
)
from settings.recording import Given

IGNORE_INDEX = 4
NUM_CLASSES = 4
NDIMS = 3  # a fixed parameter of the published project, kept for its users
CLASSES = {"background": 0, "sparks": 1, "waves": 2, "puffs": 3, "ignore": IGNORE_INDEX}
EVENT_CLASSES = ("sparks", "waves", "puffs")

TEST_IDS = ("05", "10", "15", "20", "25", "32", "34", "40", "45")
MISSING_IDS = ("26", "31", "37")  # numbers that the published data set leaves out
TRAIN_IDS = tuple(f"{n:02d}" for n in range(1, 47) if f"{n:02d}" not in TEST_IDS + MISSING_IDS)
MINIMAL_IDS = (("01",), ("34",))  # (training, test)
FOCAL_CRITERIA = ("focal_loss", "sum_losses")

logger = logging.getLogger("sparks_unet")


def _key(section, default, kind, *, name=None):
    return field(default=default, metadata={"section": section, "kind": kind, "name": name})


@dataclass(frozen=True)
class PostParams:
    """Settings of post-processing and matching; sizes in um and ms, whatever the recording."""

    segmentation: str = _key("postprocessing", "argmax", choice("argmax", "threshold"))
    min_spark_distance_um: float = _key("postprocessing", 1.8, number(0, above=True))
    min_spark_distance_ms: float = _key("postprocessing", 20.0, number(0, above=True))
    sigma_peaks: float = _key("postprocessing", 3.0, number(0))
    sigma_peaks_dataset: float = _key("postprocessing", 2.0, number(0))
    gap_waves: int = _key("postprocessing", 2, COUNT)
    gap_puffs: int = _key("postprocessing", 2, COUNT)
    min_spark: tuple = _key("postprocessing", (2, 3, 3), integers(3))  # frames, rows, columns
    min_puff_frames: int = _key("postprocessing", 5, COUNT)
    min_wave_width_um: float = _key("postprocessing", 15.0, number(0))
    min_wave_extent: str = _key("postprocessing", "x", choice("x", "max"))
    iomin: float = _key("postprocessing", 0.5, number(0, 1, above=True))
    max_events_training: int = _key("postprocessing", 5000, POSITIVE)
    fill_holes: bool = _key("postprocessing", False, BOOL)
    t_sparks: float = _key("postprocessing", 0.65, FRACTION)
    t_puffs: float = _key("postprocessing", 0.65, FRACTION)
    t_waves: float = _key("postprocessing", 0.6, FRACTION)
    sparks_min_radius: int = _key("postprocessing", 0, COUNT)
    puffs_min_radius: int = _key("postprocessing", 5, COUNT)
    waves_min_radius: int = _key("postprocessing", 0, COUNT)
    fixed_threshold: float | None = _key("postprocessing", None, FRACTION)
    convex_puffs: bool = _key("postprocessing", False, BOOL)
    # a puff joins a wave when this share of its surroundings is wave; 0: published, none does
    wave_rims: float = _key("postprocessing", 0.0, FRACTION)
    split_puffs: float = _key("postprocessing", 0.0, FRACTION)  # probability of a puff of its own
    mark_margins: int = _key("postprocessing", 0, COUNT)  # events touching n end frames: ignored
    ignore_frames: int = 6  # a copy of [training] ignore_frames_loss


@dataclass(frozen=True)
class Params:
    """All settings of one run, converted once from an INI file."""

    wandb_enable: bool = _key("general", False, BOOL)
    wandb_notes: str = _key("general", "", TEXT)
    wandb_project_name: str = _key("general", "sparks", TEXT)
    wandb_mode: str = _key("general", "offline", choice("offline", "online", "disabled"))
    tensorboard: bool = _key("general", False, BOOL)
    training: bool = _key("general", False, BOOL)
    testing: bool = _key("general", False, BOOL)
    debug_mode: bool = _key("general", False, BOOL)  # 4 chunks a pass, anomaly detection
    verbosity: int = _key("general", 2, integer(0, 3))  # 0 error, 1 warning, 2 info, 3 debug
    logfile: str = _key("general", "", TEXT)
    output_relative_path: str = _key("general", "", TEXT)  # empty: results/sparks_unet

    run_name: str = _key("training", "TEST", TEXT)
    load_run_name: str = _key("training", "", TEXT)
    load_epoch: int = _key("training", 0, COUNT)
    train_epochs: int = _key("training", 5000, COUNT)  # iterations, not passes over the data
    criterion: str = _key(
        "training",
        "lovasz_softmax",
        choice(
            *("nll_loss", "focal_loss", "lovasz_softmax", "sum_losses", "dice_loss"),
            *("dice_nll_loss", "nll_then_lovasz"),
        ),
    )
    switch_iteration: int = _key("training", 0, COUNT)  # nll_then_lovasz: first Lovasz iteration
    class_weights: str = _key("training", "inverse", choice("inverse", "sqrt", "none"))
    lr_start: float = _key("training", 1e-4, number(0, above=True))
    ignore_frames_loss: int = _key("training", 6, COUNT)
    gamma: float = _key("training", 2.0, number(0))
    w: float = _key("training", 0.5, FRACTION)
    cuda: bool = _key("training", True, BOOL)
    optimizer: str = _key("training", "adam", choice("adam", "adadelta", "sgd"))
    scheduler: str = _key("training", "none", choice("none", "step", "cosine", no="none"))
    step_size: int = _key("training", 0, COUNT)  # cosine: iterations of the whole fall
    scheduler_gamma: float = _key("training", 0.1, number(0, above=True))  # cosine: of the whole
    warmup_iterations: int = _key("training", 0, COUNT)  # cosine: linear rise to lr_start
    freeze_norm_iteration: int = _key("training", 0, COUNT)  # batch statistics fixed from here
    average_iteration: int = _key("training", 0, COUNT)  # weights: mean of the iterations from here
    save_every: int = _key("training", 5000, POSITIVE)
    test_every: int = _key("training", 1000, POSITIVE)
    print_every: int = _key("training", 100, POSITIVE)
    save_validation_movies: bool = _key("training", False, BOOL)
    seed: int = _key("training", 0, COUNT)
    sampling: str = _key("training", "epoch", choice("epoch", "independent"))
    amp: bool = _key("training", False, BOOL)
    channels_last: bool = _key("training", False, BOOL)
    compile: bool = _key("training", False, BOOL)

    relative_path: str = _key("dataset", "", TEXT)
    dataset_size: str = _key("dataset", "full", choice("full", "minimal"))
    train_ids: tuple = _key("dataset", (), IDS)
    test_ids: tuple = _key("dataset", (), IDS)
    val_ids: tuple = _key("dataset", (), IDS)
    batch_size: int = _key("dataset", 4, POSITIVE)
    num_workers: int = _key("dataset", 0, COUNT)
    data_duration: int = _key("dataset", 256, POSITIVE)
    data_stride: int = _key("dataset", 32, POSITIVE)
    data_smoothing: str = _key(
        "dataset", "none", choice("2d", "3d", "gaussian2d", "none", no="none")
    )
    full_scale: float = _key("dataset", 65535.0, number(0, above=True))  # 1 under abs_max
    norm_video: str = _key(
        "dataset",
        "abs_max",
        choice("abs_max", "movie", "chunk", "std_dev", "none", no="none"),
    )
    remove_background: str = _key(
        "dataset", "none", choice("average", "moving", "chunk_average", "none", no="none")
    )
    only_sparks: bool = _key("dataset", False, BOOL)
    noise_data_augmentation: bool = _key("dataset", False, BOOL)
    noise_sigma: float = _key("dataset", 0.1, number(0))
    noise_gain: float = _key("dataset", 60.0, number(0, above=True))
    noise_legacy: bool = _key("dataset", False, BOOL)
    sparks_type: str = _key(
        "dataset", "raw", choice("raw", "peaks", "small", "dilated", smaller="small")
    )
    new_fps: int = _key("dataset", 0, COUNT)  # frames per second; 0: as recorded
    new_pixel_um: float = _key("dataset", 0.0, number(0))  # edge of a pixel; 0: as recorded
    split_jumps: float = _key("dataset", 0.0, number(0))  # relative intensity jump; 0: no split
    unscored: tuple = _key("dataset", (), UNSCORED)  # id:class whose annotation is missing
    sin_channels: bool = _key("dataset", False, BOOL)
    n_sin_channels: tuple = _key("dataset", (0, 0, 0), integers(3))  # t, y, x

    nn_architecture: str = _key("network", "pablos_unet", ARCHITECTURE)
    unet_steps: int = _key("network", 6, integer(1, 7))
    first_layer_channels: int = _key("network", 8, POSITIVE)
    num_channels: int = _key("network", 1, POSITIVE)
    temporal_reduction: bool = _key("network", False, BOOL)
    dilation: int = _key("network", 1, DILATION)
    border_mode: str = _key("network", "same", choice("same", "valid"))
    batch_normalization: str = _key("network", "none", NORMALIZATION)
    initialize_weights: bool = _key("network", False, BOOL)
    attention: bool = _key("network", False, BOOL)
    up_mode: str = _key(
        "network",
        "transpose",
        choice(
            *("transpose", "resizeconv_nearest", "resizeconv_linear"),
            *("resizeconv_nearest1", "resizeconv_linear1"),
        ),
    )

    inference: str = _key("inference", "overlap", choice("overlap", "average", "gaussian", "max"))
    inference_data_duration: int = _key("inference", 0, COUNT, name="data_duration")
    inference_data_stride: int = _key("inference", 0, COUNT, name="data_stride")
    inference_batch_size: int = _key("inference", 4, POSITIVE, name="batch_size")
    inference_dataset_size: str = _key(
        "inference", "full", choice("full", "minimal"), name="dataset_size"
    )
    inference_load_epoch: int = _key("inference", 100000, COUNT, name="load_epoch")

    # Differs: raw_* are rounded to steps of 2^-raw_bits: 2.5 times the room of the movie as the
    # network sees it instead of 6, with masks 3.6 (trained demo network; a trained network at full
    # resolution is not measured); events are found in the exact ones; 0 and 24 keep every bit
    raw_bits: int = _key("inference", 14, integer(0, 24))
    tile: tuple = _key("inference", (0, 0), integers(2))  # rows, columns; 0: the whole frame

    # of the recordings, where their files do not say it or say it wrong; None: as in the file
    pixel_size_um: tuple | None = _key("postprocessing", None, RECORDING["pixel_um"])
    frame_ms: float | None = _key("postprocessing", None, RECORDING["frame_ms"])
    offset_counts: float | None = _key("postprocessing", None, RECORDING["offset"])
    cell_mask: str = _key("postprocessing", "", TEXT)  # ImageJ ROI or TIFF of the cell
    axes: str | None = _key("dataset", None, RECORDING["axes"])
    channel: int | None = _key("dataset", None, RECORDING["channel"])
    z: int | None = _key("dataset", None, RECORDING["z"])
    linescan: str | None = _key("dataset", None, SCAN)
    flagged: tuple = ()  # names in Given of the values that flags gave
    postprocessing: PostParams = PostParams()
    config_path: Path | None = None

    @property
    def given(self) -> Given:
        """What the user says about the recordings."""
        return Given(
            self.pixel_size_um,
            self.frame_ms,
            self.offset_counts,
            axes=self.axes,
            channel=self.channel,
            z=self.z,
            linescan=self.linescan,
            cell_mask=Path(self.cell_mask) if self.cell_mask else None,
            flagged=self.flagged,
        )

    @property
    def output_dir(self) -> Path:
        """Folder of this run."""
        base = Path(self.output_relative_path) if self.output_relative_path else RESULTS_DIR
        return base / self.run_name

    @property
    def load_dir(self) -> Path:
        """Folder of the run that ``load_epoch`` is loaded from."""
        return self.output_dir.parent / (self.load_run_name or self.run_name)

    @property
    def data_dir(self) -> Path:
        """Data folder: absolute, else beside the config file, in this folder, in the repository."""
        given = Path(self.relative_path)
        bases = [FOLDER, FOLDER.parent]
        if self.config_path is not None:
            bases.insert(0, self.config_path.parent)
        candidates = [base / given for base in bases]
        return next((path for path in candidates if path.is_dir()), candidates[-1])

    def ids(self, part: str) -> tuple[str, ...]:
        """Return the movie ids of ``part``: train, test or val (val falls back to test)."""
        if part == "val":
            return self.val_ids or self.ids("test")
        index = {"train": 0, "test": 1}[part]
        given = (self.train_ids, self.test_ids)[index]
        size = (self.dataset_size, self.inference_dataset_size)[index]
        if not given and "minimal" in (size, self.dataset_size):
            return MINIMAL_IDS[index]
        return given or (TRAIN_IDS, TEST_IDS)[index]

    def unscored_classes(self, movie_id: str) -> tuple[str, ...]:
        """Return the classes that are not scored in a movie or in a part of it, ("sparks", ...)."""
        pairs = (text.split(":") for text in self.unscored)
        return tuple(name for one, name in pairs if one == movie_id.partition("-")[0])

    @property
    def chunk(self) -> tuple[int, int]:
        """(duration, stride) in frames at inference."""
        return (
            self.inference_data_duration or self.data_duration,
            self.inference_data_stride or self.data_stride,
        )

    @property
    def input_channels(self) -> int:
        """Channels that the network sees."""
        extra = sum(self.n_sin_channels) if self.sin_channels else 0
        return (1 if self.temporal_reduction else self.num_channels) + extra


def _keys():
    """Return {(section, key): field} of Params and PostParams."""
    keys = {}
    for owner in (Params, PostParams):
        for one in dataclasses.fields(owner):
            if "section" in one.metadata:
                keys[(one.metadata["section"], one.metadata["name"] or one.name)] = one
    return keys


KEYS = _keys()


def _value(params, one):
    """Return the value of a field of Params or of its PostParams."""
    owner = params if hasattr(Params, one.name) else params.postprocessing
    return getattr(owner, one.name)


def _as_text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value)
    return "" if value is None else str(value)


def to_ini(params: Params) -> str:
    """Return the settings as the text of an INI file that reads back to the same Params."""
    lines = []
    for section in dict.fromkeys(section for section, _ in KEYS):
        lines.append(f"[{section}]")
        for (part, key), one in KEYS.items():
            if part == section:
                lines.append(f"{key} = {_as_text(_value(params, one))}".rstrip())
        lines.append("")
    return "\n".join(lines)


def to_dict(params: Params) -> dict[str, dict[str, object]]:
    """Return {section: {key: value}} for JSON and for the loggers."""
    record = {}
    for (section, key), one in KEYS.items():
        value = _value(params, one)
        record.setdefault(section, {})[key] = list(value) if isinstance(value, tuple) else value
    return record


def describe(params: Params) -> list[str]:
    """Return the lines that a run prints; a parameter that plays no part is left out."""
    skip = set()
    if params.criterion not in FOCAL_CRITERIA:
        skip.add("gamma")
    if params.criterion != "sum_losses":
        skip.add("w")
    if params.criterion != "nll_then_lovasz":
        skip.add("switch_iteration")
    if params.scheduler == "none":
        skip |= {"step_size", "scheduler_gamma"}
    if params.scheduler != "cosine":
        skip.add("warmup_iterations")
    skip |= {n for n in ("freeze_norm_iteration", "average_iteration") if not getattr(params, n)}
    if not params.load_epoch:
        skip |= {"load_run_name", "load_epoch"}
    if not params.only_sparks:
        skip.add("only_sparks")
    if params.dilation == 1:
        skip.add("dilation")
    if not params.noise_data_augmentation:
        skip |= {"noise_sigma", "noise_gain", "noise_legacy"}
    if params.nn_architecture != "github_unet":
        skip |= {"attention", "up_mode"}
    if params.postprocessing.segmentation == "argmax":
        skip |= {f"t_{name}" for name in EVENT_CLASSES} | {"fixed_threshold", "convex_puffs"}
        skip |= {f"{name}_min_radius" for name in EVENT_CLASSES}
    lines = []
    for section, values in to_dict(params).items():
        lines.append(f"[{section}]")
        lines += [f"  {key}: {value}" for key, value in values.items() if key not in skip]
    return lines


def settings_of(params: Params) -> dict:
    """Return the settings as one flat dict {section.key: value}."""
    record = to_dict(params)
    return {f"{section}.{k}": v for section, part in record.items() for k, v in part.items()}
