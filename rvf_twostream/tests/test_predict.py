"""Weights on disk, prediction, pictures: on an untrained model that is saved as a trained one."""

import csv
import json
import shutil

import numpy as np
import pytest

import predict
import tiny_split
import visualize_GBP
from common.files import InputError
from inputs.movies import list_pairs
from inputs.recipe import Recipe, fit_to_model
from inputs.utils import read_classmap
from little import run_script
from network.checkpoints import load_weights, read_info, save_weights
from network.published_weights import load_trunk, published_shape
from published import fill
from runs.prediction import predict_RVF
from settings import ENGINE_PYTHON

SIZE = dict(zip(("nframes", "nrows", "ncols"), tiny_split.SIZE, strict=True))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a filled tiny model; return (root of a tiny split, its weights, the model)."""
    from network.model_zoo import two_stream

    root = tiny_split.write_split(tmp_path_factory.mktemp("split"), n=16)
    model = fill(two_stream(input_size=tiny_split.SIZE, depth=18, width=4), 7)
    path = tmp_path_factory.mktemp("weights") / "m.weights.h5"
    info = {
        "kind": "two_stream",
        "depth": 18,
        "width": 4,
        "input_size": list(tiny_split.SIZE),
        "threshold": 2,
    }
    save_weights(model, path, info)
    return root, path, model


def flags(saved, out, *more):
    root, path, _ = saved
    named = ("--root", root, "--weights", path, "--splitnum", 0, "--out", out, "--device", "cpu")
    return [str(x) for x in (*named, *more)]


def rows_of(path):
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def predicted(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted")
    assert predict.main(flags(saved, out, "--seed", "3")) == 0
    return out / "predictions" / "output_split0"


def test_probability_is_the_mean_of_the_stored_clips(saved, predicted):
    root, _, model = saved
    for row in rows_of(predicted / "predictions.csv"):
        starts = [int(s) for s in row["starts"].split()]
        assert len(starts) == 5
        clips = {}
        for name, folder in (("grey", "greyscale"), ("of", "OF")):
            movie = np.load(root / folder / f"split0_{row['set']}" / f"{row['file']}.npy")
            clips[name] = np.stack([movie[s : s + 8] for s in starts])
        outputs = np.asarray(model([clips["grey"], clips["of"]], training=False))
        assert float(row["probability"]) == pytest.approx(outputs.mean(), abs=1e-6)


def test_a_data_set_of_other_statistics_is_scaled_as_the_model_was(saved, tmp_path):
    """The same raw movies, z-scored with numbers of their own, give the same probabilities."""
    root, path, model = saved
    info = json.loads(path.with_name("m.json").read_text())
    both = (("grey", "greyscale", "data_mean_std.json"), ("of", "OF", "data_mean_std_OF.json"))
    info |= {f"{key}_stats": json.loads((root / name).read_text()) for key, _, name in both}
    other = shutil.copytree(root, tmp_path / "other")
    for _, folder, name in both:
        stats = json.loads((other / name).read_text())
        (other / name).write_text(json.dumps(stats | {"mean": -0.5, "std": 0.4}))
        for movie in (other / folder / "split0_test").glob("*.npy"):
            np.save(movie, (np.load(movie) + 0.5) / np.float32(0.4))

    def probabilities(folder):
        recipe, rescaling = fit_to_model(folder, 0, info, path)
        assert recipe.hash == Recipe.of_root(root).hash
        movies = list_pairs(folder, 0, "test", read_classmap(folder), **SIZE)
        rows = predict_RVF(
            lambda x: np.asarray(model([x["grey"], x["of"]], training=False)),
            movies,
            nframes=8,
            n_sample=2,
            rescaling=rescaling,
        )
        return [row["probability"] for row in rows]

    np.testing.assert_allclose(probabilities(other), probabilities(root), atol=1e-5)


def test_patients_are_means_of_movies(predicted):
    movies, patients = (rows_of(predicted / f"{n}.csv") for n in ("predictions", "patients"))
    for row in patients:
        own = [float(m["probability"]) for m in movies if m["id"] == row["id"]]
        assert float(row["probability"]) == pytest.approx(np.mean(own), abs=1e-12)


def test_published_files(predicted):
    for name in ("val", "test"):
        rows = [r for r in rows_of(predicted / "predictions.csv") if r["set"] == name]
        lines = (predicted / f"X_{name}.csv").read_text().splitlines()
        assert lines == [f"{row['probability']}," for row in rows]
        labels = (predicted / f"y_{name}.csv").read_text().splitlines()
        assert labels == [f"{row['y'] == '1'}," for row in rows]
        assert (predicted / f"{name}_redcaps.csv").read_text().startswith(f"{rows[0]['id']},\n")
    metrics = json.loads((predicted / "metrics.json").read_text())
    assert set(metrics) == {"val", "test"}
    assert (predicted / "report.html").stat().st_size > 2000


def test_same_seed_same_files(saved, predicted, tmp_path):
    predict.main(flags(saved, tmp_path, "--seed", "3"))
    for path in predicted.glob("*.csv"):
        again = tmp_path / "predictions" / "output_split0" / path.name
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_even_starts_and_one_set(saved, tmp_path):
    predict.main(flags(saved, tmp_path, "--sampling", "even", "--sets", "val", "--n_sample", "3"))
    rows = rows_of(tmp_path / "predictions" / "output_split0" / "predictions.csv")
    assert {row["starts"] for row in rows} == {"0 2 4"}
    assert {row["set"] for row in rows} == {"val"}


@pytest.fixture(scope="module")
def pictures(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("pictures")
    assert visualize_GBP.main(flags(saved, out, "--nsamples", "2")) == 0
    return out / "guidedbackprop_visualization"


def test_pictures(saved, pictures):
    from PIL import Image

    rows = rows_of(pictures / "index.csv")
    assert len(rows) == 2
    for row in rows:
        name = row["name"]
        assert Image.open(pictures / "proj" / f"{name}.png").size == (384, 1152)
        frames = sorted((pictures / "movies" / name).iterdir())
        assert [p.name for p in frames] == [f"GBP_frame{i}.png" for i in range(8)]
        gif = Image.open(pictures / f"{name}.gif")
        assert gif.n_frames == 8
        assert gif.size[0] % 2 == 0
        assert gif.size[1] % 2 == 0
        with np.load(pictures / f"{name}.npz") as arrays:
            assert arrays["grey"].shape == (8, 32, 32, 1)
            assert arrays["of"].shape == arrays["clip_of"].shape == (8, 32, 32, 2)
            assert (arrays["cam_grey"] >= 0).all()


def test_existing_pictures_are_kept(saved, pictures, capsys):
    before = (pictures / "index.csv").read_bytes()
    assert visualize_GBP.main(flags(saved, pictures.parent, "--nsamples", "2")) == 0
    assert "already drawn" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        visualize_GBP.main(flags(saved, pictures.parent, "--nsamples", "1"))
    assert "-r" in capsys.readouterr().err
    assert (pictures / "index.csv").read_bytes() == before


def test_pictures_follow_the_trained_head(saved):
    """Guards against the published script's random head; a dead network is told."""
    from analysis.gradient_maps import scaled_frames, stack_streams
    from network.guided import guided_gradients, guided_model
    from network.model_zoo import two_stream
    from published import generated_clips

    clips = generated_clips(1, tiny_split.SIZE, 1)
    model = fill(two_stream(input_size=tiny_split.SIZE, depth=18, width=2), 7)
    guided = guided_model(model)
    first = guided_gradients(guided, clips)[0]
    minus = guided_gradients(guided, clips, target="normal")[0]
    assert np.abs(first + minus).max() > 1e-3 * np.abs(first).max()
    kernel = model.get_layer("preds").kernel
    kernel.assign(np.asarray(kernel)[::-1])
    other = guided_gradients(guided_model(model), clips)[0]
    assert np.abs(first - other).max() > 0.1 * np.abs(first).max()
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    grey, flow, _ = guided_gradients(guided_model(model), clips)
    with pytest.raises(InputError, match="gradient is zero"):
        scaled_frames(stack_streams(grey[0], flow[0]))


