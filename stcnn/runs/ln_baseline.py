"""A trained run beside LN models of the same neurons, fitted and scored on the same stimuli."""

from pathlib import Path

from analysis.ln_model import LNModel
from analysis.metrics import score_rows, told
from common.files import InputError, read_json
from common.locks import writing
from common.tables import read_rows, write_rows
from network.checkpoints import load_model, read_config
from runs.continuing import check_same_data
from runs.data import open_dataset, split_of
from runs.training import show_through


def score_baseline(
    run_dir: Path, *, ca_path: Path | None = None, mov_path: Path | None = None
) -> list[dict]:
    """Fit LN models on a run's training items, write baseline.csv, and return its rows.

    The rows hold ``model`` (network or LN), ``part``, ``cell_type`` and the columns of scores.csv.
    Position and padding of the stimuli are the run's own.

    Args:
        run_dir: folder of the run.
        ca_path, mov_path: where its recordings and movies lie now, default where they lay.

    Raises:
        InputError: no finished run, nothing held out, or other data than the run's.
    """
    run_dir = Path(run_dir)
    if not (run_dir / "scores.csv").is_file():
        raise InputError(f"{run_dir}: no scores.csv inside; give a finished run of train.py")
    settings = read_json(run_dir / "settings.json", remedy="train anew")["settings"]
    moved = {"ca_path": ca_path, "mov_path": mov_path}
    settings["dataset"] |= {key: str(place) for key, place in moved.items() if place is not None}
    config = read_config(run_dir / "config.json")
    dataset = open_dataset(
        settings, lc_types=config["L_config"]["lc_types"], neuron_uids=config["neuron_uids"]
    )
    check_same_data(run_dir, dataset.digests)  # the network's scores are those of these data
    network = load_model(run_dir)
    show_through(dataset, network)
    rows, val_rows = split_of(settings, dataset)
    if not val_rows:
        raise InputError(
            f"{run_dir}: holds out no stimulus, so nothing can be compared; train with "
            "val_stimuli or val_fraction"
        )
    model = LNModel(network.dt).fit(dataset, rows)
    seen = {dataset.items[row].uid for row in rows}
    scores, _ = score_rows(model, dataset, val_rows, seen=seen)
    table = [
        {"model": "network", **row}
        for row in read_rows(run_dir / "scores.csv")
        if row["part"] == "held_out"
    ]
    table += [
        {"model": "LN", "part": "held_out", "cell_type": kind, **told(values)}
        for kind, values in scores.items()
    ]
    with writing(run_dir):
        write_rows(run_dir / "baseline.csv", table)
    return table
