"""The recipe of a data set: its hash, its words, and who compares it."""

import json
import re

import pytest

import tiny_split
from common.files import InputError
from inputs.recipe import Recipe, fit_to_model, note_split, recipe_of_split
from inputs.splits import split_root
from little import compute_flow, preprocess, write_data_set

OPTIONS = {"crop": "none", "grey": "luma", "resample_fps": 0.0, "nrows": 32, "ncols": 32}
FLOW = {**OPTIONS, "flow_size": None, "per_second": False, "farneback": {"levels": 3}}


def stats(options, **changes):
    return {"mean": 0.5, "std": 0.25, "n_movies": 3, "files": "all", "options": options} | changes


def recipe(grey=None, flow=None):
    return Recipe.of_stats(stats(OPTIONS) | (grey or {}), stats(FLOW) | (flow or {}), "test")


def test_the_hash_follows_what_changes_a_number():
    base = recipe()
    assert re.fullmatch("[0-9a-f]{12}", base.hash)
    # Which movies are behind the two numbers is told by newer files only.
    assert base.hash == recipe({"movies_sha256": "ab", "files": "train split 0"}).hash
    others = [
        recipe({"mean": 0.6}),
        recipe(flow={"std": 0.2}),
        recipe({"options": {**OPTIONS, "crop": "sector"}}, {"options": {**FLOW, "crop": "sector"}}),
        recipe(flow={"options": {**FLOW, "per_second": True}}),
        recipe(flow={"options": {**FLOW, "flow_size": [40, 60]}}),
        recipe(flow={"options": {**FLOW, "farneback": {"levels": 4}}}),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == 7
    with pytest.raises(AttributeError):
        base.crop = "sector"


def test_the_line_names_units_and_origin():
    line = recipe(flow={"options": {**FLOW, "flow_size": [40, 60], "per_second": True}}).line()
    for words in ("(test)", "crop none", "as recorded", "32 x 32 pixels", "40 x 60"):
        assert words in line
    assert "full-size pixels per second" in line
    assert "per frame" in recipe().line()
    resampled = {"resample_fps": 20.0}
    line = recipe({"options": OPTIONS | resampled}, {"options": FLOW | resampled}).line()
    assert "20 frames/s" in line


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small data set, preprocessed with the training patients' statistics, linked as split 0."""
    root = write_data_set(tmp_path_factory.mktemp("recipe") / "set", rows=64, cols=80)
    (root / "split_allocation_0.csv").write_text("p01,train\np02,train\np03,val\np04,test\n")
    size = {"nrows": 32, "ncols": 32}
    assert preprocess(root, stats="train", **size) == 0
    assert compute_flow(root, stats="train", **size) == 0
    assert split_root(root, 0) == 0
    return root


def test_a_data_set_tells_its_recipe(prepared):
    recipe = Recipe.of_root(prepared)
    assert (recipe.crop, recipe.grey, recipe.nrows, recipe.flow_size) == ("none", "luma", 32, None)
    assert recipe.grey_scale.files == "train split 0"
    assert re.fullmatch("[0-9a-f]{64}", recipe.flow_scale.movies_sha256)
    assert json.loads((prepared / "split0_recipe.json").read_text()) == {"recipe": recipe.making}
    assert recipe_of_split(prepared, 0) == recipe
    with pytest.raises(InputError, match=r"split7_recipe.json: not found; run split_data\.py"):
        recipe_of_split(prepared, 7)


def test_a_split_linked_before_the_movies_were_made_anew_is_refused(tmp_path):
    root = tiny_split.write_split(tmp_path / "root")
    note_split(root, 0)
    path = root / "data_mean_std.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"std": 2.0}))
    with pytest.raises(InputError, match=r"split 0 links movies of recipe .* run split_data\.py"):
        recipe_of_split(root, 0)
    note_split(root, 0)
    assert recipe_of_split(root, 0).grey_scale.std == 2.0


def test_a_model_of_other_options_is_refused(prepared, tmp_path):
    read = {
        key: json.loads((prepared / name).read_text())
        for key, name in (
            ("grey_stats", "data_mean_std.json"),
            ("of_stats", "data_mean_std_OF.json"),
        )
    }
    model, scaling = fit_to_model(prepared, 0, read, tmp_path / "m.weights.h5")
    assert model.hash == Recipe.of_root(prepared).hash
    assert scaling == model.scaling()
    read["of_stats"]["options"] = {**read["of_stats"]["options"], "flow_unit": "px_per_s"}
    with pytest.raises(InputError, match="flow_unit px_per_s -> px_per_frame"):
        fit_to_model(prepared, 0, read, tmp_path / "m.weights.h5")
    del read["of_stats"]
    own = Recipe.of_root(prepared).scaling()
    assert fit_to_model(prepared, 0, read, tmp_path / "m.weights.h5") == (None, own)
