"""Weights, training states and weight tensors on disk; every file is checked when it is read.

Files of a run: ``checkpoint.pt`` (training state after every epoch), ``encoder.torch``,
``decoder.torch`` (state dicts with the published names), the same as ``.safetensors``,
``enc_kwargs.json``, ``dec_kwargs.json``, ``da_rnn_kwargs.json`` (as published) and
``network.json`` (everything else that a prediction needs).
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from common.files import InputError, atomic_path, read_json, write_json
from inputs.custom_types import DaRnnNet, ModelOptions
from inputs.safe_read import load_tensors
from inputs.windows import WindowRule
from network.build import Progress, build_net

WEIGHT_FILES = {"encoder": "encoder.torch", "decoder": "decoder.torch"}


def save_tensors(path: Path, value: Any) -> None:
    """Write ``value`` with torch.save under a temporary name, then move it into place."""
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as handle:
            torch.save(value, handle)  # a handle, because a name would enter the file
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path}: could not be written ({error}); an older file is kept; free some disk space"
            " and go on with --resume"
        ) from None


def infer_sizes(encoder_state: dict, decoder_state: dict, path: str | Path = "weights") -> dict:
    """Return N, m, p, o, layers, steps and the kind of attention that the state dicts show."""
    try:
        m = encoder_state["lstm_layer.weight_hh_l0"].shape[1]
        sizes = {
            "N": encoder_state["lstm_layer.weight_ih_l0"].shape[1],
            "m": m,
            "layers": sum(name.startswith("lstm_layer.weight_hh_l") for name in encoder_state),
            "p": decoder_state["lstm_layer.weight_hh_l0"].shape[1],
            "o": decoder_state["fc_final.weight"].shape[0],
        }
        if "attn_v.weight" in encoder_state:
            return sizes | {"steps": encoder_state["attn_v.weight"].shape[1], "attention": "tanh"}
        steps = encoder_state["attn_linear.weight"].shape[1] - 2 * m
        return sizes | {"steps": steps, "attention": "linear"}
    except (KeyError, AttributeError, IndexError, TypeError) as error:
        raise InputError(
            f"{path}: found no parameter {error}, expected the state dicts of an encoder and a"
            " decoder with the published parameter names"
        ) from None


def check_sizes(in_file: dict, wanted: dict, path: Path) -> None:
    """Raise an InputError when weights were made for other sizes than ``wanted``."""
    different = [name for name in wanted if wanted[name] != in_file[name]]
    if different:
        made = ", ".join(f"{name} {value}" for name, value in in_file.items())
        asked = ", ".join(f"{name} {wanted[name]}" for name in different)
        raise InputError(
            f"{path}: found weights made for {made} (attended steps = T - 1), expected {asked};"
            " use the recording and the settings of that run"
        )


def load_parameters(part: nn.Module, state: dict, path: Path) -> None:
    """Load a state dict strictly; a mismatch is an InputError."""
    try:
        part.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = str(error).splitlines()
        raise InputError(f"{path}: found other parameters than expected: {lines[-1]}") from None


def check_permutation(permutation: Sequence[int] | None, count: int, path: Path) -> np.ndarray:
    """Return the permutation (N,) int64, or raise an InputError when it is missing or invalid."""
    order = None if permutation is None else np.asarray(permutation)
    if order is None or order.shape != (count,) or (np.sort(order) != np.arange(count)).any():
        what = "no pixel permutation" if order is None else "an invalid pixel permutation"
        raise InputError(
            f"{path}: found {what}, expected the numbers 0..{count - 1} in the order of the last"
            " epoch; without it the maps would lie on wrong pixels; train the run again"
        )
    return order.astype(np.int64)


def save_checkpoint(path: Path, net: DaRnnNet, progress: Progress, identity: dict) -> None:
    """Write the training state: parameters, optimisers, iteration, epoch, permutation, losses."""
    state = {
        "identity": identity,
        "seed": progress.seed,
        "epoch": progress.epoch,
        "iteration": progress.iteration,
        "permutation": torch.from_numpy(progress.permutation.copy()),
        "iter_losses": torch.tensor(progress.iter_losses, dtype=torch.float64),
        "epoch_losses": torch.tensor(progress.epoch_losses, dtype=torch.float64),
        "best": progress.best,
        "recent": progress.recent,
        "encoder": net.encoder.state_dict(),
        "decoder": net.decoder.state_dict(),
        "enc_opt": net.enc_opt.state_dict(),
        "dec_opt": net.dec_opt.state_dict(),
    }
    save_tensors(path, state)


def load_checkpoint(path: Path, net: DaRnnNet, identity: dict) -> Progress:
    """Load the training state into ``net`` and return its Progress.

    Args:
        identity: dict of settings that must be those of the checkpoint.
    """
    state = load_tensors(path)
    try:
        in_file = infer_sizes(state["encoder"], state["decoder"], path)
        wanted = infer_sizes(net.encoder.state_dict(), net.decoder.state_dict())
        check_sizes(in_file, wanted, path)
        permutation = check_permutation(state.get("permutation"), wanted["N"], path)
        different = [key for key in identity if state["identity"].get(key) != identity[key]]
        if different:
            raise InputError(
                f"{path}: found a training with other settings ({', '.join(different)}), expected"
                " the same as now; use --overwrite or another --run"
            )
        load_parameters(net.encoder, state["encoder"], path)
        load_parameters(net.decoder, state["decoder"], path)
        net.enc_opt.load_state_dict(state["enc_opt"])
        net.dec_opt.load_state_dict(state["dec_opt"])
        return Progress(
            permutation,
            state["seed"],
            state["epoch"],
            state["iteration"],
            state["iter_losses"].tolist(),
            state["epoch_losses"].tolist(),
            state["best"],
            state.get("recent", []),  # runs of before have none
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: found no complete training state ({type(error).__name__}: {error}), expected"
            " a checkpoint of main.py; use --overwrite"
        ) from None


def last_states(run_dir: Path) -> list[dict]:
    """Return the states after the last epochs that the training state of a run keeps."""
    path = Path(run_dir) / "checkpoint.pt"
    states = load_tensors(path).get("recent")
    if not states:
        raise InputError(
            f"{path}: found no states of single epochs, expected those of --gradient_epochs;"
            " train the run again"
        )
    return states


def save_network(run_dir: Path, net: DaRnnNet, record: dict) -> None:
    """Write the weights and the JSON files of a trained network; ``network.json`` comes last.

    Args:
        record: dict with sizes, rule, options, permutation, columns, target_columns,
            feature_pixels, target_pixels, shape, n_rows, train_size, fit_size, batch_size.
    """
    run_dir = Path(run_dir)
    for name, file in WEIGHT_FILES.items():
        state = {key: value.cpu() for key, value in getattr(net, name).state_dict().items()}
        save_tensors(run_dir / file, state)
        with atomic_path((run_dir / file).with_suffix(".safetensors")) as temporary:
            save_file(state, temporary)
    sizes, T = record["sizes"], record["rule"]["T"]
    encoder = {"input_size": sizes["N"], "hidden_size": sizes["m"], "T": T}
    decoder = {
        "encoder_hidden_size": sizes["m"],
        "decoder_hidden_size": sizes["p"],
        "T": T,
        "out_feats": sizes["o"],
    }
    write_json(run_dir / "enc_kwargs.json", encoder)
    write_json(run_dir / "dec_kwargs.json", decoder)
    write_json(run_dir / "da_rnn_kwargs.json", {"batch_size": record["batch_size"], "T": T})
    write_json(run_dir / "network.json", record)


def network_record(net: DaRnnNet, rule: WindowRule, options: ModelOptions) -> dict:
    """Return the part of ``network.json`` that describes the network itself."""
    sizes = infer_sizes(net.encoder.state_dict(), net.decoder.state_dict())
    return {"sizes": sizes, "rule": asdict(rule), "options": asdict(options)}


def load_network(run_dir: str | Path, device: str = "cpu") -> tuple[DaRnnNet, dict]:
    """Return (DaRnnNet, record) of a finished run; the record is that of ``network.json``."""
    run_dir = Path(run_dir)
    path = run_dir / "network.json"
    record = read_json(path)
    states = {name: load_tensors(run_dir / file) for name, file in WEIGHT_FILES.items()}
    in_file = infer_sizes(states["encoder"], states["decoder"], run_dir / WEIGHT_FILES["encoder"])
    try:
        check_sizes(in_file, record["sizes"], run_dir / WEIGHT_FILES["encoder"])
        rule, options = WindowRule(**record["rule"]), ModelOptions(**record["options"])
        sizes = record["sizes"]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: found no usable entry ({error}), expected sizes, rule and options as main.py"
            " writes them; train the run again"
        ) from None
    record["permutation"] = check_permutation(record.get("permutation"), sizes["N"], path)
    net = build_net(sizes, rule=rule, options=options, learning_rate=0.01, device=device)
    for name, file in WEIGHT_FILES.items():
        load_parameters(getattr(net, name), states[name], run_dir / file)
    record["rule"], record["options"] = rule, options
    return net, record


def load_weight_tensor(
    path: Path, *, n_features: int | None = None, n_frames: int | None = None
) -> torch.Tensor:
    """Return the weighted inputs (n_test, S, N) float32, contiguous, without gradient.

    Old files, in which the gradient graph's flag is still set, are read, too.
    """
    tensor = load_tensors(path)
    if not torch.is_tensor(tensor) or tensor.ndim != 3:
        raise InputError(
            f"{path}: found {type(tensor).__name__} of shape {getattr(tensor, 'shape', None)},"
            " expected a tensor (test windows, steps, pixels)"
        )
    tensor = tensor.detach().to(torch.float32).contiguous()
    for axis, wanted, what in ((2, n_features, "pixels"), (0, n_frames, "test windows")):
        if wanted is not None and tensor.shape[axis] != wanted:
            raise InputError(
                f"{path}: found {tensor.shape[axis]} {what}, expected {wanted}; the file belongs to"
                " another run or recording"
            )
    if not torch.isfinite(tensor).all():
        raise InputError(f"{path}: found NaN or infinity, expected finite weighted inputs")
    return tensor