def test_grad_cam_equals_its_definition(saved):
    import keras
    import tensorflow as tf

    from inputs.resize import resize_img_list
    from network.guided import grad_cam
    from published import generated_clips

    _, _, model = saved
    clips = generated_clips(2, tiny_split.SIZE, 1)
    last = model.get_layer("of_final_relu").output
    stage = keras.Model(model.inputs, [last, model.get_layer("concat").output])
    with tf.GradientTape() as tape:
        activation, joined = stage([clips["grey"], clips["of"]], training=False)
        pooled = tf.reduce_mean(activation, axis=(1, 2, 3))
        logit = tf.reduce_sum(pooled @ model.get_layer("preds").kernel[32:])
        gradient = tape.gradient(logit, activation)
    np.testing.assert_allclose(np.asarray(joined)[:, 32:], pooled, atol=1e-5)
    weights = np.asarray(gradient).mean(axis=(1, 2, 3), keepdims=True)
    wanted = np.maximum((np.asarray(activation) * weights).sum(-1), 0).max(axis=1)
    cam = grad_cam(model, clips)["of"]
    np.testing.assert_allclose(cam, resize_img_list(wanted, 32, 32), atol=1e-6)


@pytest.mark.parametrize(
    ("script", "change", "words"),
    [
        (predict, ["--weights", "gone.weights.h5"], ["gone.weights.h5", "not found"]),
        (predict, ["--splitnum", "7"], ["split7_val"]),
        (predict, ["--root", "/nowhere"], ["/nowhere"]),
        (predict, ["--n_sample", "0"], ["--n_sample"]),
        (predict, ["--sets", "val,dev"], ["dev", "train, val, test"]),
        (predict, ["--dicom", "gone.dcm"], ["gone.dcm"]),
        (visualize_GBP, ["--nsamples", "0"], ["--nsamples", ">= 1"]),
        (visualize_GBP, ["--nsample", "1"], ["--nsamples"]),
        (
            visualize_GBP,
            ["--engine_python", "/no/python", "--engine", "innvestigate"],
            ["run.py env"],
        ),
    ],
)
def test_bad_flags(saved, tmp_path, capsys, script, change, words):
    more = [] if script is predict else ["--nsamples", "1"]
    with pytest.raises(SystemExit, match="2"):
        script.main(flags(saved, tmp_path, *more, *change))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--root", ".", "--splitnum", "0", "--json"], "--json is of --dicom FILE only"),
        (["--root", ".", "--splitnum", "0", "--frame_rate", "30"], "--frame_rate is of --dicom"),
        (["--root", ".", "--splitnum", "0", "--baseline_weights", "W"], "of --baseline only"),
        (["--dicom", __file__, "--root", "."], "--dicom FILE stands alone"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(capsys, change, words):
    with pytest.raises(SystemExit, match="2"):
        predict.main(["--weights", "w.weights.h5", *change])
    assert words in capsys.readouterr().err


def test_damaged_and_foreign_weights(saved, tmp_path):
    from network.model_zoo import single_stream, two_stream

    _, path, model = saved
    short = tmp_path / "short.weights.h5"
    short.write_bytes(path.read_bytes()[:50_000])
    info = json.loads(path.with_name("m.json").read_text())
    (tmp_path / "short.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"short\.weights\.h5"):
        read_info(short)
    (tmp_path / "m.weights.h5").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"needs m\.json"):
        read_info(tmp_path / "m.weights.h5")
    (tmp_path / "m.json").write_text(json.dumps({**info, "depth": 34}))
    with pytest.raises(InputError, match="does not fit"):
        two_stream(tmp_path / "m.weights.h5")
    with pytest.raises(InputError, match="two_stream model, expected a grey"):
        read_info(path, kind="grey")
    small = single_stream("grey", input_size=tiny_split.SIZE, depth=18, width=4)
    save_weights(small, tmp_path / "g.weights.h5", {**info, "kind": "grey"})
    with pytest.raises(InputError, match=r"20 convolutions .* depth 34 needs 36"):
        load_trunk(model, "grey", tmp_path / "g.weights.h5", depth=34, width=4)


@pytest.mark.parametrize("part", ["layers/conv3d_3", "layers/dense", "optimizer"])
def test_weights_are_never_loaded_in_part(part, saved, tmp_path):
    import h5py
    import keras

    from network.checkpoints import load_weights, save_h5
    from network.model_zoo import make_optimizer

    _, _, model = saved
    trained = keras.Model(model.inputs, model.outputs)
    trained.compile(optimizer=make_optimizer(model, 1e-3))
    path = tmp_path / "m.weights.h5"
    save_h5(trained, path)
    load_weights(trained, path)
    with h5py.File(path, "r+") as handle:
        del handle[part]
    with pytest.raises(InputError, match=r"arrays of (layers|optimizer), \d+ needed"):
        load_weights(trained, path)


def test_a_trunk_of_other_channels_is_fitted(tmp_path):
    """Grey weights start the flow stream: the response to two equal channels stays the same."""
    from network.model_zoo import single_stream

    info = {"kind": "grey", "depth": 18, "width": 4, "input_size": list(tiny_split.SIZE)}
    grey = fill(single_stream("grey", input_size=tiny_split.SIZE, depth=18, width=4), 1)
    save_weights(grey, tmp_path / "g.weights.h5", info)
    flow = single_stream("of", input_size=tiny_split.SIZE, depth=18, width=4)
    note = load_trunk(flow, "of", tmp_path / "g.weights.h5", depth=18, width=4)
    assert "2" in note
    flow.get_layer("preds").set_weights(grey.get_layer("preds").get_weights())
    x = np.random.default_rng(0).standard_normal((1, *tiny_split.SIZE, 1)).astype(np.float32)
    same = np.asarray(flow(np.repeat(x, 2, axis=-1), training=False))
    np.testing.assert_allclose(same, np.asarray(grey(x, training=False)), atol=1e-5)


def write_published(model, path, *, first=1):
    """Write ``model`` as Keras 2 did: conv3d_N, batch_normalization_N, preds, N from ``first``."""
    import h5py

    from network.published_weights import creation_key

    kinds = {"conv3d": [], "batch_normalization": []}
    for layer in model.layers:
        if layer.weights and layer.name != "preds":
            kind = "batch_normalization" if layer.name.endswith("_bn") else "conv3d"
            kinds[kind].append(layer)
    with h5py.File(path, "w") as handle:
        for kind, layers in kinds.items():
            layers.sort(key=lambda layer: creation_key(layer.name))
            for n, layer in enumerate(layers, start=first):
                write_layer(handle, f"{kind}_{n}", layer)
        write_layer(handle, "preds", model.get_layer("preds"))


def write_layer(handle, name, layer):
    for variable in layer.weights:
        handle[f"{name}/{name}/{variable.name}:0"] = np.asarray(variable)


def test_published_files_of_any_counter_load(saved, tmp_path):
    from network.model_zoo import two_stream
    from network.published_weights import convert_reference_weights

    _, _, model = saved
    write_published(model, tmp_path / "old.hdf5", first=97)
    assert published_shape(tmp_path / "old.hdf5") == ("two_stream", 18, 4)
    out = tmp_path / "new.weights.h5"
    convert_reference_weights(tmp_path / "old.hdf5", out, input_size=tiny_split.SIZE)
    for old, new in zip(model.weights, two_stream(out).weights, strict=True):
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))
    with pytest.raises(InputError, match="20 convolutions per stream, depth 50 needs 53"):
        convert_reference_weights(tmp_path / "old.hdf5", out, depth=50)
    with pytest.raises(InputError, match="holds no conv3d_N"):
        published_shape(out)


