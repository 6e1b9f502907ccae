"""The INI reader: strict, complete, and the same for old and new layouts."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import FOLDER, InputError
from inputs.calibration import Calibration, scaled_post
from settings.config import KEYS, to_dict, to_ini
from settings.config_kinds import BOOL, TEXT
from settings.read_config import load_config, make_params

DATASET = {("dataset", "relative_path"): "movies"}


def params_of(**texts):
    """Return Params of keyword arguments section__key=text."""
    return make_params({tuple(k.split("__")): v for k, v in texts.items()} | DATASET)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("config_files/*.ini")), ids=lambda p: p.stem)
def test_every_shipped_file_is_read(path):
    params = load_config(path)
    assert params.run_name in (path.stem, path.stem.removesuffix(".ini"))


def test_published_setting():
    params = load_config(FOLDER / "config_files" / "final_model.ini")
    assert (params.criterion, params.lr_start, params.train_epochs) == (
        *("lovasz_softmax", 1e-4),
        100000,
    )
    assert (params.data_duration, params.data_stride, params.batch_size) == (256, 32, 4)
    assert (params.unet_steps, params.first_layer_channels) == (6, 8)
    assert params.chunk == (256, 32)
    assert len(params.ids("train")) == 34
    assert params.ids("val") == params.ids("test")


@pytest.mark.parametrize("text", ["no", "No", "false", "off", "0", ""])
def test_no_means_no(text):
    params = params_of(training__cuda=text, network__initialize_weights=text)
    assert not params.cuda
    assert not params.initialize_weights


def test_bad_boolean_names_key_and_file(tmp_path):
    path = tmp_path / "a.ini"
    path.write_text("[dataset]\nrelative_path = x\n[network]\ninitialize_weights = maybe\n")
    with pytest.raises(
        InputError, match=r"a\.ini, \[network\] initialize_weights = maybe, allowed"
    ):
        load_config(path)


def test_byte_order_mark_percent_and_comments(tmp_path):
    path = tmp_path / "a.ini"
    path.write_text(
        "\ufeff; first\n[dataset]\n# second\nrelative_path = 50%/of 100%\n", encoding="utf-8"
    )
    assert load_config(path).relative_path == "50%/of 100%"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nrun_name = a\n", r"missing section \[dataset\]"),
        ("[dataset]\nbatch_size = 2\n", "missing key relative_path"),
        ("[dataset]\nrelative_path = x\nbatchsize = 2\n", "did you mean batch_size"),
        ("[dataset]\nrelative_path = x\nlr_start = 2\n", r"it belongs in \[training\]"),
        ("[dateset]\nrelative_path = x\n", r"unknown section \[dateset\]: did you mean dataset"),
        ("[dataset]\nrelative_path = x\nbatch_size = 0\n", "batch_size = 0, allowed: an integer"),
        ("[dataset]\nrelative_path = x\nrelative_path = y\n", "already exists"),
        ("relative_path = x\n", "not an INI file"),
        ("[dataset]\nrelative_path = x\n[training]\ncriterion = mse\n", "allowed: nll_loss, focal"),
        ("[dataset]\nrelative_path = x\n[network]\nnn_architecture = unet_lstm\n", "not supported"),
        ("[dataset]\nrelative_path = x\ndata_duration = 100\n", "use 64 or 128"),
        ("[dataset]\nrelative_path = x\ndata_stride = 33\n", "even number with overlap"),
        ("[dataset]\nrelative_path = x\n[training]\nignore_frames_loss = 128\n", "less than half"),
        ("[dataset]\nrelative_path = x\n[training]\nlr_start = nan\n", "allowed: a number > 0"),
    ],
)
def test_faults_in_one_line(tmp_path, text, message):
    path = tmp_path / "bad.ini"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_a_fault(tmp_path):
    with pytest.raises(InputError, match=r"no such configuration file.*final_model\.ini"):
        load_config(tmp_path / "none.ini")


def test_faults_are_reported_together():
    with pytest.raises(InputError) as caught:
        params_of(training__w="2", training__seed="-1", network__unet_steps="9")
    assert len(re.findall("allowed:", str(caught.value))) == 3


def test_ignore_frames_zero_works():
    assert params_of(training__ignore_frames_loss="0").postprocessing.ignore_frames == 0


def test_old_and_new_layout_mean_the_same():
    old = make_params(
        DATASET
        | {
            ("dataset", "data_step"): "64",
            ("dataset", "sparks_type"): "smaller",
            ("dataset", "inference"): "max",
            ("network", "dilation"): "yes",
            ("testing", "data_step"): "128",
            ("testing", "t_sparks"): "0.7",
            ("testing", "puffs_min_radius"): "4",
            ("unused", "fixed_threshold"): "0.9",
            ("unused", "t_detection_sparks"): "0.9",
        }
    )
    new = make_params(
        DATASET
        | {
            ("dataset", "data_stride"): "64",
            ("dataset", "sparks_type"): "small",
            ("inference", "inference"): "max",
            ("network", "dilation"): "1",
            ("inference", "inference_data_stride"): "128",
            ("postprocessing", "t_sparks"): "0.7",
            ("postprocessing", "puffs_min_radius"): "4",
            ("postprocessing", "fixed_threshold"): "0.9",
        }
    )
    assert old == new
    assert old.chunk == (256, 128)


def test_gamma_serves_the_schedule_when_alone(caplog):
    texts = {"training__scheduler": "step", "training__step_size": "10", "training__gamma": "0.5"}
    assert params_of(**texts).scheduler_gamma == 0.5
    params_of(**texts, training__criterion="focal_loss")
    assert "gamma is used by loss and scheduler" in caplog.text


def test_override_replaces_the_old_spelling(tmp_path):
    path = tmp_path / "a.ini"
    path.write_text("[dataset]\nrelative_path = x\ndata_step = 64\n")
    assert load_config(path, ["dataset.data_stride=16"]).data_stride == 16
    with pytest.raises(InputError, match=r"expected section\.key=value"):
        load_config(path, ["data_stride=16"])


def test_sizes_in_pixels_follow_the_pixel_size():
    post = scaled_post(Calibration.of(0.2, 6.8))
    assert (post.spark_distance_px, post.spark_distance_frames, post.wave_width_px) == (9, 3, 75)
    post = scaled_post(Calibration.of(0.267, 6.8))
    assert (post.spark_distance_px, post.wave_width_px) == (7, 56)


PLAIN_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=30
).map(str.strip)
IDS = st.lists(st.from_regex(r"[0-9]{2}", fullmatch=True), max_size=5).map(tuple)


@given(
    notes=PLAIN_TEXT,
    path=PLAIN_TEXT.filter(bool),
    rate=st.floats(1e-12, 1e6),
    ids=IDS,
    wanted=st.booleans(),
    iomin=st.floats(0.001, 1.0),
)
@settings(deadline=None)
def test_settings_survive_the_resolved_copy(
    tmp_path_factory, notes, path, rate, ids, wanted, iomin
):
    texts = DATASET | {
        ("general", "wandb_notes"): notes,
        ("dataset", "relative_path"): path,
        ("training", "lr_start"): repr(rate),
        ("dataset", "test_ids"): " ".join(ids),
        ("general", "training"): "yes" if wanted else "no",
        ("postprocessing", "iomin"): repr(iomin),
    }
    params = make_params(texts)
    file = tmp_path_factory.mktemp("ini") / "config.ini"
    file.write_text(to_ini(params), encoding="utf-8")
    assert to_dict(load_config(file)) == to_dict(params)
    assert (params.lr_start, params.test_ids, params.training) == (rate, ids, wanted)


@given(place=st.sampled_from(sorted(KEYS)), text=PLAIN_TEXT)
def test_any_text_is_read_or_refused(place, text):
    kind = KEYS[place].metadata["kind"]
    refused = None
    try:
        params = make_params(DATASET | {place: text})
    except InputError as error:
        refused = str(error)
    if refused is not None:
        assert place[1] in refused
        return
    owner = params if hasattr(params, KEYS[place].name) else params.postprocessing
    value = getattr(owner, KEYS[place].name)
    if kind is BOOL:
        assert isinstance(value, bool)
    elif kind is TEXT:
        assert value == text
