"""Data-only twins of published torch files: checkpoints, histories, recordings, movies; CSV."""

import contextlib
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save

from common.files import InputError, raise_faults, write_bytes
from common.hashes import sha256
from common.locks import visible, writing
from inputs.csv_traces import write_long_csv
from inputs.nwb_files import need_pynwb, write_nwb
from inputs.recordings import SUFFIXES, TABLES, check_movie, check_session, read_sessions
from inputs.safe_load import flatten_tree, load_tree, read_pickled_history, save_arrays
from network.checkpoints import checkpoint_epochs, save_history

KINDS = (".pt", ".pkl", ".json")


def convert(path: Path, out: Path, *, form: str = "safetensors") -> list[Path]:
    """Convert one file into folder ``out``; return the paths written.

    ``form`` is safetensors or npz; csv writes the traces of a session in long form.
    """
    if form == "csv":
        return [_traces_as_csv(path, out)]
    suffix = path.suffix.lower()
    if suffix == ".json":
        return [_put(out / path.name, path.read_bytes())]
    if suffix == ".pkl":
        history = read_pickled_history(path)
        n_epochs = max(_epochs_beside(path), 1)
        epochs = {
            name: [1 + i * n_epochs // len(losses) for i in range(len(losses))]
            for name, losses in history.items()
        }
        with tempfile.TemporaryDirectory() as folder:
            save_history(Path(folder), history, epochs)
            names = ("loss_hist.npz", "loss_hist.csv")
            return [_put(out / name, (Path(folder) / name).read_bytes()) for name in names]
    tree = load_tree(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}; expected a dict")
    if {"model", "optim"} <= set(tree):
        parts = {"": tree["model"], "_optim": _optimiser_tensors(tree)}
    else:
        parts = {"": flatten_tree(tree)}
    npz = form == "npz"
    return [_write(out / f"{path.stem}{tail}", tensors, npz) for tail, tensors in parts.items()]


def _checked_session(tree, path):
    faults = []
    session = check_session(tree, path, "keep", faults, unplaced=True)
    raise_faults(faults)
    return {f"vstim_{code}": entry for code, entry in session.items()}


def _traces_as_csv(path, out):
    """Write the traces of a checked session in long form; another file of that name stays."""
    named = _checked_session(load_tree(path), path)
    with tempfile.TemporaryDirectory() as folder:
        table = write_long_csv(Path(folder) / "traces.csv", named)
        return _put(out / f"{path.stem}.csv", table.read_bytes())


def _with_movies(jobs, faults):
    """Return the jobs that are sessions, each with {stimulus: movie} of all the others."""
    sessions, movies = [], {}
    for path, folder in jobs:
        try:
            tree = read_sessions(path)[0]
        except InputError as error:
            faults.append(str(error))
            continue
        entries = tree if isinstance(tree, dict) else {}
        shown = {
            stimulus: entry
            for stimulus, entry in entries.items()
            if isinstance(entry, dict) and {"rect_mov", "hex_mov"} & set(entry)
        }
        for stimulus, entry in shown.items():
            try:
                movie = dict(zip(("rect_mov", "t_axis"), check_movie(entry), strict=True))
                before = movies.setdefault(stimulus, movie)
                if not all(torch.equal(before[key], movie[key]) for key in movie):
                    raise InputError("another file holds another movie of this number; name one")
            except InputError as error:
                faults.append(f"{path}: {stimulus}: {error}")
        if not shown:
            sessions.append((path, folder, movies))
    return sessions


def _session_as_nwb(path, out, movies):
    """Write a session and the movies of its stimuli as an NWB file."""
    target = out / f"{path.stem}.nwb"
    if target.exists():
        raise InputError(f"{target}: is there already; give another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    session = _checked_session(read_sessions(path)[0], path)
    own = {stimulus: movies[stimulus] for stimulus in session if stimulus in movies}
    return write_nwb(target, session, own, identifier=sha256(path))


def _optimiser_tensors(tree):
    """Return {parameter|exp_avg, |exp_avg_sq, |step: tensor}; old files hold step as an integer."""
    names = [name for name in tree["model"] if not _is_buffer(name)]
    tensors = {}
    for index, state in tree["optim"]["state"].items():
        for key, value in state.items():
            tensors[f"{names[index]}|{key}"] = torch.as_tensor(value)
    return tensors


def _is_buffer(name):
    return name == "pr.tau" or name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _epochs_beside(path):
    return max(checkpoint_epochs(path.parent), default=1)


def _write(path, tensors, npz):
    path = path.with_name(path.name + (".npz" if npz else ".safetensors"))
    if npz:
        with tempfile.TemporaryDirectory() as folder:
            twin = Path(folder) / "twin.npz"
            save_arrays(twin, {name: value.numpy() for name, value in tensors.items()})
            return _put(path, twin.read_bytes())
    # clone: stimuli of a session may share one time axis, which the format refuses
    return _put(path, save({name: value.clone() for name, value in tensors.items()}))


def _put(path, content):
    """Write a twin; another file of its name, in a clone of the published project say, stays."""
    if path.exists() and path.read_bytes() != content:
        raise InputError(f"{path}: is there already, with another content; give another --out")
    write_bytes(path, content)
    return path


def convert_all(
    paths: list[Path], out: Path, *, form: str = "safetensors"
) -> tuple[int, list[str]]:
    """Convert files and whole folders into ``form``; return (files written, faults).

    ``form`` is safetensors, npz, csv (traces of sessions) or nwb (sessions with their movies).
    """
    jobs, faults = [], [f"{path}: not found" for path in paths if not path.exists()]
    kinds = {"csv": SUFFIXES, "nwb": (*SUFFIXES, *TABLES)}.get(form, KINDS)
    for path in paths:
        candidates = visible(path, "*", recursive=True) if path.is_dir() else [path]
        jobs += [
            (p, p.relative_to(path).parent if path.is_dir() else Path())
            for p in candidates
            if p.suffix.lower() in kinds
        ]
    if form == "nwb" and jobs:
        need_pynwb()
    written = 0
    with writing(out) if jobs else contextlib.nullcontext():
        if form == "nwb":
            jobs = _with_movies(jobs, faults)
        for path, folder, *movies in jobs:
            try:
                if form == "nwb":
                    _session_as_nwb(path, out / folder, *movies)
                    written += 1
                else:
                    written += len(convert(path, out / folder, form=form))
            except InputError as error:
                faults.append(str(error))
    if not jobs and not faults:
        faults = [f"{paths[0]}: no file to convert; expected {', '.join(kinds)}"]
    return written, faults
