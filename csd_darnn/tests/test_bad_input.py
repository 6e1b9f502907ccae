"""Bad input to main.py and its companions: one line with the file, and exit code 2."""

import json
import shutil
import sys
import types

import joblib
import numpy as np
import pytest
import torch

import main
from common.files import InputError
from common.locks import visible
from helpers import SMALL, call, run_script, tiny_movie
from inputs.preprocessing import load_scaler
from inputs.safe_read import load_tensors, read_published_scaler
from network.checkpoints import load_network, load_weight_tensor
from runs.reloading import reload_run


def run(tmp_path, movie=None, **changes):
    """Run a tiny movie into tmp_path/run and return the folder."""
    path = tmp_path / "movie.npy"
    if movie is not None:
        np.save(path, movie)
    elif not path.exists():
        tiny_movie(path)
    settings = SMALL | {"maps": False, "n_epochs": 1} | changes
    return main.run_all(settings.pop("data", path), run_dir=tmp_path / "run", **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, read only."""
    return run(tmp_path_factory.mktemp("finished"))


def movie_of(n_frames=60):
    return np.random.default_rng(0).normal(size=(n_frames, 3, 4)).astype(np.float32)


def with_nan():
    movie = movie_of()
    movie[7, 1, 2] = np.nan
    movie[9] = np.inf
    return movie


def with_constant_target():
    movie = movie_of()
    movie[:, 2, 3] = 4.0
    return movie


def with_twin():
    movie = movie_of()
    movie[:, 0, 0] = movie[:, 2, 3]
    return movie


@pytest.mark.parametrize(
    ("movie", "changes", "words"),
    [
        (with_nan(), {}, ["13 values", "frame 7", "row 1, column 2"]),
        (with_constant_target(), {}, ["constant target", "11"]),
        (with_twin(), {}, ["identical to target", "--allow_duplicate_target"]),
        (movie_of(9), {}, ["training frames of 9"]),
        (movie_of(), {"T": 2}, ["T >= 3", "--map attention"]),
        (movie_of(), {"T": 50}, ["training frames", "lower --T"]),
        (movie_of(), {"targ_cols": ("937",)}, ["937", "0 to 11"]),
        (movie_of(), {"target": "3,0"}, ["row 3", "rows 0..2"]),
        (movie_of(), {"target": "three"}, ["--target", "row,col"]),
        (movie_of(), {"attention_scale": "-1"}, ["--attention_scale"]),
        (movie_of(), {"data": "no_such_file.tif"}, ["no_such_file.tif"]),
        (movie_of(), {"device": "tpu"}, ["--device", "tpu"]),
        (movie_of(), {"target_grid": "9,9"}, ["--target_grid"]),
        (np.arange(20 * 36).reshape(20, 3, 4, 3), {}, ["--gray"]),
    ],
)  # fmt: skip
def test_bad_recording_or_setting(tmp_path, movie, changes, words):
    with pytest.raises(InputError) as caught:
        run(tmp_path, movie, **changes)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--T", "1"], "--T: found 1, expected >= 2"),
        (["--learning_rate", "nan"], "--learning_rate"),
        (["--batch_size", "many"], "--batch_size: found 'many', expected int"),
        (["--map", "heat"], "expected one of reference"),
        (["--lerning_rate", "1"], "did you mean --learning_rate?"),
        (["--data", "/no/such/movie.tif"], "/no/such/movie.tif"),
        (["--run", "../run"], "--run ../run: expected a plain name"),
        (["--demo", "--run", "/tmp/run"], "--run /tmp/run: expected a plain name"),
        (["--seed", "-1"], "--seed -1: expected a whole number of 0 or more"),
        (["--full"], "--full belongs to --demo"),
        (["--demo", "--run", "bad_device", "--device", "tpu"], "found 'tpu', expected auto"),
    ],
)
def test_command_line_gives_one_line_and_code_2(flags, words):
    start = run_script if flags == ["--full"] else call  # one of them as a user starts it
    done = start("main.py", *flags)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert words in done.stderr
    assert all(line.startswith("device: ") for line in done.stdout.splitlines())


def test_overwrite_with_bad_input_loses_nothing(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")

    def content():
        return {
            path: path.read_bytes() for path in visible(folder, recursive=True) if path.is_file()
        }

    before = content()
    with pytest.raises(InputError):
        run(tmp_path, movie_of(9), overwrite=True)
    assert {
        path: path.read_bytes() for path in visible(folder, recursive=True) if path.is_file()
    } == before


def test_weights_of_another_network_say_what_they_were_made_for(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    record = json.loads((folder / "network.json").read_text())
    wrong = record | {"sizes": record["sizes"] | {"m": 7}}
    (folder / "network.json").write_text(json.dumps(wrong))
    with pytest.raises(InputError, match=r"N 19, m 6.*expected m 7"):
        load_network(folder)
    for permutation in (None, [0] * 19):
        changed = record | {"permutation": permutation}
        (folder / "network.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="permutation"):
            load_network(folder)
    (folder / "network.json").write_text('{"sizes": ')
    with pytest.raises(InputError, match=r"network\.json"):
        load_network(folder)


def test_recording_of_another_size_is_refused(finished, tmp_path):
    other = tiny_movie(tmp_path / "other.npy", width=6)
    with pytest.raises(InputError, match=r"found 24 columns, expected the 20 columns"):
        reload_run(finished, other, device="cpu")


class Code:
    """Something that would run code when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickles_with_code_are_refused(tmp_path):
    victim = tmp_path / "made_by_the_pickle"
    torch.save({"a": Code(str(victim))}, tmp_path / "encoder.torch")
    with pytest.raises(InputError, match="code is refused"):
        load_tensors(tmp_path / "encoder.torch")
    joblib.dump(Code(str(victim)), tmp_path / "scaler.pkl")
    with pytest.raises(InputError, match="code"):
        read_published_scaler(tmp_path / "scaler.pkl", ["a"])
    assert not victim.exists()


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_cut_weights_are_an_error(tmp_path, cut):
    path = tmp_path / "encoder.torch"
    torch.save({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"encoder\.torch"):
        load_tensors(path)


def test_published_scaler_is_read(tmp_path):
    """A stand-in with scikit-learn's module and class name, which is all the file keeps."""
    path = tmp_path / "scaler.pkl"
    stand_in = type("StandardScaler", (), {"__module__": "sklearn.preprocessing._data"})
    names = ("sklearn", "sklearn.preprocessing", "sklearn.preprocessing._data")
    modules = {name: types.ModuleType(name) for name in names}
    modules[names[-1]].StandardScaler = stand_in
    sys.modules.update(modules)
    try:
        scaler = stand_in()
        scaler.mean_, scaler.scale_ = np.array([1.0, 2.0]), np.array([3.0, 4.0])
        joblib.dump(scaler, path)
    finally:
        for name in names:
            del sys.modules[name]
    read = read_published_scaler(path, ["a", "b"])
    np.testing.assert_array_equal(read.transform(np.array([[4.0, 6.0]])), [[1.0, 1.0]])
    with pytest.raises(InputError, match="2 columns, expected 3"):
        read_published_scaler(path, ["a", "b", "c"])


def test_scaler_and_weight_tensor_faults(tmp_path):
    path = tmp_path / "scaler.json"
    for text in ("{", '{"mean": [1], "scale": [0], "columns": ["a"], "fitted_on": ""}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"scaler\.json"):
            load_scaler(path)
    tensor = tmp_path / "weight_tensor_rs.pt"
    torch.save(torch.ones(4, 3, 5, requires_grad=True), tensor)  # as the published project did
    weights = load_weight_tensor(tensor)
    assert (weights.requires_grad, weights.dtype, tuple(weights.shape)) == (
        False,
        torch.float32,
        (4, 3, 5),
    )
    for sizes in ({"n_features": 6}, {"n_frames": 3}):
        with pytest.raises(InputError, match="expected"):
            load_weight_tensor(tensor, **sizes)
    torch.save(torch.ones(4, 5), tensor)
    with pytest.raises(InputError, match="expected a tensor"):
        load_weight_tensor(tensor)
