"""The whole story, run as a user runs it."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch

from attention_maps import main as attention_main
from common.files import write_settings
from common.report import write_summary
from demo.benchmark_cases import assembly_rows
from demo.demo_run import demo_settings
from helpers import FOLDER, make_tiny_data, script, write_ini
from main import configured, main, make_parser
from network.checkpoints import load_state
from settings.config import settings_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return (INI file, run folder) of a finished tiny run on own data, without the wing demo/."""
    folder = tmp_path_factory.mktemp("story")
    path = write_ini(folder / "a.ini", make_tiny_data(folder / "data"), folder)
    copy = folder / FOLDER.name
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("demo", "tests", "__pycache__"))
    script("main.py", path, "--threads", 1, folder=copy)
    return path, folder / "tiny"


def test_story_writes_its_results(finished):
    _, run_dir = finished
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "complete"
    assert (run_dir / summary["main_picture"]).stat().st_size < 1e6
    for figure in summary["figures"]:
        assert (run_dir / figure["path"]).with_suffix(".csv").is_file()
    for name in ("settings.json", "config.ini", "log.csv", "metrics.json", "events.csv"):
        assert (run_dir / name).stat().st_size > 0
    page = (run_dir / "report.html").read_text()
    assert "unweighted mean over three classes" in page
    assert "<script" not in page


def test_a_demo_without_its_wing_is_told_in_one_line(tmp_path):
    copy = tmp_path / FOLDER.name
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("demo", "tests", "__pycache__"))
    done = script("main.py", "--demo", folder=copy, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --demo: the folder demo/ is not here")
    assert done.stderr.count("\n") == 1


def test_finished_run_is_not_repeated(finished, capsys):
    path, run_dir = finished
    before = (run_dir / "summary.json").read_bytes()
    assert main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run_dir} is complete; --fresh starts anew"
    assert re.fullmatch(r"class means of .*: \d\.\d{3}; \d+ s; .*report\.html", lines[-1])
    assert (run_dir / "summary.json").read_bytes() == before


def test_other_settings_are_refused(finished, capsys):
    path, _ = finished
    with pytest.raises(SystemExit) as caught:
        main([str(path), "--seed", "5"])
    assert caught.value.code == 2
    assert "other settings (training.seed)" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_complete_or_refused_by_name(finished, capsys):
    path, run_dir = finished
    record = run_dir / "settings.json"
    before = record.read_text()
    saved = json.loads(before)
    try:
        del saved["settings"]["postprocessing.split_puffs"]
        del saved["settings"]["postprocessing.wave_rims"]
        for bits in (0, None):  # all bits, said or before the key was there
            saved["settings"] |= {"inference.raw_bits": 0}
            if bits is None:
                del saved["settings"]["inference.raw_bits"]
            record.write_text(json.dumps(saved))
            assert main([str(path)]) == 0
            assert "is complete" in capsys.readouterr().out
        for changed in ("postprocessing.split_puffs=0.9", "postprocessing.wave_rims=0.1"):
            with pytest.raises(SystemExit):
                main([str(path), "--set", changed])
            told = capsys.readouterr().err
            assert f"other settings ({changed.partition('=')[0]});" in told
        record.write_text(before)
        with pytest.raises(SystemExit):  # its probabilities are rounded
            main([str(path), "--set", "inference.raw_bits=24"])
        assert "other settings (inference.raw_bits)" in capsys.readouterr().err
    finally:
        record.write_text(before)


def test_device_and_workers_are_free(finished):
    more = ["--device", "gpu", "--debug", "--set", "dataset.num_workers=1"]
    assert main([str(finished[0]), *more]) == 0


def test_reuse_of_a_demo_that_missed_ends_with_1(tmp_path, capsys):
    options = ["--demo", "--set", f"general.output_relative_path={tmp_path}", "--run", "one"]
    args = make_parser().parse_args(options)
    params = configured(args)
    demo = dataclasses.asdict(demo_settings(params.seed, args.full))
    write_settings(params.output_dir, settings_of(params) | {"demo": demo})
    (params.output_dir / "config.ini").touch()
    scores = [
        {"name": "detected", "value": 0.9, "unit": "", "passed": True},
        {"name": "events in the empty movie", "value": 9, "unit": "", "passed": False},
    ]
    summary = {"scores": scores, "planted_truth": scores[0], "data": "", "seconds": 6.7}
    write_summary(params.output_dir, {**summary, "report": "report.html"})
    assert main(options) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{params.output_dir} is complete; --fresh starts anew",
        "missed: events in the empty movie",
        f"detected: 0.900; 7 s; {params.output_dir / 'report.html'}",
    ]


def test_fresh_leaves_foreign_files(tmp_path, capsys):
    mine = tmp_path / "mine" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    where = ["--set", f"general.output_relative_path={tmp_path}", "--run", "mine"]
    with pytest.raises(SystemExit) as caught:
        main(["--demo", "--fresh", *where])
    assert caught.value.code == 2
    assert "holds files of something else; give another --run" in capsys.readouterr().err
    assert mine.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--full"], "--full belongs to --demo"),
        (
            ["--demo", "--run", "../demo"],
            "--run ../demo: expected a plain name, one that can be a file's: it holds /; rename it",
        ),
        (["--demo", "--seed", "-1"], "--seed -1: expected a whole number of 0 or more"),
    ],
)
def test_bad_flags(flags, words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(flags)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {words}\n"


def test_interrupt_is_told_in_one_line(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("runs.pipeline.story", stop)
    with pytest.raises(SystemExit) as caught:
        main(["--demo"])
    assert caught.value.code == 130
    told = capsys.readouterr()
    assert (told.out, told.err) == ("the same command goes on\n", "interrupted\n")


@pytest.mark.slow
def test_interrupted_story_goes_on(finished, tmp_path):
    path, run_dir = finished
    copy = tmp_path / "tiny"
    shutil.copytree(run_dir, copy)
    (copy / "summary.json").unlink()
    (copy / "network_000006.pth").unlink()
    text = path.read_text().replace(str(path.parent), str(tmp_path), 1)
    settings = json.loads((copy / "settings.json").read_text())
    settings["settings"]["general.output_relative_path"] = str(tmp_path)
    (copy / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "a.ini").write_text(text)
    assert main([str(tmp_path / "a.ini"), "--threads", "1"]) == 0
    state, expected = (load_state(folder / "network_000006.pth") for folder in (copy, run_dir))
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert (copy / "summary.json").is_file()


def test_attention_maps_of_a_run(finished, capsys):
    path, run_dir = finished
    assert attention_main([str(path), "--ids", "03", "--class-name", "puffs"]) == 0
    picture = capsys.readouterr().out.strip()
    assert picture == str(run_dir / "attention" / "03_0_maps.png")
    assert (run_dir / "attention" / "03_0_maps.csv").is_file()
    assert (run_dir / "attention" / "03_0_Grad-CAM_puffs.tif").is_file()


@pytest.mark.parametrize("name", ["main.py", "training.py", "load_trainings_predict.py"])
def test_help_needs_no_framework(name):
    code = f"import sys; sys.argv = ['{name}', '--help']; import runpy\n"
    code += f"sys.path.insert(0, {str(FOLDER)!r})\n"
    code += f"try: runpy.run_path({str(FOLDER / name)!r}, run_name='__main__')\n"
    code += "except SystemExit: assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_assembly_benchmark_gives_equal_numbers(monkeypatch):
    monkeypatch.setattr("demo.benchmark_cases.CHUNK", (40, 4, 6))
    rows = assembly_rows()
    assert rows[0]["ratio"] > 0
