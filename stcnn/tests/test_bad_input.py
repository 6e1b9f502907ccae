"""Check 15: every fault of the data is one line that names the culprit, exit code 2."""

import copy
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.files import InputError
from inputs.display import Display
from inputs.recordings import read_movies, read_recordings
from inputs.safe_load import load_tree, read_pickled_history
from network.checkpoints import load_model, read_config
from runs.convert import convert_all
from runs.data import open_dataset
from runs.dataset_figures import load_dataset
from runs.predictions import data_stimuli
from runs.training import train


@pytest.fixture
def folder(tmp_path):
    """A correct set of one neuron and one stimulus; returns (folder, rewrite function)."""
    t_axis = (torch.arange(60) - 30) / 60
    neuron = {
        "traces": torch.rand(2, 60),
        "azi_shift": torch.tensor(1.0),
        "ele_shift": torch.tensor(0.0),
    }
    tree = {"vstim_5": {"t_axis": t_axis, "Hz": 60, "neuron": {7: neuron}}}
    movie = {"vstim_5": {"rect_mov": torch.rand(20, 20, 20), "t_axis": torch.arange(20) / 60}}
    (tmp_path / "ca" / "lc11").mkdir(parents=True)
    (tmp_path / "mov").mkdir()

    def write(change=None, change_movie=None):
        session, film = copy.deepcopy(tree), copy.deepcopy(movie)
        for edit, part in ((change, session), (change_movie, film)):
            if edit:
                edit(part)
        torch.save(session, tmp_path / "ca" / "lc11" / "a.pt")
        torch.save(film, tmp_path / "mov" / "vstim_5.pt")

    write()
    return tmp_path, write


def neuron_of(session):
    return session["vstim_5"]["neuron"][7]


def set_nan(session):
    neuron_of(session)["traces"][1, 3] = float("nan")


