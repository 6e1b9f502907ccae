"""Find the movie that excites a cell type most, by gradient ascent through the model.

    python excite_stimulus.py --checkpoint RUN --cell-type lc11 --seconds 1 --steps 60

Reads a checkpoint; writes <type>_excite.npz (movie (T, rows, columns) 0..1, rate_hz, deg_per_px),
which
generate_ca_predictions.py reads again, <type>_excite.csv (objective per step) and a figure. The
movie
starts from grey with faint noise, stays between black and white, and is judged by the largest
calcium after its onset; a penalty keeps neighbouring pixels and frames alike.
"""

import sys
from pathlib import Path

import numpy as np

from common.files import InputError, Parser, atomic_path, one_line_faults, seed_number

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / "results" / "stcnn" / "excite"
LEAD_S = 1.0  # grey before the movie
TAIL_S = 0.3  # grey after it, while calcium still rises
SMOOTHNESS = 0.02  # weight of the mean squared difference between neighbours


def excite(model, cell_type, *, seconds, steps, seed=0, learning_rate=0.05):
    """Return (movie (T, rows, columns) float32 0..1, objective per step).

    The objective is the largest predicted dF/F after onset, minus its value on grey.
    """
    import torch

    from adam import Adam
    from stimuli import BACKGROUND, BRIGHT, DARK

    rate = round(1.0 / model.dt)
    n_lead, n_movie, n_tail = (round(part * rate) for part in (LEAD_S, seconds, TAIL_S))
    generator = torch.Generator().manual_seed(seed)
    pixels = (0.02 * torch.randn(n_movie, *model.field, generator=generator)).requires_grad_()
    optimiser = Adam([pixels], lr=learning_rate)
    lead, tail = (torch.zeros(n, *model.field) for n in (n_lead, n_tail))
    objective = []
    for _ in range(steps):
        movie = torch.cat([lead, pixels, tail])[None, :, None]  # (1, T, 1, rows, columns)
        features = model.trunk(model.pr.sample(movie))
        curve = model.population(model.voltage(features, cell_type), cell_type)[0]
        gain = torch.logsumexp(20.0 * (curve[n_lead:] - curve[n_lead - 1].detach()), 0) / 20.0
        rough = sum((pixels.diff(dim=axis) ** 2).mean() for axis in range(3))
        optimiser.zero_grad()
        (-gain + SMOOTHNESS * rough).backward()
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(DARK, BRIGHT)
        objective.append(float(curve.detach()[n_lead:].max() - curve.detach()[n_lead - 1]))
    return (pixels.detach() + BACKGROUND).clamp(0, 1).numpy(), objective


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", required=True, help="run folder or checkpoint file")
    add("--config", type=Path, default=None, help="config.json, default beside the checkpoint")
    add("--cell-type", required=True, help="which read-out")
    add("--seconds", type=float, default=1.0, help="length of the movie")
    add("--steps", type=int, default=60, help="of gradient ascent")
    add("--seed", type=seed_number, default=0, help="seed of the faint starting noise")
    add("--out", type=Path, default=DEFAULT_OUT, help="folder")
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    if args.seconds <= 0 or args.steps < 1:
        parser.error("--seconds must be above 0 and --steps at least 1")
    return args


@one_line_faults
def main(argv=None):
    """Find the movie, write it and say how strong the response is."""
    args = parse(sys.argv[1:] if argv is None else argv)
    import torch

    from checkpoints import load_model
    from predict import predict_movies
    from stimuli import BACKGROUND
    from training import write_csv
    from util_analysis import plot_movie_traces

    model = load_model(args.checkpoint, config=args.config)
    if args.cell_type not in model.cell_types:
        raise InputError(
            f"--cell-type {args.cell_type}: the model has {', '.join(model.cell_types)}"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    movie, objective = excite(
        model, args.cell_type, seconds=args.seconds, steps=args.steps, seed=args.seed
    )
    rate = round(1.0 / model.dt)
    stem = args.out / f"{args.cell_type}_excite"
    with atomic_path(stem.with_suffix(".npz")) as temporary:
        np.savez(temporary, movie=movie, rate_hz=rate, deg_per_px=1.0)
    rows = [{"step": i, "peak_above_grey": value} for i, value in enumerate(objective)]
    write_csv(stem.with_suffix(".csv"), rows)
    shown = np.linspace(0, len(movie) - 1, 8).astype(int)
    n_shown = len(movie) + rate
    curves = predict_movies(model, [torch.from_numpy(movie - BACKGROUND)], n_frames=n_shown)
    plot_movie_traces(
        stem.with_suffix(".png"),
        movie[shown] - BACKGROUND,
        shown / rate,
        np.arange(n_shown) / rate,
        {name: curve[0] for name, curve in curves.items()},
        f"{args.cell_type}: most exciting movie found, peak {objective[-1]:.2f} dF/F",
    )
    print(f"{args.cell_type}: {objective[0]:.3f} -> {objective[-1]:.3f} dF/F: {stem}.npz")


if __name__ == "__main__":
    main()
