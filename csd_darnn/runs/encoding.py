"""Encode a recording with the saved weights of a run, or train its network on."""

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.files import RESULTS_DIR, InputError, atomic_path, read_json, write_json, write_settings
from common.locks import hold
from inputs.custom_types import DaRnnNet, TrainConfig
from inputs.prepare import Prepared
from network.build import Progress, shuffled, slot_tensor, to_device
from network.checkpoints import save_network
from network.prediction import window_batches
from runs.pipeline import save_array
from runs.reloading import reading_settings, record_of, reload_run
from runs.training import Course, train
from settings import SCALE_NAMES


def freeze_parameters(net: DaRnnNet, text: str) -> list[str]:
    """Freeze the parameters whose name contains ``text`` and return their names.

    Adam skips a parameter without a gradient, so that a frozen one stays bit for bit.
    """
    frozen = []
    for part in ("encoder", "decoder"):
        for name, value in getattr(net, part).named_parameters():
            if text != "none" and text in name:
                value.requires_grad_(False)
                frozen.append(f"{part}.{name}")
    if text != "none" and not frozen:
        known = ", ".join(name for name, _ in net.encoder.named_parameters())
        raise InputError(f"--freeze: found no parameter with {text!r} in its name; known: {known}")
    return frozen


@torch.no_grad()
def encode(net: DaRnnNet, record: dict, prepared: Prepared, out: Path) -> Path:
    """Write encoded.npz with the top encoder states and the attention of every window."""
    device = next(net.encoder.parameters()).device
    rule, data = prepared.rule, to_device(prepared.data, device)
    starts = rule.starts(rule.reach, len(data.feats))
    slots, inverse = (
        slot_tensor(order, device)
        for order in (record["permutation"], np.argsort(record["permutation"]))
    )
    states, attention = [], []
    for _, X, _ in window_batches(data, starts, rule, slots):
        _, encoded, alpha = net.encoder.encode(X)
        states.append(encoded.cpu().numpy())
        attention.append(shuffled(alpha, inverse).mean(dim=1).cpu().numpy())
    path = out / "encoded.npz"
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(
            handle,
            states=np.concatenate(states),
            attention=np.concatenate(attention),
            first_row=rule.x_rows(starts)[:, 0],
            target_row=rule.target_rows(starts),
        )
    return path


def train_on(
    net: DaRnnNet,
    record: dict,
    prepared: Prepared,
    chosen: argparse.Namespace,
    run_dir: Path,
    out: Path,
) -> tuple[list[str], Progress]:
    """Train the unfrozen parameters on and write a new run."""
    frozen = freeze_parameters(net, chosen.freeze)
    for optimiser in (net.enc_opt, net.dec_opt):
        for group in optimiser.param_groups:
            group["lr"] = chosen.learning_rate
    T, batch = prepared.rule.T, record["batch_size"]
    progress = train(
        net,
        prepared.data,
        TrainConfig(T, prepared.train_size, batch, nn.functional.mse_loss),
        chosen.n_epochs,
        # The loaded weights belong to the order they were trained with.
        course=Course(prepared.rule, chosen.seed, "none", fit_size=prepared.fit_size),
        progress=Progress(record["permutation"], chosen.seed),
    )
    record_of_run = read_json(Path(run_dir) / "settings.json")["settings"]
    # The identity of the run before: main.py would take this one for it.
    record_of_run.pop("identity", None)
    record_of_run |= {name: getattr(chosen, name) for name in ("n_epochs", "learning_rate", "seed")}
    settings = reading_settings(run_dir, chosen.data, chosen, quiet=True)
    record_of_run |= {name: getattr(settings, name) for name in SCALE_NAMES}
    record_of_run |= record_of(prepared)
    record_of_run |= {"run": out.name, "run_dir": str(out), "device": chosen.device}
    record_of_run |= {"trained_from": str(run_dir), "frozen": frozen}
    write_settings(
        out, record_of_run, inputs=[prepared.recording.source], libraries=("torch", "numpy")
    )
    prepared.scaler.save(out / "scaler.json")
    save_array(out / "iter_loss.npy", np.array(progress.iter_losses))
    save_array(out / "epoch_loss.npy", np.array(progress.epoch_losses))
    kept = {name: asdict(record[name]) for name in ("rule", "options")}
    save_network(out, net, record | kept | {"permutation": progress.permutation.tolist()})
    return frozen, progress


def encode_or_train(run_dir: Path, chosen: argparse.Namespace) -> None:
    """Encode, or train on with --freeze; ``chosen`` holds the flags of encoder_train.py."""
    net, record, prepared = reload_run(run_dir, chosen.data, "run", chosen.device, chosen=chosen)
    if not chosen.freeze:
        hold(run_dir)
        (run_dir / "encoded" / "recording.json").unlink(missing_ok=True)
        path = encode(net, record, prepared, run_dir / "encoded")
        write_json(path.with_name("recording.json"), record_of(prepared))
        print(path)
        return
    out = RESULTS_DIR / (chosen.out or f"{Path(run_dir).name}_trained")
    if (out / "network.json").exists():
        raise InputError(f"{out}: found a finished run, expected none; give another --out")
    hold(out)
    frozen, progress = train_on(net, record, prepared, chosen, run_dir, out)
    print(f"{len(frozen)} parameters frozen, loss {progress.epoch_losses[-1]:.4g}, {out}")
