"""Flow made anew in another unit: nothing is lost where it fails, nothing is mixed on the way."""

import json

import pydicom
import pytest

from common.files import InputError
from inputs.manifest import read_manifest
from inputs.recipe import Recipe
from inputs.scaling import OPTIONS_BEFORE, check_options
from inputs.splits import split_root
from little import assert_one_line, call_script, compute_flow, preprocess, write_data_set

SMALL = {"nrows": 32, "ncols": 32}
SPLIT = "p01,train\np02,train\np03,val\np04,test\n"


@pytest.fixture
def root(tmp_path):
    """Return a data set with flow in pixels per frame, its pixel sizes taken away."""
    root = write_data_set(tmp_path / "set", rows=64, cols=80)
    (root / "split_allocation_0.csv").write_text(SPLIT)
    for path in root.glob("*.dcm"):
        take_pixel_size(path)
    assert preprocess(root, **SMALL, with_flow="px_per_frame") == 0
    assert compute_flow(root, **SMALL) == 0
    return root


def take_pixel_size(path):
    data = pydicom.dcmread(path)
    del data.SequenceOfUltrasoundRegions
    data.save_as(path)


def flows(root):
    return {p.name: p.read_bytes() for p in (root / "processed_OF").iterdir()}


def with_flow(root, unit, *more):
    """Run preprocess.py --with_flow."""
    size = ("--nrows", "32", "--ncols", "32")
    return call_script("preprocess.py", "--root", root, *size, "--with_flow", unit, *more)


@pytest.mark.parametrize("script", ["preprocess", "flow"])
def test_a_unit_that_no_movie_can_have_loses_nothing(root, script):
    kept, recipe = flows(root), Recipe.of_root(root).hash
    if script == "preprocess":
        done = with_flow(root, "cm_per_s", "-r")
        lines = [line for line in done.stderr.splitlines() if "UserWarning" not in line]
        assert done.returncode == 2
        assert sum(line.startswith("error: ") for line in lines) == 1
    else:
        size = ("--nrows", "32", "--ncols", "32", "--flow_unit", "cm_per_s")
        done = call_script("optical_flow_calculator.py", "--root", root, *size, "--recalculate")
        assert_one_line(done, "no pixel size in cm")
    assert "no flow computed" in done.stderr
    assert "earlier flows are kept" in done.stderr
    assert flows(root) == kept
    assert {row["status"] for row in read_manifest(root)} == {"processed"}
    assert Recipe.of_root(root).hash == recipe
    assert split_root(root, 0) == 0
    assert compute_flow(root, **SMALL) == 0  # and the old way goes on, nothing to make
    assert flows(root) == kept


def test_one_movie_without_a_pixel_size_keeps_its_grey_movie_and_old_flow(tmp_path, capsys):
    root = write_data_set(tmp_path / "set", rows=64, cols=80)
    (root / "split_allocation_0.csv").write_text(SPLIT)
    take_pixel_size(root / "p02_0.dcm")
    assert with_flow(root, "px_per_frame").returncode == 0
    kept = flows(root)
    done = with_flow(root, "cm_per_s", "-r")
    assert done.returncode == 1
    assert "failed: p02a" in done.stderr
    assert "no pixel size in cm" in done.stderr
    now = flows(root)
    assert now["p02a.npy"] == kept["p02a.npy"]
    assert now["p01a.npy"] != kept["p01a.npy"]
    assert OPTIONS_BEFORE not in now
    assert json.loads(now["options.json"])["flow_unit"] == "cm_per_s"
    capsys.readouterr()
    assert split_root(root, 0) == 0
    assert "1 movies without flow left out: p02a" in capsys.readouterr().err
    assert not list((root / "OF").rglob("p02a.npy"))
    assert with_flow(root, "px_per_frame", "-r").returncode == 0
    assert flows(root) == kept


def test_an_interrupted_change_of_unit_is_refused_and_goes_on(root):
    options = json.loads((root / "processed_OF" / "options.json").read_text())
    wanted = options | {"flow_unit": "px_per_s", "per_second": True}
    check_options(root, "processed_OF", wanted, recalculate=True, keep=True)  # killed here
    with pytest.raises(InputError, match="made anew with other options, which was interrupted"):
        split_root(root, 0)
    assert compute_flow(root, **SMALL, flow_unit="px_per_s") == 0
    assert {row["flow"] for row in read_manifest(root)} == {"done"}
    assert split_root(root, 0) == 0


def test_a_split_needs_the_statistics_of_the_flow(root):
    (root / "data_mean_std_OF.json").unlink()
    with pytest.raises(InputError, match=r"data_mean_std_OF.json: not found.*run optical_flow"):
        split_root(root, 0)
    assert compute_flow(root, **SMALL) == 0
    assert split_root(root, 0) == 0


def test_grey_made_anew_knows_its_flow_again(root, capsys):
    assert preprocess(root, **SMALL, recalculate=True) == 0
    assert compute_flow(root, **SMALL) == 0
    assert "nothing changed" in capsys.readouterr().out
    assert split_root(root, 0) == 0
