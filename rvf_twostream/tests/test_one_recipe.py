"""One recipe from file to probability: what is mixed ends in one line, what is equal is equal."""

import argparse
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import optical_flow_calculator as flow_script
import preprocess as preprocess_script
from common import limits
from common.files import InputError
from inputs import flow_files
from inputs.frames import make_movie
from inputs.labelled_videos import find_movies, match_labels
from inputs.movies import list_pairs
from inputs.one_dicom import dicom_clips
from inputs.recipe import Recipe, check_training_scale, fit_to_model, recipe_of_split
from inputs.sorting import read_manifest
from inputs.splits import split_root
from inputs.storage import check_room, stored_flow, stored_grey, values
from inputs.utils import read_classmap, read_split
from little import (
    assert_one_line,
    call_script,
    compute_flow,
    preprocess,
    texture,
    write_data_set,
    write_dicom,
)
from runs.cohort import prepare_cohort
from runs.prediction import predict_RVF
from settings import STORY, with_defaults

SMALL = {"nrows": 32, "ncols": 32}
SPLIT = "id,set\np01,train\np02,train\np03,val\np04,test\n"


def prepare(root, split=True, **settings):
    """Preprocess, make flow and link split 0."""
    flow = {k: settings[k] for k in ("stats", "splitnum") if k in settings}
    assert preprocess(root, **SMALL, **settings) == 0
    assert compute_flow(root, **SMALL, **flow) == 0
    if split:
        assert split_root(root, 0) == 0
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = write_data_set(tmp_path_factory.mktemp("made") / "set", movies=2, rows=64, cols=80)
    (root / "split_allocation_0.csv").write_text(SPLIT)
    return prepare(root)


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "set")


def info_of(root):
    """Return what a model trained on ``root`` says of its movies."""
    names = (("grey_stats", "data_mean_std.json"), ("of_stats", "data_mean_std_OF.json"))
    stats = {key: json.loads((root / name).read_text()) for key, name in names}
    return stats | {"input_size": [32, 32, 32]}


def forward(clips):
    """A stand-in for a network: a number that every pixel of both streams moves."""
    parts = [clip.astype(np.float64) for clip in clips.values()]
    weights = [np.linspace(-1, 2, part[0].size).reshape(part[0].shape) for part in parts]
    total = sum((p * w).mean(axis=(1, 2, 3, 4)) for p, w in zip(parts, weights, strict=True))
    return 1 / (1 + np.exp(-total[:, None]))


@pytest.mark.parametrize("sampling", ["even", "random"])
@pytest.mark.parametrize("store", ["compact", "float32"])
def test_a_file_has_the_same_probability_in_a_cohort_and_alone(made, tmp_path, sampling, store):
    other = write_data_set(tmp_path / "ext", ids=("q1", "q2", "q3"), rows=90, cols=70, n=40)
    (other / "split_allocation_0.csv").write_text("q1,test\nq2,test\nq3,test\n")
    prepare(other, store=store)
    info = info_of(made)
    assert info["grey_stats"]["mean"] != json.loads((other / "data_mean_std.json").read_text())
    _, scaling = fit_to_model(other, 0, info, tmp_path / "m.weights.h5")
    movies = list_pairs(other, 0, "test", read_classmap(other), **SMALL)
    rows = predict_RVF(forward, movies, sampling=sampling, seed=7, rescaling=scaling)
    sources = {row["name"]: other / row["source"] for row in read_manifest(other)}
    assert len(rows) == 3
    for row in rows:
        args = argparse.Namespace(
            weights=tmp_path / "m.weights.h5",
            dicom=sources[row["file"]],
            deid="refuse",
            n_sample=5,
            sampling=sampling,
            seed=7,
            frame_rate=0.0,
        )
        clips, starts, _ = dicom_clips(args, info)
        assert " ".join(map(str, starts)) == row["starts"]
        assert float(forward(clips).mean()) == pytest.approx(row["probability"], abs=1e-6)


