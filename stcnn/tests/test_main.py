"""main.py on a tiny set, complete runs, refusals; notebooks; install files."""

import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import run_script

FOLDER = Path(__file__).resolve().parents[1]


@pytest.fixture
def tiny_demo(tmp_path):
    return [
        "--demo", "--device", "cpu", f"expt_path={tmp_path}", "dataset.make.stimuli=tiny",
        "dataset.make.neurons=1", f"dataset.ca_path={tmp_path}/set/ca_traces",
        f"dataset.mov_path={tmp_path}/set/movies", "n_epochs=1", "val_fraction=0",
        "val_stimuli=[300,1022,1003]",
    ]  # fmt: skip


@pytest.mark.slow
def test_demo_from_end_to_end(tiny_demo, tmp_path, monkeypatch, capsys):
    import main

    monkeypatch.setattr(main, "RESULTS", tmp_path / "results")
    run = tmp_path / "results" / "demo"
    assert main.main(tiny_demo) in (0, 1)  # one epoch need not find the planted truth
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "complete"
    assert summary["folder"] == "stcnn"
    assert any(score["control"] for score in summary["scores"])
    for figure in summary["figures"]:
        assert (run / figure["path"]).is_file()
    assert (run / summary["main_picture"]).stat().st_size < 1_000_000
    assert "<script" not in (run / "report.html").read_text()
    assert capsys.readouterr().out.strip().splitlines()[-1].endswith("report.html")
    assert (run / "log.csv").read_bytes() == (run / "model" / "log.csv").read_bytes()
    assert list(json.loads((run / "settings.json").read_text())["inputs"]) == ["truth.json"]
    missed = any(score["passed"] is False for score in summary["scores"])
    assert main.main([*tiny_demo, "num_workers=1", "--device", "auto"]) == int(missed)
    assert "is complete; --fresh starts anew" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main.main([*tiny_demo, "lr=0.1"])
    assert stopped.value.code == 2
    assert "other settings (lr)" in capsys.readouterr().err


def test_a_set_of_an_older_recipe_is_made_again(tmp_path):
    from demo.synthetic import RECIPE, ensure_data
    from main import parse
    from runs.configuration import run_settings

    folder = tmp_path / "set"
    settings = run_settings(parse([
        "--demo", "dataset.make.stimuli=tiny", "dataset.make.neurons=1",
        f"dataset.ca_path={folder}/ca_traces", f"dataset.mov_path={folder}/movies",
    ]))  # fmt: skip
    folder.mkdir()
    old = {"seed": 0, "hz": 30, "px": 51, "stimuli": "tiny", "teacher": "analytic"}
    (folder / "truth.json").write_text(json.dumps(old))
    assert ensure_data(settings, 0)["recipe"] == RECIPE
    assert (folder / "ca_traces" / "lc11").is_dir()


def test_a_single_core_starts_no_second_process(monkeypatch):
    from main import parse
    from runs import pipeline
    from runs.configuration import run_settings

    monkeypatch.setattr(pipeline, "n_cores", lambda: 1)
    with pipeline.side_process(run_settings(parse(["--demo"]))) as pool:
        assert pool is None
    monkeypatch.undo()
    if hasattr(os, "sched_getaffinity"):
        assert pipeline.n_cores() == len(os.sched_getaffinity(0))


PEAKS = {  # planted: {cell type: {stimulus: dF/F}}
    "lc11": {"300": 0.0, "301": 0.0, "340": 0.1, "1000": 1.0},
    "lplc2": {"300": 0.5, "301": 1.0, "340": 0.0, "1000": 0.0},
    "lc12": {"300": 0.5, "301": 0.6, "340": 0.5, "1000": 0.4},
}


def write_items(folder, shift, share=1.0):
    """Write items.csv whose predictions are the planted peaks, ``shift`` stimuli further on.

    Peaks vary by ``share`` of what the planted ones do.
    """
    lines = ["part,cell_type,uid,barcode,peak_predicted"]
    for kind, peaks in PEAKS.items():
        values = list(peaks.values())
        moved = [0.1 + share * (v - 0.1) for v in values[shift:] + values[:shift]]
        lines += [f"held_out,{kind},1,{code},{v}" for code, v in zip(peaks, moved, strict=True)]
    folder.mkdir()
    (folder / "items.csv").write_text("\n".join(lines))
    return folder


def test_control_passes_only_when_shuffled_labels_teach_nothing(tmp_path):
    from demo.planted import planted_scores

    truth = {"types": {kind: {"neurons": {"1": {"peak": p}}} for kind, p in PEAKS.items()}}
    model, shuffled, leaky = (
        write_items(tmp_path / n, s) for n, s in (("a", 0), ("b", 3), ("c", 0))
    )
    main_score, scores = planted_scores(model, shuffled, truth, least=0.7)
    assert main_score["value"] == pytest.approx(1.0)
    assert all(entry["passed"] is not False for entry in scores)
    failed = [s for s in planted_scores(model, leaky, truth, least=0.7)[1] if s["passed"] is False]
    assert [entry["name"].split(":")[0] for entry in failed] == ["control", "control"]
    assert not planted_scores(shuffled, leaky, truth, least=0.7)[0]["passed"]


