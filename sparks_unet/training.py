"""Train the 3D U-Net of a configuration file, validate it, and continue interrupted runs.

Follows section 7 of the specification (training of the paper, Cell Calcium 2024, 102893).

    python training.py config_files/final_model.ini          # the published setting
    python training.py config_files/demo.ini --resume        # go on where a run stopped
    torchrun --nproc_per_node 4 training.py config_files/final_model.ini

Reads: the INI file; per movie NN ``NN_video.tif`` (T, H, W), ``NN_class_label.tif`` and
``NN_event_label.tif`` (same shape).
Writes to results/sparks_unet/<run_name>/: settings.json, params.json, config.ini, log.txt,
loss.csv, metrics.csv, network_/optimizer_/scheduler_/rng_<iteration>.pth.
"""

import dataclasses
from pathlib import Path

from common.files import (
    FOLDER,
    InputError,
    Parser,
    atomic_path,
    one_line_faults,
    plain_name,
    seed_number,
    write_json,
    write_settings,
)
from config import describe, logger, to_dict, to_ini
from read_config import load_config

LIBRARIES = ("torch", "numpy", "scipy", "scikit-image", "connected-components-3d", "tifffile")


def base_parser(description):
    """Return a parser with the arguments that every script with an INI file has."""
    parser = Parser(description=description)
    parser.add_argument("config", type=Path, help="INI file, e.g. config_files/final_model.ini")
    parser.add_argument("--run-name", help="name of the run; default: [training] run_name")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu", "cuda"),
        default="auto",
        help="where to compute: auto, cpu, gpu or cuda",
    )
    parser.add_argument("--threads", type=int, help="CPU threads; default: PyTorch's choice")
    parser.add_argument(
        "--seed", type=seed_number, help="seed of every random choice; default: [training] seed"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="section.key=value",
        help="replace one setting; repeatable",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


def make_parser():
    """Return the parser of the command line."""
    parser = base_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint of this run"
    )
    parser.add_argument("--dry-run", action="store_true", help="print settings and sizes only")
    return parser


def configured(args):
    """Return Params of the parsed command line."""
    overrides = list(args.overrides)
    if args.run_name is not None:
        overrides.append(f"training.run_name={plain_name(args.run_name)}")
    if args.seed is not None:
        overrides.append(f"training.seed={args.seed}")
    path = args.config
    if not path.is_file() and (FOLDER / path).is_file():
        path = FOLDER / path
    return load_config(path, overrides)


def resumed(params):
    """Return ``params`` that continue the run from its newest checkpoint up to train_epochs."""
    from checkpoints import available_iterations

    found = available_iterations(params.output_dir)
    if not found:
        return params
    done = min(found[-1], params.train_epochs)
    logger.info("resuming after iteration %d of %d", done, params.train_epochs)
    return dataclasses.replace(
        params, load_run_name="", load_epoch=done, train_epochs=params.train_epochs - done
    )


def check_run_folder(params):
    """Refuse to mix a new run with the checkpoints of another one."""
    from checkpoints import available_iterations

    found = available_iterations(params.output_dir)
    newer = [n for n in found if n > params.load_epoch]
    own = params.load_epoch and params.load_dir == params.output_dir
    if params.training and (newer or (found and not own)):
        raise InputError(
            f"{params.output_dir}: holds a run with checkpoints up to iteration {found[-1]}; use "
            f"--resume, load_epoch = {found[-1]}, another run_name, or remove the folder"
        )


def read_data(params):
    """Return (training samples or None, validation samples) of the configuration."""
    from dataset_tools import adapted, read_samples

    def read(ids, **options):
        samples = read_samples(params.data_dir, ids, sparks_type=params.sparks_type, **options)
        return adapted(samples, params)

    train = read(params.ids("train")) if params.training else None
    return train, read(params.ids("val"), events=True)


def memory_estimate(params, shape):
    """Return (parameters, bytes of the activations of one training batch).

    The network runs without data (meta tensors); every layer's output is counted once.
    """
    import torch

    from architecture import build_model

    with torch.device("meta"):
        model = build_model(params)
        x = torch.empty(params.batch_size, params.input_channels, params.data_duration, *shape)
    sizes = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _m, _i, output: sizes.append(output.numel()))
    model(x)
    return sum(p.numel() for p in model.parameters()), 4 * sum(sizes)


