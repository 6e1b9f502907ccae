"""Runs keep apart what is different: best epochs, new neurons, twins, folders of results, names."""

import json
import shutil

import numpy as np
import pytest
import torch

from analysis.metrics import fit_gain, gain_rows, score_rows
from common.files import InputError
from common.tables import read_rows
from inputs.ca_dataloader import CalciumDataset, Layout, split_rows
from inputs.display import Display
from inputs.recordings import Movies, read_recordings
from inputs.safe_load import load_tree, save_arrays
from inputs.user_movies import View
from network.checkpoints import load_model, load_state, model_from_config, read_config
from network.models import parameter_name
from runs.configuration import compose_settings
from runs.convert import convert
from runs.data import expand_barcodes
from runs.showing import claim, movie_names
from runs.training import Quality, train

RATE = 60.0


def settings_of(args, *more):
    return compose_settings([*args, "device=cpu", *more])


def test_the_best_epoch_survives_a_resume(tiny_args, tmp_path):
    run = tmp_path / "run"
    args = ["val_fraction=0.25", "keep_best=true", "lr=0.003"]
    train(settings_of(tiny_args, *args, "n_epochs=2"), run_dir=run)
    rows = read_rows(run / "log.csv")
    losses = [sum(float(v) for k, v in row.items() if k.endswith("_mse")) for row in rows]
    quality = Quality(run, {"keep_best": True, "early_stop": None}, done=2)
    assert quality.best == pytest.approx(min(losses))
    assert quality.since == len(losses) - 1 - int(np.argmin(losses))
    best = (run / "best.safetensors").read_bytes()
    # from here on nothing is better: the learning rate throws the weights away
    record = json.loads((run / "settings.json").read_text())
    record["settings"] |= {"lr": 50.0, "clip_max_norm": None}
    (run / "settings.json").write_text(json.dumps(record))
    given = settings_of(tiny_args, "n_epochs=3", f"resume={run}")
    train(given, explicit=["n_epochs", "resume"])
    later = [sum(float(v) for k, v in row.items() if k.endswith("_mse"))
             for row in read_rows(run / "log.csv")]  # fmt: skip
    assert len(later) == 3
    assert later[2] > min(losses)
    assert (run / "best.safetensors").read_bytes() == best


def test_a_run_may_be_resumed_where_its_data_lie_now(tiny_args, tiny_set, tmp_path):
    train(settings_of(tiny_args, "n_epochs=1"), run_dir=tmp_path / "run")
    shutil.copytree(tiny_set, tmp_path / "moved")
    moved = [f"dataset.{k}_path={tmp_path}/moved/{v}"
             for k, v in (("ca", "ca_traces"), ("mov", "movies"))]  # fmt: skip
    given = settings_of(tiny_args, *moved, "n_epochs=2", f"resume={tmp_path}/run")
    explicit = ["n_epochs", "resume", "dataset.ca_path", "dataset.mov_path"]
    train(given, explicit=explicit)
    assert (tmp_path / "run" / "model_chkpnt_2.pt").is_file()
    path = tmp_path / "moved" / "ca_traces" / "lc11" / "synthetic.pt"
    tree = load_tree(path)
    next(iter(tree["vstim_300"]["neuron"].values()))["traces"] += 0.1
    torch.save(tree, path)
    with pytest.raises(InputError, match=r"changed: lc11/synthetic\.pt.*dataset\.ca_path"):
        train(given | {"n_epochs": 3}, explicit=explicit)


def session(uids, codes, curve, n=180, onset=30):
    axis = (torch.arange(n) - onset) / RATE
    return {
        code: {
            "t_axis": axis,
            "neuron": {
                uid: {"traces": torch.from_numpy(curve(uid, code)).float()[None].repeat(2, 1),
                      "azi_shift": 0.0, "ele_shift": 0.0}
                for uid in uids
            },
        }
        for code in codes
    }  # fmt: skip


def dataset_of(curve, movies, uids=(1, 2)):
    recordings = {"lc11": {"a.pt": session(uids, movies, curve)}}
    display = Display(RATE, 1.0, 0.498, (8, 8))
    return CalciumDataset(recordings, movies, Layout(n_prepad=0), display=display,
                          sample=lambda frames: frames[:, :2, :2])  # fmt: skip