def test_peaks_of_a_twentieth_agree_with_nothing(tmp_path):
    """Their correlation is 1, which says nothing of a tuning within the noise; it is printed."""
    from demo.planted import planted_scores

    truth = {"types": {kind: {"neurons": {"1": {"peak": p}}} for kind, p in PEAKS.items()}}
    model, faint, half = (
        write_items(tmp_path / n, 0, share) for n, share in (("a", 1.0), ("b", 0.05), ("c", 0.5))
    )
    rows = {row["name"]: row for row in planted_scores(model, faint, truth, least=0.7)[1]}
    control = rows["control: agreement after training on shuffled labels, higher of the two types"]
    assert control["value"] < 0.1
    assert control["passed"]
    name = "held-out peak correlation after training on shuffled labels, looming (lplc2)"
    assert rows[name]["value"] == pytest.approx(1.0)
    failed = [row for row in planted_scores(model, half, truth, least=0.7)[1] if row["control"]]
    assert [row["passed"] for row in failed] == [None, None, False, True]


def test_reuse_of_a_demo_that_missed_ends_with_1(tmp_path, monkeypatch, capsys):
    import main
    from common.files import write_settings
    from common.report import write_summary
    from demo.planted import score
    from runs.configuration import run_settings

    monkeypatch.setattr(main, "RESULTS", tmp_path)
    run = tmp_path / "demo"
    write_settings(run, run_settings(main.parse(["--demo"])))
    scores = [score("lower", 0.8, ">= 0.7", True), score("control", 0.9, "< 0.6", False)]
    summary = {"scores": scores, "planted_truth": scores[0], "data": "", "seconds": 6.7}
    write_summary(run, {**summary, "report": "report.html"})
    assert main.main(["--demo", "--device", "gpu", "num_workers=1"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{run} is complete; --fresh starts anew",
        "missed: control",
        f"lower: 0.800; 7 s; {run / 'report.html'}",
    ]


def test_fresh_leaves_foreign_files(tmp_path, monkeypatch, capsys):
    import main

    monkeypatch.setattr(main, "RESULTS", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        main.main(["--demo", "--run", "mine", "--fresh"])
    assert stopped.value.code == 2
    assert "holds files of something else; give another --run" in capsys.readouterr().err
    assert (tmp_path / "mine" / "notes.txt").exists()


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
def test_bad_flags(here, flags, words):
    from main import main

    assert here(main, *flags, check=2).err == f"error: {words}\n"


def test_help_and_unknown_flags(script, here):
    from main import main

    assert "--fresh" in script("main.py", "--help").stdout
    assert "did you mean --fresh" in here(main, "--fres", check=2).err
    assert "unknown key lrr" in here(main, "--demo", "lrr=1", check=2).err


def test_own_data_run_without_the_demo(tiny_set, tmp_path):
    """The folder demo/ can be taken away: own recordings still run, a demo says what is missing."""
    home = tmp_path / FOLDER.name
    left_out = shutil.ignore_patterns("demo", "tests", "notebooks", "__pycache__", ".*")
    shutil.copytree(FOLDER, home, ignore=left_out)
    own = [
        "dataset=lc_small", "model=stcnn_small", f"dataset.ca_path={tiny_set}/ca_traces",
        f"dataset.mov_path={tiny_set}/movies", "dataset.sampling_rate=60",
        "dataset.loss_meas_t_start=-0.25", "dataset.num_t_pts_prepad=5",
        "model.network.out_channels=[2,2]", "model.network.x_kernel_size=[3,3]",
        "model.network.x_stride=[1,1]", "model.network.x_padding=[1,1]",
        "model.network.activation=[identity,leaky_relu]", "n_epochs=1", "batch_size=9",
    ]  # fmt: skip
    (tiny_set / "truth.json").rename(tiny_set / "truth.away")  # recordings have none
    try:
        done = run_script(home / "main.py", *own, "--device", "cpu", cwd=home)
    finally:
        (tiny_set / "truth.away").rename(tiny_set / "truth.json")
    run = tmp_path / "results" / FOLDER.name / "main"
    assert json.loads((run / "summary.json").read_text())["status"] == "complete"
    assert "display: 60 Hz" in done.stdout + done.stderr
    done = run_script(home / "main.py", "--demo", cwd=home, check=2)
    assert "the folder demo/, which makes synthetic sets, is not here" in done.stderr


def test_install_files_agree():
    for name in ("environments.yml", "environment.yml"):
        text = (FOLDER / name).read_text()
        assert "-r requirements.txt" in text
        assert not re.search(r"==|>=", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(path.name for path in (FOLDER / "notebooks").glob("*.ipynb"))
)
def test_notebooks_run_headless(name, tiny_set, tiny_run, tmp_path):
    """Check 20: thin calls of the scripts, on synthetic data."""
    notebook = nbformat.read(FOLDER / "notebooks" / name, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += (
                f"\nCA_PATH, MOV_PATH = r'{tiny_set}/ca_traces', r'{tiny_set}/movies'"
                f"\nRATE_HZ = 60\nRUN = r'{tiny_run}'\nOUT = r'{tmp_path}'\nSTIMULI = '300,340'\n"
            )
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": FOLDER / "notebooks"}}
    )
    client.execute()
    expected = {
        "visualize_dataset": "lc11_looming.mp4",
        "visualize_model_param": "training_loss_hist.png",
        "generate_ca_predictions": "model_chkpnt_2_lc11_size_tuning.png",
    }
    assert (tmp_path / expected[Path(name).stem]).is_file()
