"""Sizes of the demo, its data and its targets."""

from common.files import InputError

# Presets: the demo must end within 4 minutes on 2 cores; --full is the larger one.
COMMON = {
    "depth": 18,
    "width": 8,
    "lr": 1e-3,
    "batch_size": 8,
    "pretrain_epoch": 1,
    "class_weight": "balanced",
    # The AUC of few validation patients is noise; the loss also minds how high probabilities are.
    "ckpt_monitor": "val_loss",
    "val_clips": 2,
    "nsamples": 4,
}
SMALL = COMMON | {
    "epoch": 24,
    "nframes": 16,  # 0.8 s at the frame rate below, about one beat
    "resample_fps": 20.0,
    "nrows": 32,
    "ncols": 32,
    "val_fraction": 0.12,
    "test_fraction": 0.36,
}
FULL = COMMON | {
    "epoch": 14,
    "nframes": 32,
    "nrows": 56,
    "ncols": 56,
    "val_fraction": 0.1,
    "test_fraction": 0.25,
}
QUICK = COMMON | {
    "width": 4,
    "epoch": 1,
    "nframes": 8,
    "nrows": 32,
    "ncols": 32,
    "val_fraction": 0.2,
    "test_fraction": 0.35,
    "nsamples": 1,
}
COHORTS = {  # patients, rows, columns, frames, movies per patient, EchoNet videos and their frames
    "small": (220, 120, 160, 48, (1, 1), 12, (36, 48)),
    "full": (110, 300, 400, 40, (1, 2), 40, (60, 250)),
    "quick": (12, 96, 128, 32, (1, 1), 8, (34, 36)),
}
TARGETS = {"strong": (0.8, 1.0), "realistic": (0.0, 1.0), "none": (0.3, 0.7)}


def preset_name(settings: dict) -> str:
    """Return small, full or quick."""
    return "full" if settings["full"] else "quick" if settings["quick"] else "small"


def demo_settings(settings: dict, given: set[str]) -> dict:
    """Return ``settings`` with the preset of the demo, except for the flags in ``given``."""
    if settings["root"] is not None:
        raise InputError("--demo makes its own cohort: leave --root away")
    preset = {"small": SMALL, "full": FULL, "quick": QUICK}[preset_name(settings)]
    return settings | {key: value for key, value in preset.items() if key not in given}
