"""Tiny data sets in the real formats for the tests."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np

from demo.synthetic import dicom_dataset
from inputs.flow_files import flow_root
from inputs.preprocessing import preprocess_root
from settings import flow_settings, preprocess_settings

FOLDER = Path(__file__).resolve().parents[1]


def texture(n=34, rows=96, cols=128, seed=0):
    """Return a movie (n, rows, cols) uint8 of a texture that moves one pixel right per frame."""
    rng = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(rng.random((rows, cols + n)).astype(np.float32), (0, 0), 3)
    wide = (wide - wide.min()) / np.ptp(wide) * 255
    return np.stack([wide[:, n - k : n - k + cols] for k in range(n)]).astype(np.uint8)


def preprocess(root, **given):
    """Preprocess a data set with the settings ``given``; return the exit code."""
    return preprocess_root(root, preprocess_settings(**given))


def compute_flow(root, **given):
    """Compute the flow of a data set with the settings ``given``; return the exit code."""
    return flow_root(root, flow_settings(**given))


def write_dicom(path, movie, patient_id, *, jpeg=False, rgb=False, frame_rate_hz=30, **elements):
    """Write a movie as DICOM; ``elements`` replace or (None) remove elements by keyword."""
    _, rows, cols = movie.shape
    data = dicom_dataset(
        movie,
        patient_id,
        [Path(path).name, patient_id],
        frame_rate_hz=frame_rate_hz,
        pixel_cm=0.05,
        box=[0, rows - 1, 0, cols - 1],
        jpeg=jpeg,
        rgb=rgb,
    )
    for keyword, value in elements.items():
        if value is None:
            del data[keyword]
        else:
            setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return Path(path)


def write_data_set(root, ids=("p01", "p02", "p03", "p04"), movies=1, n=34, rows=96, cols=128):
    """Write ``movies`` DICOM files per id and a class file with both classes; return the root."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    names = ("normal", "severe", "mild", "severe")
    for k, patient in enumerate(ids):
        for j in range(movies):
            movie = texture(n, rows, cols, seed=10 * k + j)
            when = f"200001011200{j:02d}"
            path = root / f"{patient}_{j}.dcm"
            write_dicom(path, movie, patient, AcquisitionDateTime=when)
    lines = [f"{patient},{names[k % 4]}" for k, patient in enumerate(ids)]
    (root / "REDcap_class.csv").write_text("id,class\n" + "\n".join(lines) + "\n")
    return root


def run_script(name, *arguments):
    """Run a script as a user does; return the finished process with its text output."""
    command = [sys.executable, str(FOLDER / name), *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def call_script(name, *arguments):
    """Run a script's ``main`` here and return what ``run_script`` does, a start of Python sooner.

    What an import or the parser's program name could spoil is seen by ``run_script`` only: every
    script has a test that starts it.
    """
    script = importlib.import_module(Path(name).stem)
    argv = list(map(str, arguments))
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # as outside pytest: shown on stderr
        try:
            code = script.main(argv)
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess([name, *argv], code or 0, out.getvalue(), err.getvalue())


def assert_one_line(process, *words):
    """Assert exit code 2 and one line on stderr that holds all ``words``."""
    lines = process.stderr.strip().splitlines()
    assert process.returncode == 2, process.stderr
    assert len(lines) == 1, process.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], (word, lines[0])


def tree(root):
    """Return {relative path: content} of all files below ``root``."""
    root = Path(root)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
