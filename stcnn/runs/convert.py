"""Data-only twins of published torch files: checkpoints, histories, recordings, movies."""

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from common.files import InputError, atomic_path
from inputs.safe_load import flatten_tree, load_tree, read_pickled_history
from network.checkpoints import checkpoint_epochs, save_history

KINDS = (".pt", ".pkl", ".json")


def convert(path: Path, out: Path, *, npz: bool = False) -> list[Path]:
    """Convert one file into folder ``out``; return the paths written."""
    if path.suffix == ".json":
        out.mkdir(parents=True, exist_ok=True)
        with atomic_path(out / path.name) as temporary:
            shutil.copyfile(path, temporary)
        return [out / path.name]
    if path.suffix == ".pkl":
        history = read_pickled_history(path)
        n_epochs = max(_epochs_beside(path), 1)
        epochs = {
            name: [1 + i * n_epochs // len(losses) for i in range(len(losses))]
            for name, losses in history.items()
        }
        save_history(out, history, epochs)
        return [out / "loss_hist.npz", out / "loss_hist.csv"]
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
    with atomic_path(path) as temporary:
        if npz:
            np.savez(temporary, **{name: value.numpy() for name, value in tensors.items()})
        else:
            # clone: stimuli of a session may share one time axis, which the format refuses
            twins = {name: value.clone() for name, value in tensors.items()}
            temporary.write_bytes(save(twins))
    return path


def convert_all(paths: list[Path], out: Path, *, npz: bool = False) -> tuple[int, list[str]]:
    """Convert files and whole folders; return (files written, faults)."""
    jobs, faults = [], [f"{path}: not found" for path in paths if not path.exists()]
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        jobs += [
            (p, p.relative_to(path).parent if path.is_dir() else Path())
            for p in found
            if p.suffix in KINDS
        ]
    written = 0
    for path, folder in jobs:
        try:
            written += len(convert(path, out / folder, npz=npz))
        except InputError as error:
            faults.append(str(error))
    if not jobs and not faults:
        faults = [f"{paths[0]}: no .pt, .pkl or .json file"]
    return written, faults