def dry_run(params):
    """Print the settings, the size of the data sets and of the network."""
    from preprocessing import count_chunks, padding

    print("\n".join(describe(params)))
    train, val = read_data(dataclasses.replace(params, training=True))
    for title, samples, (duration, stride) in (
        ("training", train, (params.data_duration, params.data_stride)),
        ("validation", val, params.chunk),
    ):
        frames = [len(sample.movie.data) for sample in samples]
        chunks = [
            count_chunks(n + sum(padding(n, duration, stride)), duration, stride) for n in frames
        ]
        print(f"{title}: {len(samples)} movies, {sum(frames)} frames, {sum(chunks)} chunks")
    parameters, activations = memory_estimate(params, train[0].movie.data.shape[1:])
    states = 16 * parameters  # weights, gradients and two moments of Adam, float32
    print(
        f"network: {parameters} parameters; estimate for training: {activations / 1e9:.2f} GB of "
        f"activations (batch {params.batch_size}) + {states / 1e9:.2f} GB of weights and optimiser"
    )


def settings_of(params):
    """Return the settings as one flat dict {section.key: value}."""
    record = to_dict(params)
    return {f"{section}.{k}": v for section, part in record.items() for k, v in part.items()}


def write_record(params, **more):
    """Write the resolved settings of the run before work starts; ``more`` joins settings.json."""
    folder = params.output_dir
    ids = dict.fromkeys((*params.ids("train"), *params.ids("val")))
    inputs = [params.data_dir / f"{one}_video.tif" for one in ids]
    inputs = [path for path in inputs if path.is_file()]
    write_settings(folder, settings_of(params) | more, inputs=inputs, libraries=LIBRARIES)
    write_json(folder / "params.json", to_dict(params))
    with atomic_path(folder / "config.ini") as temporary:
        temporary.write_text(to_ini(params), encoding="utf-8")


def prepare(params, *, device="auto", threads=None):
    """Check folder and data, open the log, choose the device.

    Returns:
        (Place, training samples or None, validation samples).
    """
    from training_tools import pick_place, set_up_logging

    check_run_folder(params)
    train, val = read_data(params)
    folder = params.output_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        set_up_logging(params, folder / "log.txt")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error}); choose another folder") from None
    return pick_place(params, device, threads), train, val


def run(params, place, train, val):
    """Train and validate as ``params`` say; return the last (metrics, per-movie counts) or None."""
    from datasets import SparkDataset
    from training_tools import TrainingRun, open_loggers, rows_before

    folder = params.output_dir
    dataset = SparkDataset(train, params, augment=True) if params.training else None
    training_run = TrainingRun(params, dataset, val, place)
    if params.load_epoch:
        training_run.load(params.load_dir, params.load_epoch)
    if place.first:
        for line in describe(params):
            logger.debug(line)
        rows_before(folder / "loss.csv", params.load_epoch)
        rows_before(folder / "metrics.csv", params.load_epoch)
        training_run.loggers = open_loggers(params, folder)
    result = training_run.validate() if params.load_epoch and params.training else None
    if params.training:
        try:
            training_run.train(params.train_epochs)
        except KeyboardInterrupt:
            training_run.save()
            logger.warning("stopped at iteration %d; --resume goes on", training_run.iteration)
            raise
    return training_run.validate() if params.testing else result


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    args = make_parser().parse_args(argv)
    params = configured(args)
    if args.dry_run:
        dry_run(params)
        return 0
    if not (params.training or params.testing):
        raise InputError(f"{args.config}: training = no and testing = no; set one of them to yes")
    todo = resumed(params) if args.resume else params
    if not todo.training and not todo.load_epoch:
        raise InputError(
            f"{args.config}: [training] load_epoch = 0 and training = no; a validation needs a "
            "trained network: set load_epoch or use --resume"
        )
    place, train, val = prepare(todo, device=args.device, threads=args.threads)
    if place.first:
        write_record(params)
    result = run(todo, place, train, val)
    if result:
        shown = ("average/detected", "average/correctly_classified", "total/detected")
        for name in shown:
            value = result[0].get(name)
            print(f"{name}: {'n/a' if value is None else f'{value:.3f}'}")
    print(f"results in {params.output_dir}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
