"""Pre-training: regression of the ejection fraction, classification, labels, bad input."""

import argparse
import csv
import json

import numpy as np
import pytest

import main
import pretrain_greyscale
import pretrain_OF
import tiny_split
import train_twostream
from common.files import InputError
from network.checkpoints import read_info
from runs.pipeline import pretrain_settings, training_settings
from runs.pretrain import FOLDERS, regression_sets
from runs.pretrain_flags import pretrain_parser


def write_echonet(root, n=8, channels=1, frames=10):
    """Write prepared movies and filename2class.json as prepare_echonet.py does."""
    rng, ef = np.random.default_rng(0), {}
    kind = FOLDERS["grey" if channels == 1 else "of"]
    for i in range(n):
        folder = root / f"{'train' if i < n - 2 else 'val'}_{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        movie = rng.standard_normal((frames, 32, 32, channels)).astype(np.float16)
        np.save(folder / f"X{i}.npy", movie)
        ef[f"X{i}"] = 40.0 + 3 * i
    (root / "filename2class.json").write_text(json.dumps(ef))
    return root


def flags(root, out, *more):
    named = ("--root", root, "--ckptdir", out, "--device", "cpu", "--epoch", 2, "--batch_size", 3)
    return [str(x) for x in (*named, *tiny_split.MODEL, *tiny_split.CLIP, *more)]


def test_regression(tmp_path, capsys):
    root = write_echonet(tmp_path / "echo")
    out = tmp_path / "out"
    more = ("--ef_bias", 50, "--model_prefix", "g")
    assert pretrain_greyscale.main(flags(root, out, *more)) == 0
    with open(out / "model_csv" / "g.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["epoch", "loss", "val_loss", "val_mae", "val_r2", "lr", "seconds"]
    assert len(rows) == 2
    # Targets are 40 to 61: a bias of 50 leaves a squared error far below 50 ** 2.
    assert float(rows[0]["loss"]) < 1000
    info = read_info(out / "g.weights.h5", kind="grey")
    assert info["best_epoch"] == 1 + int(np.argmin([float(row["val_loss"]) for row in rows]))
    assert pretrain_greyscale.main(flags(root, out, *more)) == 0
    assert "already trained" in capsys.readouterr().out


@pytest.mark.slow
def test_classification_starts_from_other_weights(tmp_path):
    grey = write_echonet(tmp_path / "echo")
    assert pretrain_greyscale.main(flags(grey, tmp_path / "g", "--model_prefix", "g")) == 0
    root = write_echonet(tmp_path / "flow", channels=2)
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class\n" + "".join(f"X{i}.npy,{'ab'[i % 2]}\n" for i in range(8)))
    start = ("--init_weights", tmp_path / "g" / "g.weights.h5")
    more = ("--task", "classification", "--labels", labels, "--model_prefix", "c", *start)
    assert pretrain_OF.main(flags(root, tmp_path / "c", *more)) == 0
    info = read_info(tmp_path / "c" / "c.weights.h5", kind="of")
    assert info["classes"] == ["a", "b"]
    assert info["n_classes"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--root", "/nowhere"], ["/nowhere"]),
        (["--task", "classification"], ["--labels"]),
        (["--ef_bias", "120"], ["--ef_bias", "100"]),
        (["--ckpt_monitor", "val_accuracy"], ["regression"]),
        (["--init_weights", "gone.h5"], ["gone.h5"]),
        (["--nclass", "2"], ["unknown argument --nclass"]),
        (["--nframes", "16"], ["10 frames, 16 needed"]),
    ],
)
def test_bad_flags(tmp_path, capsys, change, words):
    root = write_echonet(tmp_path / "echo")
    with pytest.raises(SystemExit, match="2"):
        pretrain_greyscale.main(flags(root, tmp_path / "out", *change))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,class\nX1.npy\n", "row 2: expected file and class"),
        ("X0,a\nX1,b\nX0.npy,b\n", "row 3: X0.npy has two classes"),
        ("X0,a\nY1,b\n", "Y1 is not below"),
        ("Y0,a\nX1,b\n", "Y0 is not below"),
    ],
)
def test_faulty_labels(tmp_path, capsys, text, words):
    root = write_echonet(tmp_path / "echo")
    (tmp_path / "labels.csv").write_text(text)
    more = ("--task", "classification", "--labels", tmp_path / "labels.csv")
    with pytest.raises(SystemExit, match="2"):
        pretrain_greyscale.main(flags(root, tmp_path / "out", *more))
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factor", "words"), [(0.01, "these are fractions; write percent"), (10, "X0 is 400; expected")]
)
def test_ejection_fractions_are_percent(tmp_path, factor, words):
    root = write_echonet(tmp_path / "echo")
    table = json.loads((root / "filename2class.json").read_text())
    assert len(regression_sets(argparse.Namespace(root=root), "grey")["train"]) > 1
    table = {name: factor * ef for name, ef in table.items()}
    (root / "filename2class.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match=words):
        regression_sets(argparse.Namespace(root=root), "grey")


def test_movies_without_target(tmp_path, capsys):
    root = write_echonet(tmp_path / "echo")
    (root / "filename2class.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        pretrain_greyscale.main(flags(root, tmp_path / "out"))
    assert "no ejection fraction of X0, X1" in capsys.readouterr().err


def test_both_scripts_have_their_own_name():
    assert pretrain_greyscale.MODEL_PREFIX != pretrain_OF.MODEL_PREFIX


def test_the_story_asks_for_what_the_scripts_read(tmp_path):
    """A run of main.py is resumed by the scripts, and the other way round."""
    story = vars(main.build_parser().parse_args(["--root", str(tmp_path), "--depth", "18"]))
    read = {
        "grey": pretrain_parser("", vars(pretrain_greyscale)).parse_args(flags(tmp_path, tmp_path)),
        "two": train_twostream.build_parser().parse_args(
            tiny_split.train_flags(tmp_path, tmp_path)
        ),
    }
    weights = {"grey": "none", "of": tmp_path / "of.weights.h5"}
    asked = {
        "grey": pretrain_settings("grey", tmp_path, tmp_path, story),
        "two": training_settings(tmp_path, tmp_path, weights, story),
    }
    for name, args in read.items():
        kinds = {key: type(value) for key, value in vars(asked[name]).items()}
        assert kinds == {key: type(value) for key, value in vars(args).items()}
    assert asked["two"].class_weight == {"0": 0.2, "1": 1.8}
    with pytest.raises(AttributeError):
        asked["two"].epoch = 1
