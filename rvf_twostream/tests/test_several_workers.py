"""Training with several workers of one TF_CONFIG: two local processes train what one trains."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

import tiny_split
from common.files import InputError
from little import FOLDER
from network.start import cluster_workers
from published import STEP_OF_FOUR
from runs.run_folder import written_by

STEPS = """
import sys
sys.path[:0] = [{folder!r}, {tests!r}]
from network.start import start_tensorflow
strategy = start_tensorflow(device="cpu", cluster=True)
{step}
results = [step(clips, y, weight, 4) for _ in range(3)]
losses = [float(loss) for loss, _ in results]
np.savez(sys.argv[1], losses, *[np.asarray(p) for _, p in results], *model.get_weights())
"""


def config(ports, index):
    workers = [f"localhost:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def free_ports(n=2):
    held = [socket.socket() for _ in range(n)]
    for one in held:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def run_workers(commands):
    """Run a command per worker at the same time; return [(exit code, stdout, stderr)]."""
    ports = free_ports(len(commands))
    plain = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    processes = [
        subprocess.Popen(
            command,
            env={**plain, "TF_CONFIG": config(ports, k)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k, command in enumerate(commands)
    ]
    texts = [process.communicate(timeout=900) for process in processes]
    return [(p.returncode, *text) for p, text in zip(processes, texts, strict=True)]


@pytest.mark.slow
def test_two_workers_train_what_one_trains(tmp_path):
    script = tmp_path / "steps.py"
    places = {"folder": str(FOLDER), "tests": str(FOLDER / "tests")}
    script.write_text(STEPS.format(**places, step=STEP_OF_FOUR))
    files = [tmp_path / f"{name}.npz" for name in ("one", "first", "second")]
    alone = subprocess.run([sys.executable, script, files[0]], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    for code, _, err in run_workers([[sys.executable, script, file] for file in files[1:]]):
        assert code == 0, err
    one, first, second = (np.load(file) for file in files)
    assert len(one.files) > 100
    for name in one.files:
        np.testing.assert_allclose(first[name], one[name], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.slow
def test_the_chief_alone_writes(tmp_path):
    root, out = tiny_split.write_split(tmp_path / "root"), tmp_path / "out"
    command = [sys.executable, str(FOLDER / "train_twostream.py")]
    flags = tiny_split.train_flags(root, out, "--batch_size", 2)
    ends = run_workers([[*command, *flags]] * 2)
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert "2 replicas" in ends[0][1]
    assert "best epoch" in ends[0][1]
    assert "best epoch" not in ends[1][1]
    assert len((out / "two_stream_csv" / "t0.csv").read_text().splitlines()) == 3
    assert json.loads((out / "t0.json").read_text())["test"]
    again = run_workers([[*command, *flags]] * 2)
    assert [code for code, _, _ in again] == [0, 0], again
    assert all("already trained" in text for _, text, _ in again)


@pytest.mark.slow
def test_a_batch_that_workers_cannot_share_is_one_line(tmp_path):
    root = tiny_split.write_split(tmp_path / "root")
    flags = tiny_split.train_flags(root, tmp_path / "out", "--batch_size", 3)
    for code, _, err in run_workers([[sys.executable, FOLDER / "train_twostream.py", *flags]] * 2):
        assert code == 2
        assert err.strip().splitlines()[-1].startswith("error: --batch_size 3: 2 replicas")
    assert not (tmp_path / "out").exists()


def test_a_worker_beside_the_chief_begins_with_a_copy_and_throws_it_away(tmp_path):
    (tmp_path / "m_state").mkdir()
    (tmp_path / "m_state" / "state.json").write_text("{}")
    (tmp_path / "m.weights.h5").write_text("w")
    with written_by(True, tmp_path, "m") as folder:
        assert folder == tmp_path
    with written_by(False, tmp_path, "m") as folder:
        assert folder != tmp_path
        assert (folder / "m_state" / "state.json").read_text() == "{}"
        (folder / "m.weights.h5").write_text("other")
    assert not folder.exists()
    assert (tmp_path / "m.weights.h5").read_text() == "w"


@pytest.mark.parametrize(
    ("text", "n"),
    [("", 0), (config([1], 0), 0), (config([1, 2], 1), 2)],
)
def test_workers_of_a_config(text, n):
    assert cluster_workers(text) == n


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        config([1, 2], 2),
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_a_config_that_is_none_is_told(text):
    with pytest.raises(InputError, match="TF_CONFIG in the environment"):
        cluster_workers(text)
