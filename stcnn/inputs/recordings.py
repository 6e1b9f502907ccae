"""Read calcium traces and stimulus movies from disk and check every one of them.

Formats (specification 4.1): ``<ca_path>/<cell_type>/*.pt|npz|safetensors`` and
``<mov_path>/vstim_*.pt|npz|safetensors``. The .pt files are torch-saved nested dicts; the twins
hold
the same arrays under keys such as ``vstim_5/neuron/2019010101/traces`` and ``vstim_5/rect_mov``.
"""

import re
from collections.abc import Collection
from pathlib import Path

import torch

from common.files import InputError, raise_faults
from inputs.safe_load import load_tree

SUFFIXES = (".pt", ".npz", ".safetensors")
RATE_TOLERANCE = 0.01  # relative, of the median frame step
TIME_TOLERANCE_S = 1e-4


def natural_key(text: str | int) -> list:
    """Sort key that orders vstim_9 before vstim_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(text))]


def read_recordings(ca_path: Path, *, rate_hz: float | None, nan: str = "reject") -> dict:
    """Read all traces below ``ca_path``.

    Args:
        ca_path: folder with one folder per cell type.
        rate_hz: expected sampling rate; None takes the files' own.
        nan: reject (an error names file, stimulus and neuron) or drop_trial.

    Returns:
        {type: {file name: {barcode: {"t_axis": (n_t,) float32,
        "neuron": {uid: {"traces": (trials, n_t) float32, "azi_shift": float, "ele_shift":
        float}}}}}}, types, files, barcodes and neurons in natural order.
    """
    ca_path = Path(ca_path)
    if not ca_path.is_dir():
        raise InputError(
            f"{ca_path}: folder of calcium traces not found; set dataset.ca_path, or run "
            "make_synthetic.py for a synthetic set"
        )
    folders = [p for p in ca_path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if not folders:
        raise InputError(f"{ca_path}: no folder inside; expected one folder per cell type")
    faults, recordings = [], {}
    for folder in sorted(folders, key=lambda p: natural_key(p.name.lower())):
        files = sorted(
            (p for p in folder.iterdir() if p.suffix in SUFFIXES and not p.name.startswith(".")),
            key=lambda p: natural_key(p.name),
        )
        if not files:
            faults.append(
                f"{folder}: no .pt, .npz or .safetensors file; add recordings or remove it"
            )
            continue
        sessions = recordings[folder.name.lower()] = {}
        for path in files:
            try:
                sessions[path.name] = _check_session(load_tree(path), path, rate_hz, nan, faults)
            except InputError as error:
                faults.append(str(error))
    raise_faults(faults)
    return recordings


def _check_session(tree, path, rate_hz, nan, faults):
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}; expected a dict of stimuli")
    session = {}
    for stimulus in sorted(tree, key=natural_key):
        where = f"{path}: {stimulus}"
        entry = tree[stimulus]
        if not isinstance(entry, dict) or not isinstance(entry.get("neuron"), dict):
            faults.append(f"{where}: expected the keys t_axis and neuron")
            continue
        if not all(str(uid).isdecimal() for uid in entry["neuron"]):
            faults.append(f"{where}: neurons {list(entry['neuron'])[:3]}; expected whole numbers")
            continue
        try:
            t_axis = _array(entry, "t_axis")
            fault = _rate_fault(t_axis, rate_hz)
        except InputError as error:
            fault = str(error)
        if fault:
            faults.append(f"{where}: {fault}")
            continue
        neurons = {}
        for uid in sorted(entry["neuron"], key=int):
            neuron = entry["neuron"][uid]
            try:
                neurons[int(uid)] = _check_neuron(neuron, len(t_axis), nan)
            except InputError as error:
                faults.append(f"{where}, neuron {uid}: {error}")
        try:
            barcode = _barcode(stimulus)
        except InputError as error:
            faults.append(f"{path}: {error}")
            continue
        session[barcode] = {"t_axis": t_axis, "neuron": neurons}
    return session


def _array(entry, key):
    """Return ``entry[key]`` as a float32 tensor."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if value is None or isinstance(value, (dict, str)):
        raise InputError(f"{key} missing; add it")
    try:
        return torch.as_tensor(value).float()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{key} is a {type(value).__name__}; expected numbers") from None


def _degrees(neuron, key):
    value = _array(neuron, key)
    if value.numel() != 1 or not torch.isfinite(value).all():
        raise InputError(f"{key} is {value.tolist()}; expected one finite number of degrees")
    return float(value)


def _check_neuron(neuron, n_t, nan):
    traces = _array(neuron, "traces")
    if traces.ndim != 2 or traces.shape[1] != n_t or not traces.numel():
        raise InputError(
            f"traces have shape {tuple(traces.shape)} but t_axis has {n_t} samples; expected "
            f"(trials, {n_t})"
        )
    good = torch.isfinite(traces).all(1)
    if not good.all():
        if nan != "drop_trial" or not good.any():
            raise InputError(
                f"traces hold NaN or infinity in {int((~good).sum())} of {len(good)} trials; "
                "repair them "
                "or set dataset.nan=drop_trial"
            )
        traces = traces[good]
    return {"traces": traces, **{key: _degrees(neuron, key) for key in ("azi_shift", "ele_shift")}}


