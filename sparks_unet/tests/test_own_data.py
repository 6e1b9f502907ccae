"""A folder of one's own: movies are split, leaks and changed files refused, ids found."""

import dataclasses
import shutil

import pytest
import tifffile

from analysis.voxel_counts import find_predictions
from common.files import InputError
from common.locks import release_all
from helpers import make_tiny_data, write_ini
from runs.train import own_split, prepare, write_record
from settings.read_config import load_config

SEED_KEYS = "t_detection_sparks = none\nsparks_min_radius = none\npuffs_min_radius = none\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_tiny_data(tmp_path_factory.mktemp("data"))


def renamed(data, folder, names):
    """Copy the recordings 01 and 02 of ``data`` under other ids."""
    folder.mkdir()
    for number, name in enumerate(names):
        for path in data.glob(f"{number % 3 + 1:02d}_*.tif"):
            shutil.copy(path, folder / path.name.replace(path.name[:2], name, 1))
    return folder


def test_a_folder_of_other_ids_splits_itself_by_movie(data, tmp_path, caplog):
    folder = renamed(data, tmp_path / "own", ["cell_a", "cell_b", "cell_c"])
    path = write_ini(tmp_path / "a.ini", folder, tmp_path / "out", train_ids="", test_ids="")
    params = own_split(load_config(path))
    assert params.ids("train") == ("cell_a", "cell_b")
    assert params.ids("test") == ("cell_c",)
    assert "none of the published ids: trained on cell_a cell_b" in caplog.text
    given = dataclasses.replace(params, train_ids=("cell_c",), test_ids=("cell_a",))
    assert own_split(given) is given
    published = load_config(
        write_ini(tmp_path / "b.ini", data, tmp_path, train_ids="", test_ids="")
    )
    assert own_split(published) is published


@pytest.mark.parametrize("ids", [("01 02", "02"), ("01 02", "04")])
def test_a_movie_in_training_and_test_is_refused(data, tmp_path, ids):
    folder = renamed(data, tmp_path / "own", ["01", "02", "03"])
    for kind in ("video", "class_label", "event_label"):
        shutil.copy(folder / f"02_{kind}.tif", folder / f"04_{kind}.tif")
    path = write_ini(
        tmp_path / "a.ini", folder, tmp_path / "out", train_ids=ids[0], test_ids=ids[1]
    )
    with pytest.raises(InputError, match="is also trained on"):
        prepare(load_config(path))
    release_all()


def test_a_run_does_not_go_on_with_other_movies(data, tmp_path):
    folder = renamed(data, tmp_path / "own", ["01", "02", "03"])
    params = load_config(write_ini(tmp_path / "a.ini", folder, tmp_path / "out"))
    _, train, val = prepare(params)
    write_record(params, [*train, *val])
    resumed = dataclasses.replace(params, load_epoch=3)
    prepare(resumed)
    movie = tifffile.imread(folder / "01_video.tif")
    tifffile.imwrite(folder / "01_video.tif", movie + 1, metadata={"axes": "TYX"})
    with pytest.raises(InputError, match=r"changed: 01_video\.tif"):
        prepare(resumed)
    release_all()


def test_predictions_belong_to_the_id_before_the_assembly(tmp_path):
    for kind in ("sparks", "waves", "puffs"):
        (tmp_path / f"exp_04_100_05_overlap_raw_{kind}.tif").touch()
        (tmp_path / f"exp_04_100_a_05_overlap_raw_{kind}.tif").touch()
    files = find_predictions(tmp_path, "05", ("05", "a_05"))
    assert files["sparks"].name == "exp_04_100_05_overlap_raw_sparks.tif"
    assert find_predictions(tmp_path, "a_05")["waves"].name.startswith("exp_04_100_a_05")
    with pytest.raises(InputError, match="0 files"):
        find_predictions(tmp_path, "04", ("04", "05"))


def test_none_of_the_seed_means_the_default(data, tmp_path):
    path = write_ini(tmp_path / "a.ini", data, tmp_path)
    path.write_text(path.read_text() + f"[testing]\n{SEED_KEYS}")
    post = load_config(path).postprocessing
    assert (post.t_sparks, post.sparks_min_radius, post.puffs_min_radius) == (0.65, 0, 5)
