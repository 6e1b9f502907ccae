"""Encode a new recording with the saved weights of a run, or train its network on.

    python encoder_train.py --run run --data ../data/csd_darnn/other.tif
    python encoder_train.py --run run --data ../data/csd_darnn/other.tif --freeze hh_l0

Reads a finished run in results/csd_darnn/<run>/. Without --freeze it writes
<run>/encoded/encoded.npz: states (n, T-1, m) and attention (n, N) of every window. With --freeze it
trains all parameters whose name does not contain that text and writes a new run of its own,
results/csd_darnn/<run>_trained/: weights, network.json, scaler.json, losses.
"""

from dataclasses import asdict
from pathlib import Path

from common.files import RESULTS_DIR, InputError, one_line_faults, seed_number, write_settings
from main_predict import reload_run, run_folder
from settings import Flag, parse

# What is encoded or trained
RUN = "run"  # folder below results/csd_darnn/, or a path
DATA = ""  # recording; "" = the one of the run
FREEZE = ""  # text; parameters whose name contains it stay as they are, "none" trains all
OUT = ""  # folder of the new run below results/csd_darnn/; "" = <run>_trained

# Training
N_EPOCHS = 10
LEARNING_RATE = 0.01
SEED = 0
DEVICE = "auto"  # auto, cpu, cuda, cuda:k, mps

FLAGS = {
    "RUN": Flag(str, "folder below results/csd_darnn/, or a path"),
    "DATA": Flag(str, "recording, empty = the one of the run"),
    "FREEZE": Flag(str, "text in the names of the frozen parameters; none = train all"),
    "OUT": Flag(str, "folder of the new run below results/csd_darnn/"),
    "N_EPOCHS": Flag(int, "epochs", low=1),
    "LEARNING_RATE": Flag(float, "rate of Adam", above=0),
    "SEED": Flag(seed_number, "seed of every random choice"),
    "DEVICE": Flag(str, "where to compute: auto, cpu, gpu or cuda, cuda:k, mps"),
}


def freeze_parameters(net, text):
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


def encode(net, record, prepared, out):
    """Write encoded.npz with the top encoder states and the attention of every window."""
    import numpy as np
    import torch

    from common.files import atomic_path
    from training import PREDICT_BATCH, shuffled, slot_tensor, to_device
    from windows import gather

    device = next(net.encoder.parameters()).device
    rule, data = prepared.rule, to_device(prepared.data, device)
    starts = rule.starts(rule.reach, len(data.feats))
    slots, inverse = (
        slot_tensor(order, device)
        for order in (record["permutation"], np.argsort(record["permutation"]))
    )
    states, attention = [], []
    with torch.no_grad():
        for low in range(0, len(starts), PREDICT_BATCH):
            X = gather(data.feats, rule.x_rows(starts[low : low + PREDICT_BATCH]))
            _, encoded, alpha = net.encoder.encode(shuffled(X, slots))
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


def train_on(net, record, prepared, arguments, run_dir, out):
    """Train the unfrozen parameters on and write a new run."""
    import numpy as np
    from torch import nn

    from checkpoints import save_network
    from common.files import read_json
    from custom_types import TrainConfig
    from pipeline import save_array
    from training import Progress, train

    frozen = freeze_parameters(net, arguments.freeze)
    for optimiser in (net.enc_opt, net.dec_opt):
        for group in optimiser.param_groups:
            group["lr"] = arguments.learning_rate
    T, batch = prepared.rule.T, record["batch_size"]
    progress = train(
        net,
        prepared.data,
        TrainConfig(T, prepared.train_size, batch, nn.functional.mse_loss),
        arguments.n_epochs,
        rule=prepared.rule,
        seed=arguments.seed,
        # The loaded weights belong to the order they were trained with.
        shuffle_pixels="none",
        fit_size=prepared.fit_size,
        progress=Progress(record["permutation"], arguments.seed),
    )
    settings = read_json(Path(run_dir) / "settings.json")["settings"]
    settings |= {name: getattr(arguments, name) for name in ("n_epochs", "learning_rate", "seed")}
    settings |= {"data": prepared.recording.source, "trained_from": str(run_dir), "frozen": frozen}
    write_settings(out, settings, inputs=[prepared.recording.source], libraries=("torch", "numpy"))
    prepared.scaler.save(out / "scaler.json")
    save_array(out / "iter_loss.npy", np.array(progress.iter_losses))
    save_array(out / "epoch_loss.npy", np.array(progress.epoch_losses))
    kept = {name: asdict(record[name]) for name in ("rule", "options")}
    save_network(out, net, record | kept | {"permutation": progress.permutation.tolist()})
    return frozen, progress


@one_line_faults
def main(argv=None):
    """Encode, or train on."""
    arguments = parse(argv, __doc__.splitlines()[0], globals(), FLAGS)
    run_dir = run_folder(arguments.run)
    net, record, prepared = reload_run(run_dir, arguments.data, "run", arguments.device)
    if not arguments.freeze:
        print(encode(net, record, prepared, run_dir / "encoded"))
        return 0
    out = RESULTS_DIR / (arguments.out or f"{Path(run_dir).name}_trained")
    if (out / "network.json").exists():
        raise InputError(f"{out}: found a finished run, expected none; give another --out")
    frozen, progress = train_on(net, record, prepared, arguments, run_dir, out)
    print(f"{len(frozen)} parameters frozen, loss {progress.epoch_losses[-1]:.4g}, {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
