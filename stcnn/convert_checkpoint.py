"""Turn published torch files into data-only twins: checkpoints, histories, recordings, movies.

    python convert_checkpoint.py path/to/stcnn/experiments/lc_small_3 --out ../data/stcnn/lc_small_3
    python convert_checkpoint.py traces.pt movies/ --out DIR --npz

Reads .pt files with the safe loader (no code is ever run) and avg_loss_hist.pkl with a reader that
admits dict, list, str and float only. Writes .safetensors (or .npz with --npz) of the same names,
optimiser states as <name>_optim, loss_hist.npz and .csv, and copies config.json. The published
repository (https://github.com/TuragaLab/stcnn) has no licence: its weights are not shipped here;
clone it and name your clone.
"""

import shutil
import sys
from pathlib import Path

from common.files import InputError, Parser, atomic_path, one_line_faults, raise_faults


def convert(path, out, *, npz=False):
    """Convert one file into folder ``out``; return the paths written."""
    from checkpoints import save_history
    from safe_load import flatten_tree, load_tree, read_pickled_history

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
    import torch

    names = [name for name in tree["model"] if not _is_buffer(name)]
    tensors = {}
    for index, state in tree["optim"]["state"].items():
        for key, value in state.items():
            tensors[f"{names[index]}|{key}"] = torch.as_tensor(value)
    return tensors


def _is_buffer(name):
    return name == "pr.tau" or name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _epochs_beside(path):
    from checkpoints import checkpoint_epochs

    return max(checkpoint_epochs(path.parent), default=1)


def _write(path, tensors, npz):
    import numpy as np
    from safetensors.torch import save

    path = path.with_name(path.name + (".npz" if npz else ".safetensors"))
    with atomic_path(path) as temporary:
        if npz:
            np.savez(temporary, **{name: value.numpy() for name, value in tensors.items()})
        else:
            # clone: stimuli of a session may share one time axis, which the format refuses
            twins = {name: value.clone() for name, value in tensors.items()}
            temporary.write_bytes(save(twins))
    return path


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", type=Path, nargs="+", help="files, or folders (searched whole)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the twins")
    parser.add_argument("--npz", action="store_true", help="write .npz instead of .safetensors")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser.parse_args(argv)


@one_line_faults
def main(argv=None):
    """Convert everything that is named; all faults are reported, the good files are written."""
    args = parse(sys.argv[1:] if argv is None else argv)
    jobs, faults = [], [f"{path}: not found" for path in args.paths if not path.exists()]
    for path in args.paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        kinds = (".pt", ".pkl", ".json")
        jobs += [
            (p, p.relative_to(path).parent if path.is_dir() else Path())
            for p in found
            if p.suffix in kinds
        ]
    written = 0
    for path, folder in jobs:
        try:
            written += len(convert(path, args.out / folder, npz=args.npz))
        except InputError as error:
            faults.append(str(error))
    raise_faults(faults)
    if not jobs:
        raise InputError(f"{args.paths[0]}: no .pt, .pkl or .json file")
    print(f"{written} files: {args.out}")


if __name__ == "__main__":
    main()
