"""Read calcium traces and stimulus movies from disk and check every one of them.

Formats (specification 4.1): ``<ca_path>/<cell_type>/*.pt|npz|safetensors|csv|tsv|nwb`` and
``<mov_path>/vstim_*.pt|npz|safetensors`` or ``*.nwb``. The .pt files are torch-saved nested dicts;
the twins hold the same arrays under keys such as ``vstim_5/neuron/2019010101/traces`` and
``vstim_5/rect_mov``.
"""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from common.files import InputError, raise_faults
from common.limits import check_shape
from common.locks import visible
from inputs.clocks import axis_fault, on_grid, place_movie, rate_of
from inputs.csv_traces import read_long_csv
from inputs.nwb_files import read_nwb_movies, read_nwb_sessions
from inputs.safe_load import load_hashed, load_tree

log = logging.getLogger(__name__)
SUFFIXES = (".pt", ".npz", ".safetensors")
TABLES = (".csv", ".tsv")
TRACE_SUFFIXES = (*SUFFIXES, *TABLES, ".nwb")  # see csv_traces.py and nwb_files.py


def natural_key(text: str | int) -> list:
    """Sort key that orders vstim_9 before vstim_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(text))]


class Movies(dict):
    """{barcode: (frames, rows, columns) float32, 0 black to 1 white}, and when each starts.

    ``first`` holds {barcode: tick of the first frame from stimulus onset} of those that do not
    start at 0.
    """

    def __init__(self, movies: Mapping = (), *, first: Mapping | None = None, rate_hz=None):
        """Hold ``movies``; ``first`` names the ticks other than 0, ``rate_hz`` their length."""
        super().__init__(movies)
        self.first, self.rate_hz = dict(first or {}), rate_hz


def read_recordings(
    ca_path: Path,
    *,
    nan: str = "reject",
    digests: dict[str, str] | None = None,
    unplaced: bool = False,
) -> dict:
    """Read all traces below ``ca_path``, each on its own time axis.

    Args:
        ca_path: folder with one folder per cell type.
        nan: reject (an error names file, stimulus and neuron) or drop_trial.
        digests: gets {type/file: SHA-256} of what was read, or None.
        unplaced: accept neurons whose azi_shift or ele_shift is absent or NaN, both read as NaN.

    Returns:
        {type: {file name: {barcode: {"t_axis": (n_t,) float32,
        "neuron": {uid: {"traces": (trials, n_t) float32, "azi_shift": float, "ele_shift":
        float}}}}}}, types, files, barcodes and neurons in natural order.
    """
    ca_path = Path(ca_path)
    if not ca_path.is_dir():
        raise InputError(
            f"{ca_path}: folder of calcium traces not found; set dataset.ca_path (--ca-path), or "
            "run make_synthetic.py for a synthetic set"
        )
    folders = [p for p in visible(ca_path, "*") if p.is_dir()]
    if not folders:
        raise InputError(f"{ca_path}: no folder inside; expected one folder per cell type")
    faults, recordings = [], {}
    faults += _same_names(folders)
    for folder in sorted(folders, key=lambda p: natural_key(p.name.lower())):
        files = sorted(
            (p for p in visible(folder, "*") if p.suffix.lower() in TRACE_SUFFIXES),
            key=lambda p: natural_key(p.name),
        )
        if not files:
            faults.append(
                f"{folder}: no {', '.join(TRACE_SUFFIXES)} file; add recordings or remove it"
            )
            continue
        sessions, seen = {}, {}
        recordings[folder.name.lower()] = sessions
        for path in files:
            try:
                trees = load_hashed(path, f"{folder.name}/{path.name}", digests, read_sessions)
                for k, tree in enumerate(trees, start=1):
                    name = path.name if k == 1 else f"{path.name} {k}"
                    sessions[name] = check_session(tree, path, nan, faults, unplaced=unplaced)
                    faults += _read_before(sessions[name], path, seen)
            except InputError as error:
                if str(error) not in faults:  # a missing package is missing for every file
                    faults.append(str(error))
    raise_faults(faults)
    return recordings


def read_sessions(path: Path) -> list[dict]:
    """Return the sessions of a file of traces; only NWB files hold more than one."""
    suffix = path.suffix.lower()
    if suffix == ".nwb":
        return read_nwb_sessions(path)
    return [read_long_csv(path) if suffix in TABLES else load_tree(path)]


def _read_before(session, path, seen):
    """Return the fault of a session whose traces another file of its cell type holds as well."""
    twins = {}
    for barcode, entry in session.items():
        for uid, neuron in entry["neuron"].items():
            for other, traces in seen.setdefault((barcode, uid), []):
                if other != path and torch.equal(traces, neuron["traces"]):
                    twins.setdefault(other.name, f"vstim_{barcode}, neuron {uid}")
            seen[barcode, uid].append((path, neuron["traces"]))
    return [
        f"{path}: {where}: the very traces that {name} holds; keep one of the two files"
        for name, where in twins.items()
    ]


def _same_names(folders):
    """Return the faults of folders that would be one cell type: types are told apart lower-case."""
    names = {}
    for folder in folders:
        names.setdefault(folder.name.lower(), []).append(folder.name)
    return [
        f"{folders[0].parent}: {' and '.join(sorted(same))} are one cell type; rename or merge them"
        for same in names.values()
        if len(same) > 1
    ]


def check_session(
    tree: object, path: Path, nan: str, faults: list[str], *, unplaced: bool = False
) -> dict:
    """Return {barcode: entry} of a session read from ``path``, as read_recordings holds it.

    ``nan`` is reject, drop_trial or keep; faults of stimuli and neurons are added to ``faults``;
    ``unplaced`` as in read_recordings.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}; expected a dict of stimuli")
    if all(isinstance(e, dict) and e.get("neuron", 0) == {} for e in tree.values()):
        raise InputError(f"{path}: holds no stimulus with a neuron; add recordings or remove it")
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
            fault = axis_fault(t_axis)
        except InputError as error:
            fault = str(error)
        if fault:
            faults.append(f"{where}: {fault}")
            continue
        neurons = {}
        for uid in sorted(entry["neuron"], key=int):
            neuron = entry["neuron"][uid]
            if int(uid) in neurons:
                faults.append(f"{where}: neuron {int(uid)} is there twice; keep one")
            try:
                neurons[int(uid)] = _check_neuron(neuron, len(t_axis), nan, unplaced)
            except InputError as error:
                faults.append(f"{where}, neuron {uid}: {error}")
        try:
            barcode = _barcode(stimulus)
        except InputError as error:
            faults.append(f"{path}: {error}")
            continue
        if barcode in session:
            faults.append(f"{where}: stimulus {barcode} is there twice, under two names; keep one")
        session[barcode] = {"t_axis": t_axis, "neuron": neurons}
    return session


