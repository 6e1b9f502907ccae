"""Data-only twins of published torch files: checkpoints, histories, recordings, movies."""

import contextlib
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save

from common.files import InputError, write_bytes
from common.locks import visible, writing
from inputs.safe_load import flatten_tree, load_tree, read_pickled_history, save_arrays
from network.checkpoints import checkpoint_epochs, save_history

KINDS = (".pt", ".pkl", ".json")


def convert(path: Path, out: Path, *, npz: bool = False) -> list[Path]:
    """Convert one file into folder ``out``; return the paths written."""
    if path.suffix == ".json":
        return [_put(out / path.name, path.read_bytes())]
    if path.suffix == ".pkl":
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
    return [_write(out / f"{path.stem}{tail}", tensors, npz) for tail, tensors in parts.items()]


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


def convert_all(paths: list[Path], out: Path, *, npz: bool = False) -> tuple[int, list[str]]:
    """Convert files and whole folders; return (files written, faults)."""
    jobs, faults = [], [f"{path}: not found" for path in paths if not path.exists()]
    for path in paths:
        found = visible(path, "*", recursive=True) if path.is_dir() else [path]
        jobs += [
            (p, p.relative_to(path).parent if path.is_dir() else Path())
            for p in found
            if p.suffix in KINDS
        ]
    written = 0
    with writing(out) if jobs else contextlib.nullcontext():
        for path, folder in jobs:
            try:
                written += len(convert(path, out / folder, npz=npz))
            except InputError as error:
                faults.append(str(error))
    if not jobs and not faults:
        faults = [f"{paths[0]}: no .pt, .pkl or .json file"]
    return written, faults
