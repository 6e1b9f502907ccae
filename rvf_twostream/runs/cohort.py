"""A cohort from DICOM files to the linked movies of a split, step by step."""

import sys
from pathlib import Path

from inputs.echonet import prepare
from inputs.flow_files import flow_root
from inputs.preprocessing import preprocess_root
from inputs.splits import make_splits, split_root
from inputs.utils import split_file
from settings import echonet_settings, flow_settings, preprocess_settings, size_of_text


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
        paths = make_splits(
            root,
            splitnum + 1,
            stratify=True,
            seed=settings["seed"],
            val_fraction=settings["val_fraction"],
            test_fraction=settings["test_fraction"],
        )
        print(f"{len(paths)} split files: {paths[0].name} .. {paths[-1].name} in {root}")
    names = ("nframes", "nrows", "ncols", "stats", "splitnum", "workers")
    shared = {name: settings[name] for name in names}
    step("preprocess")
    names = ("crop", "deid", "resample_fps", "debug")
    more = {name: settings[name] for name in names}
    failed = preprocess_root(root, preprocess_settings(**shared, **more))
    step("optical flow")
    flow_size = settings["flow_size"] and size_of_text(settings["flow_size"])
    failed |= flow_root(root, flow_settings(**shared, flow_size=flow_size))
    step("split")
    split_root(root, splitnum, workers=workers)
    if failed:
        print("warning: some files failed, see manifest.csv", file=sys.stderr)
