"""Every setting once: name, type, unit; the schema of conf/*.yaml, which holds the values.

``runs/configuration.py`` lays the composed YAML over these classes, so that a value of another type
is refused in one line and ``key=no`` means false, as in a YAML file.
"""

from dataclasses import dataclass, field
from typing import Any

SETS = ("tiny", "small", "full", "scenes", "published")  # synthetic stimuli: 9, 57, 146, 537; 119
TEMPORAL = ("auto", "recursive", "chunk", "fft", "conv")
# {key: (least, most, whether the ends themselves are allowed)}; None is no bound
RANGES = {
    "dataset.sampling_rate": (0, None, False),
    "dataset.mov_res": (0, None, False),
    "dataset.mov_bg_int": (0, 1, True),
    "dataset.loss_meas_t_start": (None, None, True),
    "dataset.num_t_pts_prepad": (0, None, True),
    "batch_size": (1, None, True),
    "lr": (0, None, False),
    "lr_warmup": (0, None, True),
    "clip_max_norm": (0, None, False),
    "n_epochs": (1, None, True),
    "seed": (0, None, True),
    "norm_skip_frames": (0, None, True),
    "val_fraction": (0, 1, True),
    "early_stop": (1, None, True),
    "position_lr": (0, None, False),
    "position_sd": (0, 12, False),
    "num_workers": (0, None, True),
    "print_freq": (1, None, True),
}
CHOICES = {
    "dataset.nan": ("reject", "drop_trial"),
    "lr_decay": ("none", "cosine"),
    "temporal_impl": TEMPORAL,
    "prepad": ("frames", "settled", "thinned"),
    "readout": ("legacy", "center"),
    "init": ("reference", "fast"),
    "position": ("recorded", "learned"),
    "read_outs": ("trained", "kept"),
    "val_by": ("stimulus", "neuron"),
    "device": ("auto", "cpu", "gpu", "cuda"),
}


@dataclass
class DatasetSettings:
    """conf/dataset/*.yaml: where the recordings lie and how they are cut."""

    name: str
    ca_path: str  # folder with one folder per cell type
    mov_path: str  # folder of vstim_*.pt
    sampling_rate: float  # Hz, of traces and movies
    avg_xTrials: bool  # one item is the mean over trials
    mov_res: float  # degrees per pixel
    mov_bg_int: float  # grey of the background, 0..1
    loss_meas_t_start: float  # s from stimulus onset
    num_t_pts_prepad: int  # grey frames before each item
    nan: str = "reject"  # reject | drop_trial
    make: dict[str, Any] | None = None  # recipe of a synthetic set, made on first use


@dataclass
class LensSettings:
    """model.pr: optics of the eye and the photoreceptor's filter."""

    config_type: str
    in_channels: list[int]
    out_channels: list[int]
    ds_input: list[float]  # degrees per pixel: row, column
    pr_sigma: list[float]  # full width at half maximum, degrees
    x_kernel_size: list[int]
    x_stride: list[int]
    x_padding: list[int]
    tau: float  # s
    t_kernel_size: int  # frames
    layer_name: str = "photoreceptor"
    movie_bg_intensity: float | None = None  # of old files; nothing reads it


@dataclass
class LayersSettings:
    """model.network: the hidden layers."""

    config_type: str
    in_channels: list[int]
    out_channels: list[int]
    x_kernel_size: list[Any]  # one number, or row and column, per layer
    x_stride: list[Any]
    x_padding: list[Any]
    tau_init: list[float]  # log10 seconds, low and high
    activation: Any  # a name, or one per layer
    t_kernel_size: int  # frames
    init_amplitude_scale: float
    layer_name: str = ""
    n_power_init: list[float] | None = None
    bias_init: list[float] | None = None


@dataclass
class ReadOutSettings(LayersSettings):
    """model.lobula: what the read-outs of all types share."""

    lc_types: list[str] = field(default_factory=list)  # filled at run time, like the next one
    lc_count: list[int] = field(default_factory=list)


@dataclass
class CalciumSettings:
    """model.ca: the calcium indicator."""

    config_type: str
    gcamp_tau: list[float]  # s, low and high
    alpha_init: list[float]
    beta_init: list[float]
    activation: str
    use_global_ca_tau: bool
    t_kernel_size: int  # frames
    cell_types: list[str] = field(default_factory=list)  # filled at run time, like the next one
    cell_count: list[int] = field(default_factory=list)


MODEL_BLOCKS = {
    "pr": LensSettings,
    "network": LayersSettings,
    "lobula": ReadOutSettings,
    "ca": CalciumSettings,
}


@dataclass
class TrainingSettings:
    """conf/config.yaml: what changes the numbers of a run and what does not (the last block)."""

    dataset: DatasetSettings
    model: dict[str, Any]  # conf/model/*.yaml, checked by network/model_factory.py
    batch_size: int
    shuffle_dataset: bool
    lr: float
    lr_warmup: int  # steps
    lr_decay: str  # none | cosine
    clip_max_norm: float | None  # global L2 norm
    n_epochs: int
    seed: int
    mixed_precision: bool
    temporal_impl: str  # auto | recursive | chunk | fft | conv
    readout: str  # legacy | center
    init: str  # reference | fast
    norm_skip_frames: int
    prepad: str  # frames | settled | thinned
    position: str  # recorded | learned
    position_lr: float  # degrees a step, of learned places
    position_sd: float  # degrees, spread from which their places are drawn, at the start
    oversample: dict[Any, Any]  # {"barcode" or "first-last": times drawn per epoch}
    resume: str | None
    trunk: str | None
    read_outs: str  # trained | kept
    val_fraction: float  # 0 to 1
    val_by: str  # stimulus | neuron
    val_stimuli: list[Any]  # barcodes or "first-last"
    early_stop: int | None  # epochs
    keep_best: bool
    shuffle_labels: bool
    clip_param: dict[str, Any]  # bounds by name of a parameter
    # no influence on the numbers
    repo_root: str
    debug: bool
    num_workers: int
    print_freq: int  # iterations
    device: str  # auto | cpu | gpu | cuda
    detect_anomaly: bool
    expt_path: str
    expt_name: str
