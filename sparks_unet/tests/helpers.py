"""A tiny data set and a tiny configuration, in the real formats."""

import os
import subprocess
import sys
from pathlib import Path

from demo.synthetic import make_demo_data

FOLDER = Path(__file__).resolve().parents[1]
INI = """
[general]
training = yes
testing = no
output_relative_path = {out}
[training]
run_name = tiny
train_epochs = 6
criterion = nll_then_lovasz
switch_iteration = 4
lr_start = 1e-3
ignore_frames_loss = 2
cuda = no
save_every = 3
test_every = 1000
print_every = 2
scheduler = step
step_size = 2
[dataset]
relative_path = {data}
train_ids = 01 02
test_ids = 03
batch_size = 2
data_duration = 8
data_stride = 4
norm_video = std_dev
noise_data_augmentation = yes
[network]
unet_steps = 2
first_layer_channels = 2
batch_normalization = batch
"""


def make_tiny_data(folder):
    """Write three movies of 24 x 16 x 80 with a few events."""
    settings = {"frames": 24, "height": 16, "width": 80, "exact": True}
    make_demo_data(folder, movies=3, rates=(2, 1, 0), seed=3, **settings)
    return folder


def write_ini(path, data, out, **replaced):
    """Write the tiny configuration; ``replaced`` are key=value pairs of any section."""
    text = INI.format(data=data, out=out)
    for key, value in replaced.items():
        lines = [f"{key} = {value}" if x.startswith(f"{key} =") else x for x in text.split("\n")]
        text = "\n".join(lines)
    path.write_text(text)
    return path


def script(name, *args, check=True, folder=FOLDER, **options):
    """Run a script of ``folder`` as a user does; return the finished process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(folder / name), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    if check:
        assert done.returncode == 0, done.stderr
    return done
