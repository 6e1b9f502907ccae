"""The line that says where a run computes, and that main.py starts with it."""

import re

import pytest

import main
from common import device
from runs import setup

FRAMEWORK = "tensorflow"
CUDA_TEXT = "its CUDA libraries are missing"
TF32 = "TF32 in convolutions and products"
# Where the framework sees a GPU, a pretended driver proves nothing.
needs_no_gpu = pytest.mark.skipif(
    bool(device.gpu_names(FRAMEWORK)), reason=f"{FRAMEWORK} sees a GPU here"
)


def story(folder):
    """Return the flags of a run whose data are missing."""
    return ["--data_path", str(folder / "missing"), "--run", "test_device"]


def first_line(capsys, folder, *flags):
    """Return the first line of main.py on input that is refused right after it."""
    with pytest.raises(SystemExit) as stop:
        main.main([*story(folder), *flags])
    assert stop.value.code == 2
    return capsys.readouterr().out.splitlines()[0]


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Pretend a driver: an nvidia-smi on the PATH."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(smi.parent), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_driver(tmp_path, monkeypatch):
    """Hide every trace of a driver."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(device, "PROC_DRIVER", tmp_path / "version")
    monkeypatch.setattr(device, "DRIVER_LIBRARY", "no-such-library.so")


def test_every_trace_of_a_driver_counts(no_driver, tmp_path, monkeypatch):
    assert not device.driver_is_here()
    monkeypatch.setattr(device, "DRIVER_LIBRARY", None)  # ctypes opens this very program
    assert device.driver_is_here()
    monkeypatch.setattr(device, "DRIVER_LIBRARY", "no-such-library.so")
    (tmp_path / "version").write_text("NVRM version: 570.1\n")
    assert device.driver_is_here()
    (tmp_path / "version").unlink()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert device.driver_is_here()


@needs_no_gpu
def test_main_says_first_that_there_is_no_driver(no_driver, capsys, tmp_path):
    assert first_line(capsys, tmp_path) == "device: cpu (no NVIDIA driver found)"


@needs_no_gpu
def test_main_says_first_how_to_mend_an_idle_gpu(driver, capsys, tmp_path):
    line = first_line(capsys, tmp_path)
    assert line.startswith("device: cpu: an NVIDIA driver is here but ")
    assert CUDA_TEXT in line
    assert "python3 run.py env --device cuda" in line


@needs_no_gpu
def test_a_gpu_that_is_asked_for_and_not_seen_is_refused(driver, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main.main([*story(tmp_path), "--device", "gpu"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "use --device cpu" in line.replace("device=", "--device ")
    assert CUDA_TEXT in line


def test_main_says_first_that_the_cpu_is_asked_for(driver, capsys, tmp_path):
    assert first_line(capsys, tmp_path, "--device", "cpu") == "device: cpu (asked for)"


def test_hidden_gpus_are_named(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    line = device.describe_device(FRAMEWORK, "cpu")
    assert line == "device: cpu: CUDA_VISIBLE_DEVICES='-1' hides the GPUs; unset it to use them"


@pytest.mark.parametrize(
    ("chosen", "asked", "line"),
    [
        ("cuda", False, f"device: cuda:0 NVIDIA H200 (auto); {TF32}"),
        ("cuda:1", True, f"device: cuda:1 NVIDIA L4 (asked for); {TF32}"),
        ("gpu", False, f"device: gpu:0 NVIDIA H200, gpu:1 NVIDIA L4 (auto); {TF32}"),
        ("mps", True, "device: mps (asked for)"),
    ],
)
def test_the_line_names_the_cards(chosen, asked, line, monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    names = ["NVIDIA H200", "NVIDIA L4"]
    assert device.describe_device(FRAMEWORK, chosen, asked=asked, names=names) == line


def test_the_line_says_that_tf32_is_off(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    line = device.describe_device(FRAMEWORK, "gpu", names=["NVIDIA L4"])
    assert line == "device: gpu:0 NVIDIA L4 (auto); no TF32 (NVIDIA_TF32_OVERRIDE=0)"


@pytest.mark.gpu
def test_main_says_first_which_gpu_it_takes(capsys, tmp_path):
    (name, *_) = device.gpu_names(FRAMEWORK) or pytest.skip(f"{FRAMEWORK} sees no GPU")
    line = first_line(capsys, tmp_path)
    assert re.match(rf"device: (cuda|gpu):0 {re.escape(name)}.* \(auto\); .*TF32", line)


def test_a_card_gives_memory_as_it_is_needed(monkeypatch):
    grown = []
    config = setup.tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: ["a card"])
    monkeypatch.setattr(config.experimental, "set_memory_growth", lambda *a: grown.append(a))
    assert setup.choose_device("auto") == "gpu"
    assert grown == [("a card", True)]
