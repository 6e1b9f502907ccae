"""The check of a training by a teacher's calcium: its scenes, its verdicts, and the whole of it."""

import pytest
import torch

from common.tables import write_rows
from demo.scenes import FIRST_CODE, random_scenes
from demo.students import check_student, scores_of, student_settings
from demo.synthetic import synthetic_stimuli
from inputs.display import Display
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
        (0.95, 0.1, 0.3, (True, True, True)),
        (0.95, "nan", 0.3, (True, True, True)),
        (0.85, 0.35, 0.6, (False, False, False)),
        ("nan", -0.2, 0.5, (False, True, True)),
    ],
)
def test_verdicts(tmp_path, student, control, error, verdicts):
    for name in ("student", "control"):
        (tmp_path / name).mkdir()
    rows = [{"model": m, "cell_type": "lc11", "normalised_correlation": v}
            for m, v in (("network", student), ("LN", 0.4))]  # fmt: skip
    write_rows(tmp_path / "student" / "baseline.csv", rows)
    write_rows(
        tmp_path / "control" / "scores.csv",
        [{"cell_type": "lc11", "normalised_correlation": control}],
    )
    scores = scores_of(tmp_path, [{"error_deg": error, "gain_ratio": 1.1}])
    judged = [entry["passed"] for entry in scores if entry["target"]]
    assert tuple(judged) == verdicts
    assert scores[-1]["value"] == pytest.approx(0.1)


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_knows(tmp_path):
    """About seven minutes on one thread: the teacher is trained as well."""
    scores = check_student(tmp_path, 0)
    assert [entry["name"] for entry in scores if entry["passed"] is False] == []