@pytest.mark.parametrize(
    ("grey", "flow", "words"),
    [
        ({"crop": "sector"}, {}, "crop none -> sector"),
        ({"grey": "reference"}, {}, "grey luma -> reference"),
        ({}, {"flow_unit": "px_per_s"}, "flow_unit px_per_frame -> px_per_s"),
        ({"resample_fps": 20.0, "nframes": 20}, {"nframes": 20}, "resample_fps 0.0 -> 20.0"),
    ],
)
def test_a_cohort_made_otherwise_than_the_training_is_refused(made, tmp_path, grey, flow, words):
    other = write_data_set(tmp_path / "ext", ids=("q1", "q2"), rows=64, cols=80)
    (other / "split_allocation_0.csv").write_text("q1,test\nq2,val\n")
    assert preprocess(other, **SMALL, **grey) == 0
    assert compute_flow(other, **SMALL, **flow) == 0
    split_root(other, 0)
    with pytest.raises(InputError, match=f"made otherwise.*{words}"):
        fit_to_model(other, 0, info_of(made), tmp_path / "m.weights.h5")


def test_scales_of_different_movies_are_not_mixed(root):
    assert preprocess(root, **SMALL, stats="train") == 0
    with pytest.raises(InputError, match=r"grey are over movies: train split 0, .* flow .* all"):
        Recipe.of_root(root)
    assert compute_flow(root, **SMALL, stats="train") == 0
    recipe = recipe_of_split(root, 0)
    train = ["p01a", "p01b", "p02a", "p02b"]
    check_training_scale(recipe, root, 0, train)
    with pytest.raises(InputError, match=r"over movies: train split 0, this is split 1"):
        check_training_scale(recipe, root, 1, train)
    with pytest.raises(InputError, match=r"other movies than the training set"):
        check_training_scale(recipe, root, 0, [*train, "p03a"])


def test_a_link_to_a_movie_that_was_made_anew_is_refused(root):
    write_dicom(root / "p04_0.dcm", texture(36, 64, 80, seed=123), "p04")  # the old link stays
    assert preprocess(root, **SMALL) == 0
    assert compute_flow(root, **SMALL) == 0
    rows = {row["source"]: row for row in read_manifest(root)}
    changed = rows["p04_0.dcm"]["name"]
    with pytest.raises(InputError, match=f"{changed}.npy was made anew.* run split_data.py"):
        list_pairs(root, 0, "test", read_classmap(root), nframes=32, **SMALL)
    split_root(root, 0, recalculate=True)
    list_pairs(root, 0, "test", read_classmap(root), nframes=32, **SMALL)


def test_one_more_file_rewrites_no_movie(root):
    before = {p: p.stat().st_mtime_ns for p in root.glob("processed_*/*.npy")}
    write_dicom(root / "new.dcm", texture(34, 64, 80, seed=55), "p03")
    prepare(root, split=False)
    after = {p: p.stat().st_mtime_ns for p in root.glob("processed_*/*.npy")}
    assert {p: after[p] for p in before} == before
    assert len(after) == len(before) + 2
    assert json.loads((root / "data_mean_std.json").read_text())["n_movies"] == 9