class Answers:
    """Stands for a model with the wrong gain: it answers with 0.1 x shape + 5."""

    def __init__(self, shape):
        self.shape = torch.from_numpy(shape).float()

    def eval(self):
        """Do nothing."""

    def predict_items(self, sampled, types, neurons):
        """Return the curve for each item."""
        return (0.1 * self.shape + 5.0).expand(len(types), -1)


def test_the_gain_of_a_new_neuron_is_fitted_on_other_stimuli():
    shape = np.exp(-np.arange(180) / 40.0)
    movies = Movies({code: torch.rand(20, 8, 8) for code in range(6)})
    dataset = dataset_of(lambda uid, code: 3.0 * uid * shape + 0.2, movies)
    rows = [row for row, item in enumerate(dataset.items) if item.uid == 2]
    fitted = gain_rows(dataset, rows, {1})[2]
    assert [dataset.items[row].barcode for row in fitted] == [1, 3, 5]
    raw, _ = score_rows(Answers(shape), dataset, rows)
    assert raw["lc11"]["r2"] < -1.0
    scores, table = score_rows(Answers(shape), dataset, rows, seen={1})
    assert scores["lc11"]["r2"] == pytest.approx(1.0, abs=1e-4)
    assert [row["use"] for row in table] == ["score", "gain"] * 3
    one = [row for row in rows if dataset.items[row].barcode == 0]
    scores, _ = score_rows(Answers(shape), dataset, one, seen={1})
    assert np.isnan(scores["lc11"]["r2"])
    assert scores["lc11"]["trace_correlation"] == pytest.approx(1.0, abs=1e-4)
    assert fit_gain(shape, -shape)[0] == 0.0  # no gain turns a response round


def test_stimuli_with_one_movie_stay_together(caplog):
    film = torch.rand(20, 8, 8)
    movies = Movies({1: film, 2: torch.rand(20, 8, 8), 3: film.clone(), 4: film.clone()},
                    first={4: 5})  # fmt: skip
    dataset = dataset_of(lambda uid, code: np.ones(180), movies)
    kept, held = split_rows(dataset, fraction=0.0, held_out={3})
    assert {dataset.items[row].barcode for row in held} == {1, 3}
    assert {dataset.items[row].barcode for row in kept} == {2, 4}  # 4 starts later
    assert "vstim_1: held out as well" in caplog.text
    for seed in range(6):
        kept, held = split_rows(dataset, fraction=0.34, seed=seed)
        codes = {dataset.items[row].barcode for row in held}
        assert ({1, 3} <= codes) or not ({1, 3} & codes)


