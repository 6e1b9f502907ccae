"""run.py gpu: what it runs, what it passes over, and what it leaves when a folder fails."""

import json
import sys

import pytest

import gpu_day

CHECK = """
import json, sys
out, device = (sys.argv[sys.argv.index(flag) + 1] for flag in ("--out", "--device"))
with open(out, "a") as file:
    for case, passed in (("forward", True), ("gradient", {passed}), ("speed", None)):
        row = {{"case": case, "passed": passed, "device": device, "s": 0.5}}
        file.write(json.dumps(row) + "\\n")
    file.write('{{"case": "cut')
raise SystemExit({code})
"""


@pytest.fixture
def street(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_day, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_day, "interpreter", lambda folder: tmp_path / "no environment")
    monkeypatch.setitem(gpu_day.FRAMEWORKS, "whole", "json")  # a module that this Python holds
    monkeypatch.setitem(gpu_day.FRAMEWORKS, "broken", "json")
    monkeypatch.setitem(gpu_day.FRAMEWORKS, "elsewhere", "no_such_framework")
    for folder, passed, code in (("whole", True, 0), ("broken", False, 1)):
        (tmp_path / folder).mkdir()
        text = CHECK.format(passed=passed, code=code)
        (tmp_path / folder / "gpu_check.py").write_text(text)
    return tmp_path


def test_folders_without_a_framework_are_named_and_passed_over(street, capsys):
    assert gpu_day.run(["whole", "elsewhere"], "cuda", tiny=True) == 0
    out = capsys.readouterr().out
    assert "elsewhere" in out
    assert "passed over" in out
    assert "this Python holds no no_such_framework" in out
    results = json.loads((street / "results/gpu/gpu.json").read_text())
    assert [r["state"] for r in results] == ["holds", "passed over"]
    assert [row["case"] for row in results[0]["rows"]] == ["forward", "gradient", "speed"]
    assert gpu_day.run(["elsewhere"], "cuda", tiny=True) == 1  # nothing was checked


def test_a_failing_case_is_named_and_the_next_folder_runs(street, capsys):
    assert gpu_day.run(["broken", "whole"], "cpu", tiny=False) == 1
    assert "broken         fails        gradient" in capsys.readouterr().out
    results = json.loads((street / "results/gpu/gpu.json").read_text())
    assert [r["state"] for r in results] == ["fails", "holds"]
    page = (street / "results/gpu/index.html").read_text()
    assert page.count("<article>") == 2
    assert "class='bad'>fails" in page


def test_each_framework_hears_its_own_word_for_the_device():
    words = {folder: gpu_day.device_word(folder, "cuda") for folder in gpu_day.FRAMEWORKS}
    assert words["csd_darnn"] == words["stcnn"] == "cuda"
    assert words["sleep_bilstm"] == words["rvf_twostream"] == "gpu"
    assert gpu_day.device_word("sleep_bilstm", "cpu") == "cpu"
    assert gpu_day.choose_interpreter("csd_darnn")[0] in (
        None,
        sys.executable,
        str(gpu_day.interpreter("csd_darnn")),
    )