CASES = {
    "wrong length": (
        lambda s: neuron_of(s).update(traces=torch.rand(2, 50)),
        r"a\.pt: vstim_5, neuron 7: traces have shape \(2, 50\) but t_axis has 60 samples",
    ),
    "nan": (set_nan, r"a\.pt: vstim_5, neuron 7: traces hold NaN or infinity in 1 of 2 trials"),
    "no shift": (lambda s: neuron_of(s).pop("azi_shift"), r"neuron 7: azi_shift missing"),
    "milliseconds": (
        lambda s: s["vstim_5"].update(t_axis=(torch.arange(60) - 30) * 5.5),
        r"vstim_5: t_axis runs in steps of 5\.5; expected seconds",
    ),
    "a time that falls": (
        lambda s: s["vstim_5"]["t_axis"][40:].sub_(1.0),
        r"vstim_5: t_axis does not rise: 0\.15 s, then -0\.833333 s \(entries 39 and 40\)",
    ),
    "odd name": (
        lambda s: s.update(stim=s.pop("vstim_5")),
        r"stimulus name 'stim': expected vstim_",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_faulty_traces(folder, case):
    change, message = CASES[case]
    folder[1](change)
    with pytest.raises(InputError, match=message):
        read_recordings(folder[0] / "ca")


def test_what_is_there_twice_is_named(folder):
    """A twin doubled the weight of its neurons; of two names of one stimulus the last one won."""
    place, write = folder
    write()
    convert_all([place / "ca"], place / "ca", form="npz")
    with pytest.raises(InputError, match=r"a\.pt: vstim_5, neuron 7: the very traces that a\.npz"):
        read_recordings(place / "ca")
    (place / "ca" / "lc11" / "a.npz").unlink()
    write(lambda s: s.update(vstim_05=s["vstim_5"]))
    with pytest.raises(InputError, match="stimulus 5 is there twice, under two names; keep one"):
        read_recordings(place / "ca")
    write(lambda s: s["vstim_5"]["neuron"].update({"07": neuron_of(s)}))
    with pytest.raises(InputError, match="vstim_5: neuron 7 is there twice; keep one"):
        read_recordings(place / "ca")


def test_endings_in_capitals_are_read(folder):
    place, write = folder
    write()
    for path in (place / "ca" / "lc11" / "a.pt", place / "mov" / "vstim_5.pt"):
        path.rename(path.with_suffix(".PT"))
    assert list(read_recordings(place / "ca")["lc11"]) == ["a.PT"]
    assert list(read_movies(place / "mov", rate_hz=60)) == [5]


def test_a_session_without_anything_is_no_session(tmp_path):
    """A table with a header alone, an empty dict and stimuli without neurons are named, all."""
    (tmp_path / "lc11").mkdir()
    (tmp_path / "lc11" / "a.csv").write_text("stimulus,neuron,seconds,dff,azi_shift,ele_shift\n")
    torch.save({}, tmp_path / "lc11" / "b.pt")
    torch.save({"vstim_5": {"t_axis": torch.arange(3) / 60, "neuron": {}}},
               tmp_path / "lc11" / "c.pt")  # fmt: skip
    with pytest.raises(InputError) as refused:
        read_recordings(tmp_path)
    lines = str(refused.value).split("; ")
    assert "a.csv: holds a header and no row" in lines[0]
    for name in ("b.pt", "c.pt"):
        assert f"{name}: holds no stimulus with a neuron; add" in str(refused.value)


def test_a_missing_package_is_told_once_for_all_files(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    (tmp_path / "lc11").mkdir()
    for k in range(3):
        (tmp_path / "lc11" / f"{k}.nwb").touch()
    for read, place in ((read_recordings, tmp_path), (read_movies, tmp_path / "lc11")):
        with pytest.raises(InputError, match=r"^NWB files need pynwb: [^;]*$"):
            read(place)


def test_nan_trials_can_be_dropped(folder):
    folder[1](set_nan)
    session = read_recordings(folder[0] / "ca", nan="drop_trial")
    assert session["lc11"]["a.pt"][5]["neuron"][7]["traces"].shape == (1, 60)


def test_predict_and_visualise_have_the_same_nan_policy(folder):
    """Trial 2 of 2 holds NaN: refused, or only the first one is shown."""
    first = neuron_of(load_tree(folder[0] / "ca" / "lc11" / "a.pt"))["traces"][0]
    folder[1](set_nan)
    paths = folder[0] / "ca", folder[0] / "mov"
    model = SimpleNamespace(display=Display(60.0, 1.0, 0.498, (20, 20)))
    for read in (
        lambda nan: load_dataset(*paths, nan=nan),
        lambda nan: data_stimuli(*paths, model, "data", "none", nan=nan),
    ):
        with pytest.raises(InputError, match="traces hold NaN or infinity in 1 of 2 trials"):
            read("reject")
    dataset = load_dataset(*paths, nan="drop_trial")
    torch.testing.assert_close(dataset.trace(dataset.items[0]), first)
    shown = data_stimuli(*paths, model, "data", "none", nan="drop_trial")
    np.testing.assert_allclose(shown.recorded[5]["lc11"][1], first[None], rtol=1e-6)


def test_faulty_movies(folder):
    folder[1](None, lambda m: m["vstim_5"]["rect_mov"].mul_(2.0))
    with pytest.raises(InputError, match=r"vstim_5\.pt: vstim_5: pixels range from .* expected 0"):
        read_movies(folder[0] / "mov", rate_hz=60)
    folder[1](None, lambda m: m["vstim_5"].update(t_axis=torch.arange(19) / 60))
    with pytest.raises(InputError, match="t_axis has 19 entries for 20 frames"):
        read_movies(folder[0] / "mov", rate_hz=60)


def test_hexagonal_rows_are_flipped(folder):
    def rename(movie):
        movie["vstim_5"]["hex_mov"] = movie["vstim_5"].pop("rect_mov")

    plain = read_movies(folder[0] / "mov", rate_hz=60)[5]
    path = folder[0] / "mov" / "vstim_5.pt"
    tree = load_tree(path)
    rename(tree)
    torch.save(tree, path)
    torch.testing.assert_close(read_movies(folder[0] / "mov", rate_hz=60)[5], plain.flip(1))


def test_unreadable_files(folder, tmp_path):
    path = folder[0] / "ca" / "lc11" / "a.pt"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(InputError, match=r"a\.pt: cannot be read, it is truncated"):
        read_recordings(folder[0] / "ca")
    path.unlink()
    with pytest.raises(
        InputError, match=r"lc11: no \.pt, \.npz, \.safetensors, \.csv, \.tsv, \.nwb file"
    ):
        read_recordings(folder[0] / "ca")
    with pytest.raises(InputError, match="folder of calcium traces not found"):
        read_recordings(folder[0] / "nowhere")


class Harmless:
    """An object of a class of its own: a safe loader must not build it."""


def test_a_file_that_holds_code_is_refused(folder, tmp_path):
    path = folder[0] / "ca" / "lc11" / "a.pt"
    torch.save({"vstim_5": Harmless()}, path)
    with pytest.raises(InputError, match=r"a\.pt: cannot be read, it holds more than tensors"):
        read_recordings(folder[0] / "ca")


# A pickle of protocol 0 that asks for os.getcwd, and one of {"lc11": [0.5]}.
FORBIDDEN = b"cos\ngetcwd\n(tR."
PLAIN = b"(dp0\nVlc11\np1\n(lp2\nF0.5\nas."


def test_history_with_a_forbidden_global_is_refused(tmp_path):
    """Check 17."""
    path = tmp_path / "avg_loss_hist.pkl"
    path.write_bytes(FORBIDDEN)
    with pytest.raises(InputError, match=r"asks for os\.getcwd, which is refused"):
        read_pickled_history(path)
    path.write_bytes(PLAIN)
    assert read_pickled_history(path) == {"lc11": [0.5]}
    path.write_bytes(PLAIN[:9])
    with pytest.raises(InputError, match="cannot be read"):
        read_pickled_history(path)


def overrides(folder):
    return [
        f"dataset.ca_path={folder}/ca", f"dataset.mov_path={folder}/mov",
        "dataset.sampling_rate=60",
        "dataset.num_t_pts_prepad=0", f"expt_path={folder}/runs", "n_epochs=1", "device=cpu",
    ]  # fmt: skip


def test_missing_movie_is_named_before_training(script, folder):
    film = folder[0] / "mov" / "vstim_5.pt"
    torch.save({"vstim_6": load_tree(film)["vstim_5"]}, film)
    done = script("train.py", "dataset=lc_small", *overrides(folder[0]), check=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert "vstim_5: no movie of this stimulus, needed by lc11/a.pt" in lines[0]
    assert not (folder[0] / "runs").exists()


def test_type_without_read_out(folder, tmp_path):
    from runs.configuration import compose_settings

    (folder[0] / "ca" / "lc11").rename(folder[0] / "ca" / "lc77")
    settings = compose_settings(["dataset=lc_small", *overrides(folder[0])])
    del settings["model"]["readout_default"]
    with pytest.raises(InputError, match="cell type lc77: no read-out block"):
        train(settings, run_dir=tmp_path / "run")


def test_types_of_a_configuration_and_of_the_data_must_agree(folder):
    from runs.configuration import compose_settings

    settings = compose_settings(["dataset=lc_small", *overrides(folder[0])])
    with pytest.raises(InputError, match="cell types lc12 are in the data or in the configuration"):
        open_dataset(settings, lc_types=["lc11", "lc12"])
    with pytest.raises(InputError, match="neuron 7 is unknown to the trained model"):
        open_dataset(settings, neuron_uids={"lc11": [8]})


def test_checkpoint_and_configuration(tiny_run, tmp_path):
    config = json.loads((tiny_run / "config.json").read_text())
    changed = copy.deepcopy(config)
    changed["ca_config"]["cell_count"] = [4, 1, 1]
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(
        InputError, match=r"ca_param\.lc11\.alpha has shape \(1,\), the configuration"
    ):
        load_model(tiny_run / "model_chkpnt_2.pt", config=tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"pr_config": ')
    with pytest.raises(InputError, match=r"config\.json: no valid JSON"):
        read_config(tmp_path / "config.json")
    del config["ca_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="ca_config missing"):
        read_config(tmp_path / "config.json")
    with pytest.raises(InputError, match="checkpoint not found"):
        load_model(tmp_path / "nothing.pt")
