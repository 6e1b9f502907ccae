"""split_data.py: hard links, reports, split files by patient, bad inputs."""

import csv
import json

import numpy as np
import pytest

import split_data
from common.files import InputError
from inputs.splits import make_splits, split_root
from inputs.utils import movie_id, read_classes, read_split, save_array
from little import assert_one_line, call_script, run_script


@pytest.fixture
def root(tmp_path):
    """Return a data set with normalised movies of eight patients, two movies each."""
    root = tmp_path / "set"
    classes = {}
    for k in range(8):
        for letter in "ab":
            stem = f"p{k}{letter}"
            save_array(root / "normalized_dicoms" / f"{stem}.npy", np.zeros((32, 8, 8, 1), "f4"))
            save_array(root / "normalized_OF" / f"{stem}.npy", np.zeros((32, 8, 8, 2), "f4"))
            classes[stem] = 3 if k % 2 else 0
    text = ", ".join(f'"{stem}": {value}' for stem, value in classes.items())
    (root / "classmap.json").write_text("{" + text + "}")
    rows = [f"p{k},{'severe' if k % 2 else 'normal'}" for k in range(8)]
    (root / "REDcap_class.csv").write_text("\n".join(rows))
    sets = ["train", "train", "train", "train", "val", "val", "test", "test"]
    (root / "split_allocation_0.csv").write_text(
        "id,set\n" + "\n".join(f"p{k},{name}" for k, name in enumerate(sets))
    )
    return root


def test_links_cost_nothing_and_a_second_run_changes_nothing(root):
    done = run_script("split_data.py", "--root", root, "--splitnum", 0, "-m")
    assert done.returncode == 0, done.stderr
    assert "32 files made" in done.stdout
    assert done.stdout.split("val")[1].split()[:3] == ["2", "4", "2"]
    for stream, source in (("greyscale", "normalized_dicoms"), ("OF", "normalized_OF")):
        assert len(list((root / stream / "split0_train").iterdir())) == 8
        link = root / stream / "split0_test" / "p7b.npy"
        assert link.samefile(root / source / "p7b.npy")
    assert "nothing changed" in call_script("split_data.py", "-r", root, "-s", 0).stdout


def test_copies_when_asked(root):
    split_root(root, 0, copy=True)
    copy = root / "OF" / "split0_val" / "p4a.npy"
    assert not copy.samefile(root / "normalized_OF" / "p4a.npy")
    assert copy.read_bytes() == (root / "normalized_OF" / "p4a.npy").read_bytes()


def test_other_content_is_an_error_unless_recalculated(root):
    split_root(root, 0)
    text = (root / "split_allocation_0.csv").read_text().replace("p0,train", "p0,test")
    (root / "split_allocation_0.csv").write_text(text)
    with pytest.raises(InputError, match=r"split0_train: holds 2 other files"):
        split_root(root, 0)
    split_root(root, 0, recalculate=True)
    assert not (root / "OF" / "split0_train" / "p0a.npy").exists()
    assert (root / "OF" / "split0_test" / "p0a.npy").exists()


def test_patients_without_allocation_or_movie_and_one_class_are_reported(root):
    text = (root / "split_allocation_0.csv").read_text().replace("p5,val", "ghost,val")
    (root / "split_allocation_0.csv").write_text(text)
    done = call_script("split_data.py", "--root", root, "--splitnum", 0)
    assert done.returncode == 0
    assert "without allocation: p5" in done.stderr
    assert "without movie: ghost" in done.stderr
    assert "the val set does not hold both classes" in done.stderr


def test_missing_flow_and_unequal_lengths_are_reported_together(root):
    (root / "normalized_OF" / "p1a.npy").unlink()
    save_array(root / "normalized_OF" / "p2a.npy", np.zeros((31, 8, 8, 2), "f4"))
    done = call_script("split_data.py", "--root", root, "--splitnum", 0)
    assert_one_line(done, "p1a has no flow", "p2a has 32 frames but 31")
    assert not (root / "greyscale").exists()


@pytest.mark.parametrize(
    ("number", "text", "words"),
    [
        (7, None, ("split_allocation_7.csv", "not found")),
        (1, "p0,train\np1,dev\n", ("row 2", "dev", "train, val, test")),
        (1, "p0,train\np0,test\n", ("p0", "both train and test")),
        (1, "", ("no rows",)),
    ],
)
def test_bad_split_files(root, number, text, words):
    if text is not None:
        (root / f"split_allocation_{number}.csv").write_text(text)
    assert_one_line(call_script("split_data.py", "--root", root, "-s", number), *words)


