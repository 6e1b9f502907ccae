"""A tiny split of ready movies, for the tests of training, prediction and pictures."""

import json
from pathlib import Path

import numpy as np

SIZE = (8, 32, 32)  # frames, rows, columns of a clip
MODEL = ("--depth", 18, "--width", 4)
CLIP = ("--nframes", 8, "--nrows", 32, "--ncols", 32)


def write_split(root, n=10, n_frames=12, seed=0):
    """Write ``n`` movies of one patient each, severe ones brighter above; return the root.

    Half are for training, a quarter for validation, a quarter for the test; each has both classes.
    """
    root, rng, classmap = Path(root), np.random.default_rng(seed), {}
    for i in range(n):
        stem, name = f"p{i:02d}a", ("train", "train", "val", "test")[i // 2 % 4]
        classmap[stem] = 3 * (i % 2)
        for folder, channels in (("greyscale", 1), ("OF", 2)):
            movie = rng.standard_normal((n_frames, *SIZE[1:], channels)).astype(np.float32)
            movie[:, :16] += i % 2
            (root / folder / f"split0_{name}").mkdir(parents=True, exist_ok=True)
            np.save(root / folder / f"split0_{name}" / f"{stem}.npy", movie)
    (root / "classmap.json").write_text(json.dumps(classmap))
    stats = {"mean": 0.0, "std": 1.0, "n_movies": n, "files": "all", "options": {}}
    for name in ("data_mean_std.json", "data_mean_std_OF.json"):
        (root / name).write_text(json.dumps(stats))
    return root


def train_flags(root, ckptdir, *more):
    """Return the flags of a run of train_twostream.py on a tiny split."""
    flags = ("--root", root, "--ckptdir", ckptdir, "--splitnum", 0, "--model_prefix", "t")
    flags += ("--grey_weights", "none", "--OF_weights", "none", "--lr", 1e-3, "--epoch", 2)
    flags += ("--batch_size", 3)  # six training movies: one size of batch is compiled once
    return [str(x) for x in (*flags, *MODEL, *CLIP, "--device", "cpu", *more)]
