"""The check of a training by a teacher's calcium: its scenes, its verdicts, and the whole of it."""

import shutil

import pytest
import torch

from common.files import InputError, write_json
from common.tables import write_rows
from demo.scenes import FIRST_CODE, random_scenes
from demo.students import check_same_check, check_student, scores_of, student_settings
from demo.synthetic import RECIPE, synthetic_stimuli, teacher_hash
from inputs.display import Display
from network.checkpoints import resolve_checkpoint
from runs.data import expand_barcodes

DISPLAY = Display(30.0, 1.0, 0.498, (51, 51))


def test_scenes_are_a_function_of_their_number_and_seed():
    scenes = random_scenes(6, DISPLAY, seed=3)
    again = random_scenes(8, DISPLAY, seed=3)
    for one, other in zip(scenes, again, strict=False):
        assert one.barcode == other.barcode
        assert torch.equal(one.contrast, other.contrast)
    assert not torch.equal(scenes[0].contrast, random_scenes(1, DISPLAY, seed=4)[0].contrast)
    for scene in scenes:
        assert scene.contrast.shape == (72, 51, 51)
        assert scene.contrast.min() >= DISPLAY.dark - 1e-6
        assert scene.contrast.max() <= DISPLAY.bright + 1e-6
        assert (scene.contrast < -0.1).any()  # something dark is shown


def test_every_family_is_held_out_and_no_scene(tmp_path):
    stimuli = synthetic_stimuli("scenes", rate_hz=30, size=(51, 51))
    known = {stimulus.barcode for stimulus in stimuli}
    held = expand_barcodes(student_settings(tmp_path, 0, 1)["val_stimuli"], known)
    assert {s.family for s in stimuli if s.barcode not in held} == {"scene"}
    assert {s.family for s in stimuli if s.barcode in held} == {
        "rectangle", "expanding", "expanding bright", "contracting", "grating", "flicker", "blank"
    }  # fmt: skip
    assert len(known) == len(stimuli)
    assert min(known - held) == FIRST_CODE


@pytest.mark.parametrize(
    ("student", "control", "error", "verdicts"),
    [
        (0.95, 0.1, 0.3, [True, True, True, True]),
        (0.85, 0.9, 0.6, [False, False, False, False]),
        ("nan", 0.0, 0.5, [False, True, True, True]),
    ],
)
def test_verdicts(tmp_path, student, control, error, verdicts):
    """``control`` is the share of the planted differences that its predicted peaks have."""
    planted = {"300": 0.2, "301": 0.8, "302": 0.5}
    truth = {"types": {"lc11": {"neurons": {"7": {"peak": planted}}}}}
    (tmp_path / "set").mkdir()
    write_json(tmp_path / "set" / "truth.json", truth)
    for name, share in (("student", 1.0), ("control", control)):
        (tmp_path / name).mkdir()
        items = [{"part": "held_out", "cell_type": "lc11", "uid": 7, "barcode": code,
                  "peak_predicted": 0.5 + share * (peak - 0.5)}
                 for code, peak in planted.items()]  # fmt: skip
        write_rows(tmp_path / name / "items.csv", items)
    rows = [{"model": m, "cell_type": "lc11", "normalised_correlation": v, "normalised_r2": 0.7}
            for m, v in (("network", student), ("LN", 0.4))]  # fmt: skip
    write_rows(tmp_path / "student" / "baseline.csv", rows)
    row = {"cell_type": "lc11", "normalised_correlation": 0.5, "normalised_r2": control}
    write_rows(tmp_path / "control" / "scores.csv", [row])
    scores = scores_of(tmp_path, [{"error_deg": error, "gain_ratio": 1.1}])
    assert [entry["passed"] for entry in scores if entry["target"]] == verdicts
    assert scores[-1]["value"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("path", "record", "key"),
    [
        ("set/truth.json", {"seed": 1, "recipe": RECIPE, "teacher": "run"}, "seed 1, asked is 0"),
        ("set/truth.json", {"seed": 0, "recipe": 2, "teacher": "run"}, "recipe 2, asked is"),
        ("new/truth.json", {"seed": 200, "recipe": RECIPE, "teacher": "b"}, "teacher b, asked is"),
        ("student/settings.json", {"settings": {"seed": 100, "n_epochs": 4}}, "n_epochs 4, asked"),
        ("control/settings.json", {"settings": {"seed": 101, "n_epochs": 8}}, "seed 101, asked"),
    ],
)
def test_what_was_made_with_other_settings_is_not_used_again(tmp_path, path, record, key):
    """Before, ``--epochs 8`` after ``--epochs 4`` showed the numbers of four epochs."""
    (tmp_path / path).parent.mkdir()
    write_json(tmp_path / path, record)
    with pytest.raises(InputError, match=key):
        check_student(tmp_path, 0, teacher=tmp_path / "run", epochs=8)
    assert [p.name for p in tmp_path.iterdir()] == [path.split("/")[0]]