def test_load_weights_needs_a_file(tmp_path):
    with pytest.raises(InputError, match="not found"):
        load_weights(None, tmp_path / "no.weights.h5")


@pytest.mark.slow
def test_innvestigate_agrees(saved, pictures, tmp_path):
    """Both engines give the same gradients; minutes, in the environment rvf_innvestigate."""
    if not ENGINE_PYTHON.is_file():
        pytest.skip(f"no {ENGINE_PYTHON}: python3 run.py env rvf_innvestigate")
    more = ("--nsamples", "2", "--engine", "innvestigate")
    assert visualize_GBP.main(flags(saved, tmp_path, *more)) == 0
    theirs = tmp_path / "guidedbackprop_visualization"
    assert {row["engine"] for row in rows_of(theirs / "index.csv")} == {"innvestigate"}
    for path in sorted(pictures.glob("*.npz")):
        with np.load(path) as one, np.load(theirs / path.name) as other:
            for stream in ("grey", "of"):
                largest = np.abs(one[stream]).max()
                np.testing.assert_allclose(one[stream], other[stream], atol=1e-5 * largest)


@pytest.mark.parametrize(
    "script",
    [
        "main",
        "run_demo",
        "train_twostream",
        "predict",
        "visualize_GBP",
        "pretrain_OF",
        "pretrain_greyscale",
        "benchmark",
    ],
)
def test_help_names_every_global(script):
    import ast

    from little import FOLDER

    done = run_script(f"{script}.py", "--help")
    assert done.returncode == 0
    listed = {"run_demo": "main"}.get(script, script)
    tree = ast.parse((FOLDER / f"{listed}.py").read_text(encoding="utf-8"))
    names = [
        node.targets[0].id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    for name in set(names) - {"PUBLISHED"}:
        assert f"--{name.lower()}" in done.stdout, name


def test_baselines_beside_the_network(saved, tmp_path, capsys):
    _root, path, _ = saved
    more = ("--baseline", "--baseline_weights", str(path), "--fan_only")
    assert predict.main(flags(saved, tmp_path, *more)) == 0
    shown, warned = capsys.readouterr()
    movies = rows_of(tmp_path / "predictions" / "output_split0" / "predictions.csv")
    n_test = sum(row["set"] == "test" for row in movies)
    assert f"test: nothing is blanked in {n_test} of {n_test} movies" in warned
    assert "beside it, logistic regression on motion numbers: val AUC" in shown
    assert "beside it, the network, all outside the fan blanked: val AUC" in shown
    folder = tmp_path / "predictions" / "output_split0"
    stored = json.loads((folder / "baselines.json").read_text())
    assert set(stored) == {"motion numbers", "features of m.weights.h5"}
    rows = rows_of(folder / "baselines.csv")
    assert {row["set"] for row in rows} == {"val", "test"}
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    page = (folder / "report.html").read_text()
    assert "<td>logistic regression on motion numbers</td><td>test</td>" in page
    assert "<td>the network, all outside the fan blanked</td><td>test</td>" in page
    note = f"test: nothing is blanked in {n_test} of {n_test} movies"
    assert note in page
    # These movies lie z-scored on disk: their fan can't be told and nothing is blanked.
    for row in rows_of(folder / "predictions.csv"):
        assert row["probability_fan_only"] == row["probability"]


@pytest.mark.parametrize("flag", ["--fan_only", "--baseline"])
def test_what_needs_a_split_is_refused_for_one_file(flag, tmp_path, capsys):
    file = tmp_path / "a.dcm"
    file.write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        predict.main(["--weights", "w.weights.h5", "--dicom", str(file), flag])
    assert stopped.value.code == 2
    assert "compare the movies of a split, not of --dicom" in capsys.readouterr().err
