"""A cohort from DICOM files to the linked movies of a split, step by step."""

import sys
from pathlib import Path

from inputs.echonet import prepare
from inputs.flow_files import flow_options, flow_root
from inputs.preprocessing import OPTIONS, preprocess_root
from inputs.splits import make_splits, split_root
from inputs.utils import split_file
from settings import echonet_settings, flow_settings, flow_size_of_text, preprocess_settings


def step(text: str) -> None:
    """Print the heading of a step."""
    print(f"-- {text}", flush=True)


def prepare_all(root: Path, echonet: Path | None, settings: dict) -> None:
    """Prepare the cohort and, where there is one, the EchoNet-Dynamic folder for pre-training."""
    prepare_cohort(Path(root), settings)
    if echonet is not None:
        step("EchoNet movies and flow")
        names = ("nframes", "nrows", "ncols", "workers")
        prepare(Path(echonet), echonet_settings(**{name: settings[name] for name in names}))


def prepare_cohort(root: Path, settings: dict) -> None:
    """Sort, resize, normalise and link the movies of a cohort; write a split file if there is none.

    Args:
        root: folder with DICOMs and REDcap_class.csv.
        settings: those of ``main.py``.
    """
    splitnum, workers = settings["splitnum"], settings["workers"]
    if not split_file(root, splitnum).exists():
        step(f"no split file {splitnum}: drawing one by patient")
        (path,) = make_splits(
            root,
            1,
            first=splitnum,
            all_patients=True,  # files may have come since the last run
            stratify=True,
            seed=settings["seed"],
            val_fraction=settings["val_fraction"],
            test_fraction=settings["test_fraction"],
        )
        print(f"{path.name} written in {root}")
    names = ("nframes", "nrows", "ncols", "stats", "splitnum", "workers")
    shared = {name: settings[name] for name in names}
    step("preprocess, optical flow in the same pass")
    names = ("crop", "deid", "resample_fps", "frame_rate", "store", "debug")
    grey = preprocess_settings(**shared, **{name: settings[name] for name in names})
    flow_size = settings["flow_size"] and flow_size_of_text(settings["flow_size"])
    flow = flow_settings(**shared, flow_size=flow_size, flow_unit=settings["flow_unit"])
    options = {name: getattr(grey, name) for name in OPTIONS}
    failed = preprocess_root(root, grey, flow_options(options, flow))
    failed |= flow_root(root, flow)
    step("split")
    split_root(root, splitnum, workers=workers)
    if failed:
        print("warning: some files failed, see manifest.csv", file=sys.stderr)