def test_no_epoch_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match="--epochs 0: expected at least 1"):
        check_student(tmp_path / "out", 0, teacher=tmp_path / "run", epochs=0)
    assert not list(tmp_path.iterdir())


def test_a_missing_teacher_is_refused_before_scenes_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("demo.synthetic.synthetic_stimuli", None)
    with pytest.raises(InputError, match="nothing"):
        check_student(tmp_path, 0, teacher=tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


def test_what_was_made_with_the_same_settings_is_used_again(tmp_path):
    for name, seed in (("set", 0), ("new", 200)):
        (tmp_path / name).mkdir()
        record = {"seed": seed, "recipe": RECIPE, "teacher": "run"}
        write_json(tmp_path / name / "truth.json", record)
    (tmp_path / "student").mkdir()
    record = {"settings": {"seed": 100, "n_epochs": 8}}
    write_json(tmp_path / "student" / "settings.json", record)
    check_same_check(tmp_path, 0, teacher=tmp_path / "run", epochs=8)


def test_two_teachers_of_one_name_are_two(tmp_path, tiny_run):
    """Before, the name of the folder alone was compared: a retrained teacher kept the old set."""
    teachers = [tmp_path / place / "run" for place in ("a", "b")]
    for teacher in teachers:
        shutil.copytree(tiny_run, teacher)
    (tmp_path / "out" / "set").mkdir(parents=True)
    record = {"seed": 0, "recipe": RECIPE, "teacher": "other name of it"}
    record["teacher_sha256"] = teacher_hash(teachers[0])
    write_json(tmp_path / "out" / "set" / "truth.json", record)
    check_same_check(tmp_path / "out", 0, teacher=teachers[1], epochs=8)  # the same weights
    state = torch.load(resolve_checkpoint(teachers[1]), weights_only=True)
    torch.save({**state, "more": torch.ones(1)}, resolve_checkpoint(teachers[1]))
    with pytest.raises(InputError, match="made with teacher_sha256"):
        check_same_check(tmp_path / "out", 0, teacher=teachers[1], epochs=8)
    with pytest.raises(InputError, match="nothing"):
        check_same_check(tmp_path / "out", 0, teacher=tmp_path / "nothing", epochs=8)


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_knows(tmp_path):
    """Three quarters of an hour of CPU time, most of it trainings. 0.96, 0.90, 0.97 with seed 0."""
    scores = {entry["name"]: entry for entry in check_student(tmp_path, 0)}
    word = "normalised correlation, held-out families"
    for kind in ("lc11", "lc12", "lplc2"):
        student, linear = (scores[f"{who}{word}, {kind}"]["value"] for who in ("", "LN models: "))
        assert student > 0.85
        assert student > linear
    assert scores["new neurons: largest error of position"]["value"] < 0.7
    dealt = [entry for name, entry in scores.items()
             if name.startswith("dealt labels") and entry["target"]]  # fmt: skip
    assert [entry["passed"] for entry in dealt] == [True] * 6