def test_splitnum_is_needed(root):
    assert_one_line(call_script("split_data.py", "--root", root), "--splitnum")


def test_folds_are_by_patient_and_every_patient_is_tested_once(root):
    (root / "split_allocation_0.csv").unlink()
    paths = make_splits(root, 4, stratify=True, seed=3)
    tested = []
    for path in paths:
        with open(path, newline="") as handle:
            table = {row["id"]: row["set"] for row in csv.DictReader(handle)}
        assert len(table) == 8
        members = [patient for patient, name in table.items() if name == "test"]
        assert sum(int(patient[1]) % 2 for patient in members) == 1
        tested += members
    assert sorted(tested) == sorted({movie_id(f"p{k}a") for k in range(8)})
    assert make_splits(root, 4, stratify=True, seed=3) == paths
    with pytest.raises(InputError, match="another allocation"):
        make_splits(root, 4, stratify=True, seed=4)


def test_a_smaller_draw_takes_the_files_of_a_larger_one_away_but_no_others(root, capsys):
    (root / "split_allocation_0.csv").unlink()
    flags = ["--root", str(root), "--make_splits"]
    assert split_data.main([*flags, "4"]) == 0
    assert split_data.main(["--root", str(root), "--splitnum", "3"]) == 0
    assert len(list(root.glob("*/split3_*"))) == 6
    (root / "split_allocation_2.csv").write_text("id,set\nmine,test\n")  # changed by its owner
    (root / "split_allocation_9.csv").write_text("id,set\nmine,test\n")  # of another program
    before = {path: path.read_bytes() for path in root.glob("split_allocation_*")}
    with pytest.raises(SystemExit, match="2"):
        split_data.main([*flags, "2"])
    assert {path: path.read_bytes() for path in root.glob("split_allocation_*")} == before
    assert split_data.main([*flags, "2", "--recalculate"]) == 0
    assert "split_allocation_3.csv: of an earlier draw of more splits" in capsys.readouterr().out
    left = {path.name.removeprefix("split_allocation_") for path in root.glob("split_allocation_*")}
    assert left == {"0.csv", "1.csv", "2.csv", "9.csv"}
    assert not list(root.glob("*/split3_*"))
    assert not (root / "split3_recipe.json").exists()


def test_an_earlier_draw_is_told_even_where_the_first_files_agree(root):
    (root / "split_allocation_0.csv").unlink()
    make_splits(root, 3, alone=True)
    record = root / "drawn_splits.json"
    make_splits(root, 2, alone=True, recalculate=True)
    assert sorted(json.loads(record.read_text())) == [f"split_allocation_{k}.csv" for k in (0, 1)]
    record.write_text(json.dumps({"split_allocation_7.csv": "0" * 64}))
    (root / "split_allocation_7.csv").write_text("id,set\n")
    assert make_splits(root, 2, alone=True) == [root / f"split_allocation_{k}.csv" for k in (0, 1)]
    assert (root / "split_allocation_7.csv").exists()  # not as it was drawn: somebody's own


def test_a_copy_asked_for_later_is_made(root):
    split_root(root, 0)
    source, target = root / "normalized_OF" / "p4a.npy", root / "OF" / "split0_val" / "p4a.npy"
    assert target.samefile(source)
    split_root(root, 0, copy=True)
    assert not target.samefile(source)
    assert target.read_bytes() == source.read_bytes()
    made = target.stat().st_ino
    split_root(root, 0, copy=True)
    assert target.stat().st_ino == made  # a copy that is there stays


def test_header_names_the_columns(tmp_path):
    path = tmp_path / "split_allocation_0.csv"
    path.write_text("set,id\ntrain,p0\nval,p1\n")
    assert read_split(path) == {"p0": "train", "p1": "val"}
    path.write_text("id;class;set\np0;severe;train\np1;normal;test\n")
    assert read_split(path) == {"p0": "train", "p1": "test"}
    assert read_classes(path) == {"p0": "severe", "p1": "normal"}
    path.write_text("id,class,set\np0,severe\np1,normal,test\n")
    with pytest.raises(InputError, match="row 2"):
        read_split(path)
    with pytest.raises(InputError, match="columns id, set"):
        read_split(tmp_path / "none.csv")
    with pytest.raises(InputError, match="columns id, class"):
        read_classes(tmp_path / "none.csv")
