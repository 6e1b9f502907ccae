"""Predict with the saved network of a finished run, on its own recording or on a new one.

    python main_predict.py --run run
    python main_predict.py --run run --data ../data/csd_darnn/other.tif --scaler own

Reads results/csd_darnn/<run>/: encoder.torch, decoder.torch, network.json, settings.json and
scaler.json (or a published scaler.pkl). Writes into <run>/reloaded/: final_y_pred.npy (n, o) in
z-units, attention.npz, plots/final_predicted_reloaded.png and metrics.csv.
"""

from pathlib import Path

from common.device import describe_device
from common.files import RESULTS_DIR, InputError, one_line_faults
from settings import Flag, parse

# What is predicted
RUN = "run"  # folder below results/csd_darnn/, or a path
DATA = ""  # recording; "" = the one of the run
SCALER = "run"  # run = mean and scale of the run, own = new ones from the recording
PART = "test"  # test = the rows after the training part, all = every row
DEVICE = "auto"  # auto, cpu, cuda, cuda:k, mps

FLAGS = {
    "RUN": Flag(str, "folder below results/csd_darnn/, or a path"),
    "DATA": Flag(str, "recording, empty = the one of the run"),
    "SCALER": Flag(str, "mean and scale of the run or of the recording", ("run", "own")),
    "PART": Flag(str, "rows that are predicted", ("test", "all")),
    "DEVICE": Flag(str, "where to compute: auto, cpu, gpu or cuda, cuda:k, mps"),
}


def run_folder(text):
    """Return the folder of a run from its name below results/csd_darnn/, or from a path."""
    named = RESULTS_DIR / text
    folder = named if named.is_dir() else Path(text)
    if not (folder / "network.json").is_file():
        raise InputError(
            f"{folder}: found no network.json, expected the folder of a finished run of main.py"
        )
    return folder


def reload_run(run_dir, data="", scaler="run", device="auto"):
    """Load the network of a run and a recording that fits it.

    Returns:
        (DaRnnNet, record of network.json, Prepared). The prepared recording is standardised with
        the run's scaler, or with one of its own.

    Raises:
        InputError: when the recording's columns are not those of the run.
    """
    import main
    from checkpoints import load_network
    from common.files import read_json
    from prepare import prepare, read_recording
    from preprocessing import load_scaler
    from safe_read import read_published_scaler
    from utils import choose_device

    chosen, _ = choose_device(device)
    print(describe_device("torch", chosen, asked=device != "auto"), flush=True)
    net, record = load_network(run_dir, chosen)
    saved = read_json(run_dir / "settings.json").get("settings", {})
    known = main.default_settings()
    settings = known | {name: saved[name] for name in known if name in saved}
    settings["targ_cols"] = tuple(settings["targ_cols"])
    settings |= {"data": Path(data or settings["data"]), "map": "attention"}
    recording = read_recording(settings)
    if list(recording.columns) != record["columns"]:
        raise InputError(
            f"{recording.source}: found {len(recording.columns)} columns, expected the"
            f" {len(record['columns'])} columns of {run_dir} ({record['columns'][0]} to"
            f" {record['columns'][-1]}); resize the recording like that of the run"
        )
    fitted = None
    if scaler == "run":
        published = run_dir / "scaler.pkl"
        if published.exists() and not (run_dir / "scaler.json").exists():
            fitted = read_published_scaler(published, recording.columns)
        else:
            fitted = load_scaler(run_dir / "scaler.json")
    settings |= {"targ_cols": tuple(record["target_columns"]), "target": ""}
    return net, record, prepare(settings, recording, fitted)


@one_line_faults
def main(argv=None):
    """Predict, draw and write."""
    arguments = parse(argv, __doc__.splitlines()[0], globals(), FLAGS)
    run_dir = run_folder(arguments.run)

    from common.files import atomic_path
    from displays import evaluate
    from pipeline import save_array, save_attention
    from plots import plot_prediction
    from prediction import predict_windows
    from utils import write_columns

    net, record, prepared = reload_run(run_dir, arguments.data, arguments.scaler, arguments.device)
    rule, starts = prepared.rule, prepared.test_starts
    if arguments.part == "all":
        starts = rule.starts(rule.reach, len(prepared.data.feats))
    result = predict_windows(
        net,
        prepared.data,
        starts,
        rule,
        permutation=record["permutation"],
        attention=True,
    )
    out = run_dir / "reloaded"
    save_array(out / "final_y_pred.npy", result.y_pred)
    first = int(rule.target_rows(starts)[0])
    save_attention(out / "attention.npz", prepared, record["permutation"], result.attention, first)
    rows = evaluate(prepared, result.y_pred, starts=starts)
    with atomic_path(out / "metrics.csv") as temporary:
        write_columns(temporary, {name: [row[name] for row in rows] for name in rows[0]})
    truth = prepared.data.targs[rule.target_rows(starts)]
    for position, label in enumerate(prepared.target_labels):
        suffix = f"_{label}" if position else ""
        path = plot_prediction(
            truth[:, position],
            result.y_pred[:, position],
            out / "plots" / f"final_predicted_reloaded{suffix}.png",
            first_frame=first,
            label=label,
        )
    network = next(row for row in rows if row["model"] == "network")
    print(f"RMSE {network['rmse']:.4g} z over {len(starts)} frames, {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