def read_movies(
    mov_path: Path, *, rate_hz: float, needed: Collection[int] | None = None
) -> dict[int, torch.Tensor]:
    """Read the stimulus movies ``vstim_*`` in ``mov_path``.

    Args:
        mov_path: folder.
        rate_hz: expected frame rate.
        needed: barcodes to keep, or None for all.

    Returns:
        {barcode: (frames, rows, columns) float32, 0 black to 1 white}; row 0 is the top.
    """
    mov_path = Path(mov_path)
    if not mov_path.is_dir():
        raise InputError(f"{mov_path}: folder of movies not found; set dataset.mov_path")
    files = sorted(
        (p for p in mov_path.glob("vstim_*") if p.suffix in SUFFIXES),
        key=lambda p: natural_key(p.name),
    )
    if not files:
        raise InputError(f"{mov_path}: no vstim_*.pt, .npz or .safetensors file inside")
    faults, movies = [], {}
    for path in files:
        try:
            tree = load_tree(path)
        except InputError as error:
            faults.append(str(error))
            continue
        if not isinstance(tree, dict):
            faults.append(f"{path}: holds a {type(tree).__name__}; expected a dict of stimuli")
            continue
        for stimulus, entry in tree.items():
            try:
                barcode = _barcode(stimulus)
                if needed is None or barcode in needed:
                    movies[barcode] = _check_movie(entry, rate_hz)
            except InputError as error:
                faults.append(f"{path}: {stimulus}: {error}")
    sizes = {tuple(movie.shape[1:]) for movie in movies.values()}
    if len(sizes) > 1:
        faults.append(f"{mov_path}: movies have different sizes {sorted(sizes)}; expected one size")
    raise_faults(faults)
    return movies


def recorded_rate(recordings: dict) -> float:
    """Return the rate of the time axes of all recordings, Hz; refuse different ones."""
    rates = {}
    for kind, sessions in recordings.items():
        for file, session in sessions.items():
            for barcode, entry in session.items():
                if len(entry["t_axis"]) > 1:
                    step = float(torch.diff(entry["t_axis"].double()).median())
                    # float32 seconds: steps of one rate differ in their last digits
                    rate = float(f"{1 / step:.4g}") if step > 0 else 0.0
                    rates.setdefault(rate, f"{kind}/{file}, vstim_{barcode}")
    if len(rates) != 1 or min(rates) <= 0:
        named = "; ".join(f"{rate:g} Hz in {place}" for rate, place in sorted(rates.items())[:3])
        raise InputError(
            f"the recordings have no one rate ({named or 'no time axis'}); give --rate"
        )
    return next(iter(rates))


def commonest_grey(movies: dict) -> float:
    """Return the grey level of most corner pixels of all movies, where a stimulus is seldom."""
    corners = torch.cat([m[:, [0, 0, -1, -1], [0, -1, 0, -1]].flatten() for m in movies.values()])
    values, counts = corners.unique(return_counts=True)
    return float(values[counts.argmax()])


def _check_movie(entry, rate_hz):
    if not isinstance(entry, dict) or not {"rect_mov", "hex_mov"} & set(entry):
        raise InputError("expected the keys rect_mov (or hex_mov) and t_axis")
    key = "rect_mov" if "rect_mov" in entry else "hex_mov"
    movie = _array(entry, key)
    if movie.ndim != 3 or not movie.numel():
        raise InputError(f"{key} has shape {tuple(movie.shape)}; expected (frames, rows, columns)")
    low, high = float(movie.min()), float(movie.max())
    if not (low >= 0.0 and high <= 1.0):
        raise InputError(
            f"pixels range from {low:.3g} to {high:.3g}; expected 0 (black) to 1 (white)"
        )
    t_axis = _array(entry, "t_axis")
    if t_axis.numel() != len(movie):
        raise InputError(f"t_axis has {t_axis.numel()} entries for {len(movie)} frames")
    fault = _rate_fault(t_axis, rate_hz)
    if fault:
        raise InputError(fault)
    return movie.flip(1) if key == "hex_mov" else movie  # hexagonal rows are stored bottom first


def _rate_fault(t_axis, rate_hz):
    if t_axis.ndim != 1 or not len(t_axis) or not torch.isfinite(t_axis).all():
        return "t_axis must be a list of finite seconds"
    if len(t_axis) < 2:
        return None
    if rate_hz is None:
        return None
    step = float(torch.diff(t_axis.double()).median())
    if abs(step * rate_hz - 1.0) > RATE_TOLERANCE:
        found = f"{1 / step:.1f} Hz" if step > 0 else "a falling time axis"
        return (
            f"t_axis runs at {found}, sampling_rate is {rate_hz} Hz; resample or set sampling_rate"
        )
    return None


def _barcode(stimulus):
    match = re.fullmatch(r"vstim_(\d+)", str(stimulus))
    if match is None:
        raise InputError(f"stimulus name {stimulus!r}: expected vstim_<number>")
    return int(match.group(1))