def test_a_movie_needs_a_fifth_of_the_disk_and_keeps_its_numbers(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", texture(60, 240, 320), "p")
    options = {"crop": "none", "grey": "luma", "resample_fps": 0.0, "nrows": 112, "ncols": 112}
    flow = {"nrows": 112, "ncols": 112, "flow_size": None, "farneback": {}}
    made = make_movie(path, options, flow)
    grey, field = stored_grey(made.grey, "compact"), stored_flow(made.flow, "compact")
    # Before: both streams twice in float32.
    assert 2 * (made.grey.nbytes + made.flow.nbytes) / (grey.nbytes + field.nbytes) > 4.5
    assert grey.nbytes + field.nbytes < 3.8e6
    assert np.abs(values(grey) - made.grey).max() <= 0.501 / 255
    np.testing.assert_allclose(values(field), made.flow, rtol=2**-11, atol=2**-24)
    assert np.array_equal(values(stored_flow(made.flow, "float32")), made.flow)


def test_movies_that_have_no_room_are_told_before_any_is_written(made, tmp_path, monkeypatch):
    def free(n_bytes):
        usage = SimpleNamespace(free=n_bytes + limits.DISK_MARGIN)
        monkeypatch.setattr(limits.shutil, "disk_usage", lambda place: usage)

    root = write_data_set(tmp_path / "new", movies=2, rows=64, cols=80)
    needed = 8 * 34 * 32 * 32  # bytes of the grey movies; the flow has four times as many
    free(needed - 1)
    with pytest.raises(InputError, match=r"processed_dicoms: 8 movies needs 279 kB.*no space"):
        preprocess(root, **SMALL)
    assert not list(root.glob("processed_dicoms/*.npy"))
    free(needed)
    assert preprocess(root, **SMALL) == 0
    with pytest.raises(InputError, match=r"processed_OF: 8 movies needs 1.11 MB.*no space"):
        compute_flow(root, **SMALL)
    free(4 * needed)
    assert compute_flow(root, **SMALL) == 0
    free(0)  # what is replaced is room
    assert compute_flow(root, **SMALL, recalculate=True) == 0
    rows = [{"name": "none", "frames": "60", "fps": "30"}]
    options = {"nrows": 10, "ncols": 10, "store": "float32", "resample_fps": 15.0}
    free(30 * 100 * 8)
    check_room(tmp_path, rows, options, "of")
    with pytest.raises(InputError, match="no space left"):
        check_room(tmp_path, rows, options | {"resample_fps": 16.0}, "of")


def test_one_pass_gives_what_two_scripts_give(made, tmp_path, monkeypatch, capsys):
    root = write_data_set(tmp_path / "set", movies=2, rows=64, cols=80)
    (root / "split_allocation_0.csv").write_text(SPLIT)
    size = ["--nrows", "32", "--ncols", "32"]
    flags = ["--root", str(root), *size, "--with_flow", "px_per_frame"]
    assert preprocess_script.main(flags) == 0
    monkeypatch.setattr(flow_files, "make_movie", None)  # no file is decoded again
    assert flow_script.main(["--root", str(root), *size]) == 0
    assert "0 flows made" in capsys.readouterr().out
    split_root(root, 0)
    for path in sorted(made.rglob("*.npy")) + sorted(made.glob("data_mean_std*.json")):
        assert path.read_bytes() == (root / path.relative_to(made)).read_bytes(), path


def test_with_flow_leaves_nothing_to_do(made, tmp_path, capsys):
    root = write_data_set(tmp_path / "set", movies=2, rows=64, cols=80)
    (root / "split_allocation_0.csv").write_text(SPLIT)
    flags = ["--root", str(root), "--nrows", "32", "--ncols", "32"]
    assert preprocess_script.main(flags) == 0
    # The grey movies are there already: the flow is made all the same.
    assert preprocess_script.main([*flags, "--with_flow", "px_per_frame"]) == 0
    assert "8 flows made (px_per_frame)" in capsys.readouterr().out
    split_root(root, 0)
    written = sorted(made.rglob("*.npy")) + sorted(made.glob("data_mean_std*.json"))
    written += [made / "split0_recipe.json"]
    for path in written:
        assert path.read_bytes() == (root / path.relative_to(made)).read_bytes(), path
    assert preprocess_script.main([*flags, "--with_flow", "px_per_frame", "-r"]) == 0
    capsys.readouterr()
    assert flow_script.main(flags) == 0
    assert "all 8 flows exist already" in capsys.readouterr().out


def test_the_manifest_is_the_list(root, capsys):
    text = (root / "REDcap_class.csv").read_text().replace("p02,severe\n", "")
    (root / "REDcap_class.csv").write_text(text)
    prepare(root, split=False)
    split_root(root, 0, recalculate=True)
    assert "p02" not in " ".join(p.name for p in (root / "greyscale").rglob("*.npy"))
    (root / "REDcap_class.csv").write_text(text + "p02,severe\n")
    names = {row["source"]: row["name"] for row in read_manifest(root)}
    prepare(root, split=False)
    assert {row["source"]: row["name"] for row in read_manifest(root)} == names
    split_root(root, 0, recalculate=True)
    assert (root / "OF" / "split0_train" / "p02b.npy").exists()


def test_a_movie_whose_flow_failed_is_left_out_with_a_line(root, capsys):
    assert compute_flow(root, **SMALL, flow_unit="cm_per_s", recalculate=True) == 0
    for name, tag in (("p01_0", None), ("p03_1", None)):
        write_dicom(root / f"{name}.dcm", texture(34, 64, 80, seed=3), name[:3], FrameTime=tag)
    # Both lose the only rate that they had, CineRate included.
    import pydicom

    for name in ("p01_0", "p03_1"):
        data = pydicom.dcmread(root / f"{name}.dcm")
        del data.CineRate
        data.PixelData = texture(34, 64, 80, seed=ord(name[2])).tobytes()
        data.save_as(root / f"{name}.dcm")
    assert preprocess(root, **SMALL) == 0
    assert compute_flow(root, **SMALL, flow_unit="cm_per_s") == 1
    capsys.readouterr()
    assert split_root(root, 0, recalculate=True) == 0
    shown = capsys.readouterr().err
    assert "2 movies without flow left out" in shown
    assert "give --frame_rate" in shown


def test_files_without_a_uid_keep_their_letters(tmp_path):
    root = write_data_set(tmp_path / "set", movies=2, rows=64, cols=80)
    for k, path in enumerate(sorted(root.glob("*.dcm"))):
        movie = texture(34, 64, 80, seed=50 + k)
        write_dicom(path, movie, path.name[:3], SOPInstanceUID="")
    prepare(root, split=False)
    names = [(row["source"], row["name"]) for row in read_manifest(root)]
    assert len({name for _, name in names}) == 8
    (root / "p01_0.dcm").rename(root / "zzz.dcm")
    prepare(root, split=False)
    again = {row["source"]: row["name"] for row in read_manifest(root)}
    assert again.pop("zzz.dcm") == dict(names)["p01_0.dcm"]
    assert set(again.items()) < set(names)


def test_the_same_pixels_under_two_ids_in_two_sets(tmp_path, capsys):
    root = write_data_set(tmp_path / "set", rows=64, cols=80)
    movie = texture(34, 64, 80, seed=10)  # that of p02
    write_dicom(root / "p04_0.dcm", movie, "p04", jpeg=False, rgb=True)  # exported again
    (root / "split_allocation_0.csv").write_text(SPLIT)
    prepare(root, split=False)
    with pytest.raises(InputError, match=r"same pixels in two sets: p02a \(train\), p04a \(test\)"):
        split_root(root, 0)
    (root / "split_allocation_0.csv").write_text(SPLIT.replace("p04,test", "p04,train"))
    assert split_root(root, 0) == 0
    assert "same pixels under two ids: p02a (train), p04a (train)" in capsys.readouterr().err


def test_a_second_split_is_drawn_beside_the_first(root):
    before = (root / "split_allocation_0.csv").read_bytes()
    ids = [f"r{k:02d}" for k in range(8)]
    ids = ["p01", "p02", "p03", "p04", *ids]
    write_data_set(root, ids=ids, rows=64, cols=80)  # more patients beside the four
    names = ("normal", "severe")
    rows = [f"{name},{names[k % 2]}" for k, name in enumerate(ids)]
    (root / "REDcap_class.csv").write_text("id,class\n" + "\n".join(rows) + "\n")
    settings = vars(with_defaults(STORY)) | SMALL | {"splitnum": 1, "seed": 0, "debug": False}
    settings |= {"stats": "train", "flow_size": None, "val_fraction": 0.2, "test_fraction": 0.3}
    prepare_cohort(root, settings)
    assert (root / "split_allocation_0.csv").read_bytes() == before
    assert (root / "greyscale" / "split1_test").is_dir()
    assert len(read_split(root / "split_allocation_1.csv")) == 12


def test_a_test_movie_that_does_not_fit_stops_the_training_at_once(root):
    import train_twostream

    path = root / "OF" / "split0_test" / "p04a.npy"
    made = root / "processed_OF" / "p04a.npy"
    movie = np.load(made)[:-1]
    path.unlink()
    np.save(made, movie)
    path.hardlink_to(made)
    flags = ("--root", root, "--grey_weights", "none", "--OF_weights", "none", "--splitnum", 0)
    flags += ("--model_prefix", "t", "--nframes", 32, "--nrows", 32, "--ncols", 32, "--depth", 18)
    flags += ("--width", 2, "--ckptdir", root / "ckpt", "--device", "cpu")
    assert train_twostream.PUBLISHED
    done = call_script("train_twostream.py", *flags)
    done.stderr = "\n".join(x for x in done.stderr.splitlines() if x.startswith("error"))
    assert_one_line(done, "p04a.npy", "33 fields for 34 frames")


def test_labels_name_paths(tmp_path):
    for folder in ("archery", "bowling"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "0000.npy", np.zeros(1))
    np.save(tmp_path / "bowling" / "0001.npy", np.zeros(1))
    by_name = find_movies(tmp_path)
    table = tmp_path / "labels.csv"
    labels = [("archery/0000.avi", "a", 1), ("bowling/0000.avi", "b", 2), ("0001", "b", 3)]
    assert match_labels(table, labels, by_name) == [
        ("archery/0000", "a"),
        ("bowling/0000", "b"),
        ("bowling/0001", "b"),
    ]
    with pytest.raises(InputError, match=r"0000 is any of .*archery.*bowling.*write the path"):
        match_labels(table, [("0000", "a", 1)], by_name)
    with pytest.raises(InputError, match="0002 is not below the root"):
        match_labels(table, [("0002", "a", 1)], by_name)