def test_stimuli_that_were_not_recorded_cannot_be_held_out(tiny_args, tmp_path):
    assert expand_barcodes(["1-3"], {2, 3, 9}) == {2, 3}
    for entry in ("99999", "4-8"):
        with pytest.raises(InputError, match=f"stimulus {entry}: not among the recorded ones"):
            expand_barcodes([2, entry], {2, 3, 9})
    with pytest.raises(InputError, match="expected a number or first-last"):
        expand_barcodes(["9-1"])
    with pytest.raises(InputError, match="stimulus 99999: not among"):
        train(settings_of(tiny_args, "val_stimuli=[99999]"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "model_chkpnt_0.pt").exists()


def test_folders_that_differ_in_case_are_refused(tmp_path, tiny_set):
    for name in ("LC11", "lc11"):
        shutil.copytree(tiny_set / "ca_traces" / "lc11", tmp_path / name)
    with pytest.raises(InputError, match="LC11 and lc11 are one cell type"):
        read_recordings(tmp_path)


@pytest.mark.parametrize("kind", ["LC10.a", "keys", "train", "file", "epoch"])
def test_cell_types_may_have_any_name(tiny_set, tiny_args, tmp_path, kind):
    shutil.copytree(tiny_set / "movies", tmp_path / "movies")
    shutil.copytree(tiny_set / "ca_traces" / "lc11", tmp_path / "ca" / kind)
    places = [f"dataset.ca_path={tmp_path}/ca", f"dataset.mov_path={tmp_path}/movies"]
    run = train(settings_of(tiny_args, *places, "n_epochs=1"), run_dir=tmp_path / "run")
    model = load_model(run)
    assert model.cell_types == [kind.lower()]
    assert len(model.calcium_of(kind.lower())["beta"]) == 1
    given = settings_of(tiny_args, *places, "n_epochs=2", f"resume={run}")
    train(given, explicit=["n_epochs", "resume"])
    assert parameter_name("lc11") == "lc11"


def test_a_published_checkpoint_without_a_shared_constant_loads(tiny_run):
    config = read_config(tiny_run / "config.json")
    config["ca_config"]["use_global_ca_tau"] = False
    model = model_from_config(config)
    assert model.global_ca_tau is None
    state = {**model.state_dict(), "global_ca_tau": torch.tensor([0.4])}
    load_state(model, state, tiny_run / "model_chkpnt_2.pt")
    with pytest.raises(InputError, match="unexpected other"):
        load_state(model, {**state, "other": torch.zeros(1)}, tiny_run / "model_chkpnt_2.pt")


def test_results_of_another_checkpoint_are_not_overwritten(here, tiny_run, tmp_path):
    from generate_ca_predictions import main

    np.savez(tmp_path / "m.npz", movie=np.full((6, 20, 20), 0.4), rate_hz=60.0)
    call = ["--checkpoint", tiny_run, "--stimulus", tmp_path / "m.npz", "--out", tmp_path / "out"]
    here(main, *call)
    here(main, *call)
    first = (tmp_path / "out" / "m_traces.csv").read_bytes()
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "m.npz", movie=np.full((6, 20, 20), 0.9), rate_hz=60.0)
    call[3] = tmp_path / "other" / "m.npz"
    here(main, *call)
    assert (tmp_path / "out" / "m_traces.csv").read_bytes() == first
    assert len(list((tmp_path / "out").glob("m_*_traces.csv"))) == 1
    call[1] = tiny_run / "model_chkpnt_1.pt"
    done = here(main, *call, check=2)
    assert "holds predictions made with another checkpoint_sha256; give another --out" in done.err
    done = here(main, *call[:-1], tiny_run, check=2)
    assert "give another --out" in done.err


def test_names_of_families_are_not_taken_by_movies(tmp_path):
    (tmp_path / "looming.npz").write_bytes(b"a")
    names = movie_names([str(tmp_path / "looming.npz")], View(), {})
    assert next(iter(names["of"].values())).startswith("looming_")
    (tmp_path / "Looming.NPZ").write_bytes(b"c")
    names = movie_names([str(tmp_path / "Looming.NPZ")], View(), {})
    assert next(iter(names["of"].values())).startswith("Looming_")
    (tmp_path / "M.npz").write_bytes(b"b")  # one file with m on many disks
    names = movie_names([str(tmp_path / "M.npz")], View(), {"m": "another"})
    assert next(iter(names["of"].values())).startswith("M_")
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files of something else"):
        claim(tmp_path, {})


def test_converting_in_place_leaves_other_files(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "model_chkpnt_2.safetensors").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"model_chkpnt_2\.safetensors: is there already"):
        convert(run / "model_chkpnt_2.pt", run)
    assert (run / "model_chkpnt_2.safetensors").read_bytes() == b"mine"
    convert(run / "config.json", run)
    assert (run / "config.json").read_bytes() == (tiny_run / "config.json").read_bytes()


def test_the_same_seed_gives_the_same_files(tiny_args, tmp_path):
    for name in ("a", "b"):
        train(settings_of(tiny_args, "n_epochs=1"), run_dir=tmp_path / name)
    for path in ("model_chkpnt_1.pt", "model_chkpnt_1.safetensors", "loss_hist.npz", "items.csv"):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_arrays_of_any_name_are_written(tmp_path):
    save_arrays(tmp_path / "a.npz", {"file": np.arange(3), "epoch/file": np.ones(2)})
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["file"].tolist() == [0, 1, 2]
        assert arrays["epoch/file"].tolist() == [1, 1]
