"""From settings to a checked, standardised recording with its windows (section 5)."""

import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.files import InputError, raise_faults
from common.hashes import hashed_file, sha256
from common.names import file_name
from inputs.custom_types import ModelOptions, TrainData
from inputs.movie_files import open_movie
from inputs.preprocessing import Scaler, preprocess_data
from inputs.reading import load_recording, parse_shape
from inputs.recording import Recording, find_duplicate_series, resolve_targets
from inputs.tiff_files import TIFF_SUFFIXES
from inputs.windows import WindowRule
from settings import RunSettings

MOST_OPEN = 200  # files that are held open while they are read: systems allow 256 or more


@dataclass(frozen=True)
class Prepared:
    """A recording that is checked, standardised and cut into training and test part."""

    recording: Recording
    targets: list  # positions of the target columns
    features: np.ndarray  # positions of the driving series
    data: TrainData
    scaler: Scaler
    rule: WindowRule
    options: ModelOptions
    train_size: int
    fit_size: int

    @property
    def target_labels(self) -> list[str]:
        """Return the labels of the targets in file order."""
        return [self.recording.columns[position] for position in self.targets]

    @property
    def target_words(self) -> list[str]:
        """Return what people call the targets: row and column of a pixel, or the label."""
        shape, pixels = self.recording.shape, self.target_pixels
        if shape is None or pixels is None:
            return [str(label) for label in self.target_labels]
        return [
            f"row {pixel // shape[1]}, column {pixel % shape[1]}" if pixel >= 0 else str(label)
            for pixel, label in zip(pixels, self.target_labels, strict=True)
        ]

    @property
    def feature_pixels(self) -> np.ndarray | None:
        """Return the 0-based pixel (N,) of every driving series, or None for named series."""
        pixels = self.recording.pixels
        return None if pixels is None else pixels[self.features]

    @property
    def target_pixels(self) -> np.ndarray | None:
        """Return the 0-based pixel (o,) of every target, -1 outside the image, or None."""
        pixels = self.recording.pixels
        return None if pixels is None else pixels[self.targets]

    @property
    def test_starts(self) -> np.ndarray:
        """Return the starts of the test windows."""
        return self.rule.test_starts(len(self.data.feats), self.train_size)


def parse_targets(text: str) -> list[tuple[int, int]] | None:
    """Return (row, column) pairs from "20,25" or "20,25;30,40", or None."""
    if not text:
        return None
    try:
        pairs = [tuple(int(part) for part in pair.split(",")) for pair in text.split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError
    except ValueError:
        raise InputError(
            f"--target: found {text!r}, expected row,col or several as row,col;row,col (0-based)"
        ) from None
    return pairs


def read_recording(settings: RunSettings) -> Recording:
    """Load the recording that the settings name, with the digest of what was read."""
    path = Path(settings.data)
    with contextlib.ExitStack() as opened:
        files = recording_files(path, settings)
        digests = [opened.enter_context(hashed_file(file)).sha256 for file in files[:MOST_OPEN]]
        recording = load_recording(
            path,
            shape=parse_shape(settings.shape),
            legacy_labels=settings.legacy_labels,
            gray=settings.gray,
            given=settings,
        )
    digests += [sha256(file) for file in files[MOST_OPEN:]]
    whole = digests[0]
    if len(files) > 1 or path.is_dir():
        text = "\n".join(f"{f.name} {d}" for f, d in zip(files, digests, strict=True))
        whole = hashlib.sha256(text.encode()).hexdigest()
    return replace(recording, sha256=whole)


def recording_files(path: Path, settings: RunSettings) -> list[Path]:
    """Return the files that a recording lies in: itself, the frames of a folder, or a set."""
    if not path.exists():
        raise InputError(f"{path}: not found, expected a recording; check the path")
    if path.is_dir() or path.suffix.lower() in TIFF_SUFFIXES:
        return list(open_movie(path, gray=True, given=settings).files) or [path]
    return [path]


def prepare(
    settings: RunSettings, recording: Recording | None = None, scaler: Scaler | None = None
) -> Prepared:
    """Read, check and standardise the recording of ``settings``; all faults come together.

    Args:
        settings: RunSettings.
        recording: the recording when it is loaded already.
        scaler: Scaler of a finished run, used instead of a new fit.
    """
    if recording is None:
        recording = read_recording(settings)
    targets = resolve_targets(recording, settings.targ_cols, parse_targets(settings.target))
    n_rows, name = len(recording.values), recording.source
    for position in targets[1:]:  # the pictures of further targets bear their names
        file_name(recording.columns[position], f"{name}: column")
    rule = WindowRule(settings.T, settings.horizon, settings.current_x)
    # Faithful: truncated after a floating-point product, 62 of 90 and not 63, as in old runs.
    train_size = int(n_rows * settings.train_fraction)
    fit_size = train_size - round(train_size * settings.validation)
    faults = window_faults(name, n_rows, train_size, fit_size, rule, settings)
    raise_faults(faults + scale_faults(settings.attention_scale))
    twins = find_duplicate_series(recording.values, targets)
    if twins and not settings.allow_duplicate_target:
        driver, target = (recording.columns[position] for position in twins[0])
        raise InputError(
            f"{name}: found driving series {driver} identical to target {target} ({len(twins)}"
            " pairs), expected different series; remove it or pass --allow_duplicate_target"
        )
    features = np.setdiff1d(np.arange(len(recording.columns)), targets)
    if scaler is None:
        data, scaler = preprocess_data(
            recording.values,
            [recording.columns[position] for position in targets],
            scaler=settings.scaler,
            train_size=fit_size,
            columns=recording.columns,
            name=name,
        )
    else:
        data = TrainData(*(scaler.transform(recording.values, c) for c in (features, targets)))
    options = ModelOptions(
        settings.attention,
        settings.readout,
        settings.predict,
        settings.layers,
        settings.attention_scale,
    )
    return Prepared(recording, targets, features, data, scaler, rule, options, train_size, fit_size)


def window_faults(
    name: Path, n_rows: int, train_size: int, fit_size: int, rule: WindowRule, settings: RunSettings
) -> list[str]:
    """Return the faults (list of str) of the window settings."""
    T, faults = rule.T, []
    if fit_size < T + 2 or not rule.train_count(fit_size):
        faults.append(
            f"{name}: found {fit_size} training frames of {n_rows}, expected at least"
            f" {max(T + 2, rule.reach + 1)} for T {T} and horizon {rule.horizon}; lower --T or use"
            " a longer recording"
        )
    if train_size >= n_rows:
        faults.append(
            f"{name}: found {n_rows} frames and no test frame, expected at least one; lower"
            " --train_fraction"
        )
    if T == 2 and not rule.current_x and settings.map in ("reference", "signed", "control"):
        faults.append(
            f"--T: found 2 with --map {settings.map}, expected T >= 3: that map reads the"
            " second step of a window; use --map attention"
        )
    if settings.gradient_epochs > max(1, settings.n_epochs):
        faults.append(
            f"--gradient_epochs: found {settings.gradient_epochs} with {settings.n_epochs} epochs,"
            f" expected at most {max(1, settings.n_epochs)}; raise --n_epochs"
        )
    return faults


def scale_faults(text: str) -> list[str]:
    """Return the faults of --attention_scale: a number above 0, or n."""
    try:
        right = text == "n" or 0 < float(text) < float("inf")
    except ValueError:
        right = False
    return [] if right else [f"--attention_scale: found {text!r}, expected a number above 0, or n"]
