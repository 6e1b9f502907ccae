"""Kills, a full disk, NaN and divergence: nothing is lost and nothing is mixed."""

import os
import random
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

import main
from common.files import InputError
from helpers import SMALL, apart, call, flags, tiny_movie
from inputs.custom_types import TrainData
from inputs.safe_read import load_tensors
from network.build import Progress, da_rnn
from network.checkpoints import load_checkpoint, save_checkpoint
from runs.training import Course, train

RESULTS = ("encoder.torch", "decoder.torch", "iter_loss.npy", "epoch_loss.npy", "final_y_pred.npy",
           "weight_tensor_rs.pt", "attention.npz", "network.json")  # fmt: skip


def make_training(seed=0):
    """Return (TrainData, TrainConfig, DaRnnNet) of a small random recording."""
    values = np.random.default_rng(3).normal(size=(90, 8)).astype(np.float32)
    data = TrainData(values[:, 1:], values[:, :1])
    config, net = da_rnn(data, 1, 6, 5, 5, 0.01, 8, seed=seed)
    return data, config, net


def parameters(net):
    return torch.cat([p.detach().ravel() for m in net[:2] for p in m.parameters()])


def in_child(work):
    """Run ``work()`` in a forked child and return its process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_killed_run_resumes_bitwise_equal(tmp_path):
    movie = tiny_movie(tmp_path / "movie.npy")
    settings = SMALL | {"data": movie, "n_epochs": 16, "maps": False}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with subprocess.Popen(apart(settings, killed), stdout=subprocess.DEVNULL) as process:
        log = killed / "log.csv"
        while not log.exists() or len(log.read_text().splitlines()) < 4:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(random.random() * 0.05)  # any point of a step, an epoch's end or a save
        process.send_signal(signal.SIGKILL)
    assert not (killed / "network.json").exists()
    with pytest.raises(InputError, match="--resume"):
        main.run_all(**settings, run_dir=killed)
    for folder in (killed, whole):
        main.run_all(**settings, run_dir=folder, resume=folder == killed)
    for name in RESULTS:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert len((killed / "log.csv").read_text().splitlines()) == 17


def test_resume_needs_the_whole_state():
    """Negative control: the same state with another order of the windows ends elsewhere."""
    data, config, net = make_training()
    train(net, data, config, 4)
    ends = []
    for seed, moments in ((0, True), (1, True), (0, False)):
        _, _, half = make_training()
        progress = train(half, data, config, 2)
        if not moments:
            _, _, fresh = make_training()
            half.enc_opt.load_state_dict(fresh.enc_opt.state_dict())
        train(half, data, config, 4, course=Course(seed=seed), progress=progress)
        ends.append(parameters(half))
    assert torch.equal(ends[0], parameters(net))
    assert not torch.equal(ends[1], ends[0])
    assert not torch.equal(ends[2], ends[0])


def test_states_of_the_last_epochs_survive_a_resume(tmp_path):
    data, config, net = make_training()
    whole = train(net, data, config, 4, course=Course(keep=3))
    _, _, half = make_training()
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, half, train(half, data, config, 2, course=Course(keep=3)), {})
    progress = load_checkpoint(path, half, {})
    again = train(half, data, config, 4, course=Course(keep=3), progress=progress)
    assert len(whole.recent) == len(again.recent) == 3
    for one, other in zip(whole.recent, again.recent, strict=True):
        assert torch.equal(one["permutation"], other["permutation"])
        assert all(torch.equal(one["encoder"][k], other["encoder"][k]) for k in one["encoder"])
    last = net.decoder.state_dict()
    assert all(torch.equal(whole.recent[-1]["decoder"][k], last[k]) for k in last)
    assert not torch.equal(whole.recent[0]["permutation"], whole.recent[1]["permutation"])


def test_twenty_kills_in_the_save_loop_leave_a_loadable_checkpoint(tmp_path):
    data, config, net = make_training()
    progress = train(net, data, config, 1)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, net, progress, {})

    def save_for_ever():
        while True:
            save_checkpoint(path, net, progress, {})

    for _ in range(20):
        child = in_child(save_for_ever)
        time.sleep(0.02 + random.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        _, _, fresh = make_training(seed=9)
        assert load_checkpoint(path, fresh, {}).iteration == progress.iteration
        assert torch.equal(parameters(fresh), parameters(net))


def test_full_disk_keeps_the_old_checkpoint(tmp_path):
    data, config, net = make_training()
    progress = train(net, data, config, 1)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, net, progress, {})
    before, message = path.read_bytes(), tmp_path / "message"

    def save_without_space():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            save_checkpoint(path, net, progress, {})
        except InputError as error:
            message.write_text(str(error))

    os.waitpid(in_child(save_without_space), 0)
    assert "could not be written" in message.read_text()
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "message"]


def test_nan_stops_at_its_step():
    data, config, net = make_training()
    data.feats[40] = np.nan
    with pytest.raises(InputError, match=r"loss nan at iteration \d+ \(epoch 0\)"):
        train(net, data, config, 2)
    assert torch.isfinite(parameters(net)).all()


def test_divergence_names_the_iteration_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    monkeypatch.setattr(main, "RESULTS_DIR", tmp_path)
    movie = tiny_movie(tmp_path / "movie.npy")
    done = call("main.py", *flags(SMALL | {"data": movie, "learning_rate": 1e6}))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "at iteration" in done.stderr
    state = load_tensors(tmp_path / "run/checkpoint.pt")
    assert all(torch.isfinite(value).all() for value in state["encoder"].values())
    assert not (tmp_path / "run/network.json").exists()


def test_progress_counts_finished_epochs():
    data, config, net = make_training()
    progress = train(net, data, config, 3, course=Course(shuffle_pixels="none"))
    assert isinstance(progress, Progress)
    assert (progress.epoch, progress.iteration) == (3, 3 * 8)  # 58 windows in batches of 8
    assert (progress.permutation == np.arange(7)).all()