def _array(entry, key):
    """Return ``entry[key]`` as a float32 tensor."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if value is None or isinstance(value, (dict, str)):
        raise InputError(f"{key} missing; add it")
    try:
        value = torch.as_tensor(value)
        check_shape(value.shape, 4, key)  # a repeated (expanded) array is small in its file
        return value.float()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{key} is a {type(value).__name__}; expected numbers") from None


def _degrees(neuron, key, unplaced):
    """Return a shift in degrees; NaN is one that is not known, which ``unplaced`` allows."""
    known = isinstance(neuron, dict) and neuron.get(key) is not None
    if unplaced and not known:
        return float("nan")
    value = _array(neuron, key)
    unknown = value.numel() == 1 and bool(torch.isnan(value).all())
    if value.numel() != 1 or not (torch.isfinite(value).all() or (unplaced and unknown)):
        raise InputError(
            f"{key} is {value.tolist()}; expected one finite number of degrees"
            + ", or train with position=learned" * unknown
        )
    return float(value)


def _check_neuron(neuron, n_t, nan, unplaced):
    traces = _array(neuron, "traces")
    if traces.ndim != 2 or traces.shape[1] != n_t or not traces.numel():
        raise InputError(
            f"traces have shape {tuple(traces.shape)} but t_axis has {n_t} samples; expected "
            f"(trials, {n_t})"
        )
    good = torch.isfinite(traces).all(1)
    if not good.all() and nan != "keep":
        if nan != "drop_trial" or not good.any():
            raise InputError(
                f"traces hold NaN or infinity in {int((~good).sum())} of {len(good)} trials; "
                "repair them "
                "or set dataset.nan=drop_trial"
            )
        traces = traces[good]
    places = {key: _degrees(neuron, key, unplaced) for key in ("azi_shift", "ele_shift")}
    return {"traces": traces, **places}


def read_movies(
    mov_path: Path,
    *,
    rate_hz: float | None = None,
    needed: Collection[int] | None = None,
    digests: dict[str, str] | None = None,
) -> Movies:
    """Read the stimulus movies ``vstim_*`` in ``mov_path``; row 0 is the top.

    Args:
        mov_path: folder.
        rate_hz: ticks per second on which the frames are placed by their times; None is the rate
            of the movies themselves.
        needed: barcodes to keep, or None for all.
        digests: gets {file: SHA-256} of what was read, or None.
    """
    mov_path = Path(mov_path)
    if not mov_path.is_dir():
        raise InputError(
            f"{mov_path}: folder of movies not found; set dataset.mov_path (--mov-path)"
        )
    files = movie_files(mov_path)
    if not files:
        raise InputError(f"{mov_path}: no vstim_*.pt, .npz or .safetensors file, no .nwb inside")
    faults, stored = [], {}
    for path in files:
        try:
            reader = read_nwb_movies if path.suffix.lower() == ".nwb" else load_tree
            tree = load_hashed(path, path.name, digests, reader)
        except InputError as error:
            if str(error) not in faults:  # a missing package is missing for every file
                faults.append(str(error))
            continue
        if not isinstance(tree, dict):
            faults.append(f"{path}: holds a {type(tree).__name__}; expected a dict of stimuli")
            continue
        for stimulus, entry in tree.items():
            try:
                barcode = _barcode(stimulus)
                if needed is not None and barcode not in needed:
                    continue
                candidate = (path, *check_movie(entry))
                if barcode in stored and not _same(candidate, stored[barcode]):
                    raise InputError(
                        f"{stored[barcode][0].name} holds another movie of this number; keep one"
                    )
                stored[barcode] = candidate
            except InputError as error:
                faults.append(f"{path}: {stimulus}: {error}")
    sizes = {tuple(frames.shape[1:]) for _, frames, _ in stored.values()}
    if len(sizes) > 1:
        faults.append(f"{mov_path}: movies have different sizes {sorted(sizes)}; expected one size")
    raise_faults(faults)
    return _placed(stored, rate_hz or movie_rate(stored))


def movie_files(mov_path: Path) -> list[Path]:
    """Return the files of movies in a folder, vstim_9 before vstim_10."""
    kinds = {path: path.suffix.lower() for path in visible(mov_path, "*")}
    movies = [
        path
        for path, kind in kinds.items()
        if kind == ".nwb" or (kind in SUFFIXES and path.name.startswith("vstim_"))
    ]
    return sorted(movies, key=lambda p: natural_key(p.name))


def _same(one, other):
    """Return whether two stored movies are the same, as a file and its twin are."""
    pairs = zip(one[1:], other[1:], strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def movie_rate(stored: Mapping) -> float:
    """Return the highest rate of the axes of ``stored``, {barcode: (path, frames, t_axis)}."""
    rates = [rate_of(t_axis) for _, _, t_axis in stored.values()]
    return max((rate for rate in rates if rate), default=1.0)


def _placed(stored, rate_hz):
    """Return Movies on the ticks of ``rate_hz``; say what was not there already."""
    movies, faults, moved = Movies(rate_hz=rate_hz), [], set()
    for barcode, (path, frames, t_axis) in stored.items():
        try:
            first, movies[barcode] = place_movie(frames, t_axis, rate_hz)
        except InputError as error:
            faults.append(f"{path}: vstim_{barcode}: {error}")
            continue
        if first:
            movies.first[barcode] = first
        if movies[barcode] is not frames:
            moved.add(rate_of(t_axis))
    raise_faults(faults)
    if moved:
        rates = ", ".join(f"{rate:g}" for rate in sorted(filter(None, moved)))
        log.info("movies of %s Hz are placed by their times on %g Hz", rates, rate_hz)
    return movies


def say_clocks(recordings: dict, rate_hz: float) -> None:
    """Say at which rates traces were recorded that do not lie on the ticks of ``rate_hz``."""
    axes = [
        entry["t_axis"]
        for sessions in recordings.values()
        for session in sessions.values()
        for entry in session.values()
    ]
    rates = {rate_of(t_axis) for t_axis in axes if not on_grid(t_axis, rate_hz)} - {None}
    if rates:
        log.info(
            "traces of %s Hz keep their own times; the loss is taken at their samples, on the "
            "ticks of %g Hz", ", ".join(f"{rate:g}" for rate in sorted(rates)), rate_hz,
        )  # fmt: skip


def commonest_grey(movies: dict) -> float:
    """Return the grey level of most corner pixels of all movies, where a stimulus is seldom."""
    corners = torch.cat([m[:, [0, 0, -1, -1], [0, -1, 0, -1]].flatten() for m in movies.values()])
    values, counts = corners.unique(return_counts=True)
    return float(values[counts.argmax()])


def check_movie(entry: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (frames (T, rows, columns), t_axis (T,)) of a stored movie, row 0 at the top."""
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
    fault = axis_fault(t_axis)
    if fault:
        raise InputError(fault)
    # hexagonal rows are stored bottom first
    return (movie.flip(1) if key == "hex_mov" else movie), t_axis


def _barcode(stimulus):
    match = re.fullmatch(r"vstim_(\d+)", str(stimulus))
    if match is None:
        raise InputError(f"stimulus name {stimulus!r}: expected vstim_<number>")
    return int(match.group(1))
