"""Every setting once: name, type, unit; the schema of conf/*.yaml, which holds the values.

``runs/configuration.py`` lays the composed YAML over these classes, so that a value of another type
is refused in one line and ``key=no`` means false, as in a YAML file.
"""

from dataclasses import dataclass
from typing import Any

SETS = ("tiny", "small", "full")  # synthetic stimuli: 9, 57, 146


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
    temporal_impl: str  # recursive | chunk | fft | conv
    readout: str  # legacy | center
    init: str  # reference | fast
    norm_skip_frames: int
    oversample: dict[Any, Any]  # {"barcode" or "first-last": times drawn per epoch}
    resume: str | None
    trunk: str | None
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
