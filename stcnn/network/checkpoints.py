"""Checkpoints, configuration and loss histories of a run: write ours, read ours and the published.

A run folder holds config.json, model_chkpnt_<e>.pt (keys model and optim) with a .safetensors
twin of the model, loss_hist.npz and loss_hist.csv (specification 4.3).
"""

import io
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from common.files import InputError, read_json, write_bytes
from common.tables import write_table
from inputs.display import Display
from inputs.safe_load import load_tree, read_pickled_history, save_arrays
from network.model_factory import build_model
from network.models import STCNN, parameter_name
from network.positions import Positions
from network.temporal import route_for

CONFIG_KEYS = ("pr_config", "network_config", "L_config", "ca_config", "sampling_rate")
NAME = re.compile(r"model_chkpnt_(\d+)\.(pt|safetensors)")


def checkpoint_epochs(run_dir: Path) -> dict[int, Path]:
    """Return {epoch: path} of the checkpoints in ``run_dir``, by epoch; .pt is preferred."""
    by_epoch = {}
    for path in sorted(Path(run_dir).glob("model_chkpnt_*"), key=lambda p: p.suffix, reverse=True):
        match = NAME.fullmatch(path.name)
        if match:
            by_epoch[int(match[1])] = path
    return dict(sorted(by_epoch.items()))


def resolve_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file meant by ``path``: a file, or a run folder (its last epoch)."""
    path = Path(path)
    if path.is_dir():
        epochs = checkpoint_epochs(path)
        if not epochs:
            raise InputError(
                f"{path}: no model_chkpnt_<epoch>.pt or .safetensors inside; train first"
            )
        return list(epochs.values())[-1]
    if not path.is_file():
        raise InputError(
            f"{path}: checkpoint not found; give a run folder of train.py, or clone "
            "https://github.com/TuragaLab/stcnn and name one of its "
            "experiments/*/model_chkpnt_10.pt"
        )
    return path


def read_config(path: Path) -> dict:
    """Read and check a config.json."""
    path = Path(path)
    config = read_json(path, remedy="restore it from the run, or give it with --config")
    missing = [key for key in CONFIG_KEYS if key not in config]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing; expected the config.json of a run")
    return config


def load_model(
    path: str | Path,
    *,
    config: Path | None = None,
    readout: str | None = None,
    impl: str = "auto",
    device: str | torch.device = "cpu",
) -> STCNN:
    """Return the model of a checkpoint, evaluating.

    Args:
        path: .pt or .safetensors file, or a run folder.
        config: path of its config.json; default beside the checkpoint.
        readout: overrides the configuration's; configurations without the key are legacy.
        impl: route of the temporal filters.
        device: torch device.
    """
    path = resolve_checkpoint(path)
    settings = read_config(config or path.parent / "config.json")
    model = model_from_config(settings, readout=readout, impl=route_for(impl, device))
    load_state(model, model_state(path), path)
    return model.to(device).eval()


def model_from_config(
    settings: dict, *, readout: str | None = None, impl: str = "recursive", seed: int = 0
) -> STCNN:
    """Build the (untrained) model that a config.json describes; ``field`` is its movies' size."""
    try:
        model = build_model(
            settings,
            rate_hz=settings["sampling_rate"],
            readout=readout or settings.get("readout", "legacy"),
            init=settings.get("init", "reference"),
            seed=seed,
            impl=impl,
        )
        model.display = Display.of_config(settings)
        if settings.get("prepad", "frames") == "settled":
            model.settle(max(int(settings["dataset_config"]["num_t_pts_prepad"]), 1))
        model.grey_at_knots = settings.get("prepad") == "thinned"
        if settings.get("position", "recorded") == "learned":
            counts = dict(zip(model.cell_types, settings["ca_config"]["cell_count"], strict=True))
            model.positions = Positions(counts, sd_deg=settings["position_sd"])
    except KeyError as error:
        raise InputError(f"model configuration: key {error} is missing") from None
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model configuration: a value is of the wrong kind ({reason})") from None
    model.field = model.display.field
    uids = settings.get("neuron_uids") or {}
    model.neuron_uids = {name: list(uids.get(name, ())) for name in model.cell_types}
    return model


def model_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a checkpoint file."""
    tree = load_tree(path)
    if path.suffix == ".npz":
        tree = {"model": tree}
    state = tree.get("model", tree) if isinstance(tree, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"{path}: holds no model state; expected a checkpoint of this network")
    return state


def load_state(model: STCNN, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load ``state`` strictly; a difference is one line that names it."""
    own = model.state_dict()
    if model.global_ca_tau is None:
        # the published code keeps the shared constant among its parameters even when it is off
        state = {name: value for name, value in state.items() if name != "global_ca_tau"}
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    faults = [f"missing {', '.join(missing[:3])}"] * bool(missing)
    faults += [f"unexpected {', '.join(extra[:3])}"] * bool(extra)
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, the configuration gives "
        f"{tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ][:1]
    if faults:
        raise InputError(
            f"{path}: does not fit its config.json ({'; '.join(faults)}); neurons per type, "
            "layers and "
            "kernels must be those of the training run"
        )
    model.load_state_dict(state, strict=True)


def load_trunk(model: STCNN, path: str | Path) -> None:
    """Copy lens, hidden layers and batch norm of the checkpoint ``path`` into ``model``."""
    path = resolve_checkpoint(path)
    config = path.parent / "config.json"
    if config.is_file():
        # the filters' time constants and the lens are those of the trunk's own rate and pixels
        other = model.display.differences(Display.of_config(read_config(config)))
        if other:
            raise InputError(
                f"{path}: its trunk was trained on another display than this data set "
                f"({'; '.join(other)}); resample the data set or train a trunk on it"
            )
    own = model.state_dict()
    state = model_state(path)
    for name in [key for key in own if key.startswith(("pr.", "network.", "norm_layers."))]:
        if name not in state or state[name].shape != own[name].shape:
            raise InputError(
                f"{path}: {name} is absent or of another shape; use the same model config"
            )
        own[name] = state[name]
    model.load_state_dict(own)


def load_read_outs(model: STCNN, path: str | Path) -> None:
    """Copy read-outs and indicator time constants of the checkpoint ``path`` into ``model``.

    Raises:
        InputError: a cell type of ``model`` that the checkpoint has not, or of another shape.
    """
    path = resolve_checkpoint(path)
    config = read_config(path.parent / "config.json")
    readout = config.get("readout", "legacy")
    if readout != model.readout:
        raise InputError(f"{path}: its read-outs were trained with readout={readout}; set it here")
    types = list(config["L_config"]["lc_types"])
    unknown = [name for name in model.cell_types if name not in types]
    if unknown:
        raise InputError(
            f"{path}: has no read-out of {', '.join(unknown)} that could be kept; its cell types "
            f"are {', '.join(types)}"
        )
    own, state = model.state_dict(), model_state(path)
    for i, kind in enumerate(model.cell_types):
        theirs = f"lc_layers.{types.index(kind)}."
        pairs = {n: n.replace(f"lc_layers.{i}.", theirs) for n in own if f"lc_layers.{i}." in n}
        tau = f"ca_param.{parameter_name(kind)}.ca_tau"
        pairs |= {name: name for name in (tau, "global_ca_tau") if name in own}
        for name, source in pairs.items():
            if source not in state or state[source].shape != own[name].shape:
                raise InputError(
                    f"{path}: {source} is absent or of another shape; use the same model config"
                )
            own[name] = state[source]
    model.load_state_dict(own)


def save_checkpoint(
    run_dir: Path, epoch: int, model: STCNN, optimiser: torch.optim.Optimizer
) -> None:
    """Write model_chkpnt_<epoch>.safetensors, then .pt, whose presence makes the epoch count."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(Path(run_dir) / f"model_chkpnt_{epoch}.safetensors", save(state))
    # to memory: of a path, torch writes the (temporary) name into the bytes
    whole = io.BytesIO()
    torch.save({"model": state, "optim": optimiser.state_dict()}, whole)
    write_bytes(Path(run_dir) / f"model_chkpnt_{epoch}.pt", whole.getbuffer())


def save_history(
    run_dir: Path, history: dict[str, list[float]], epochs: dict[str, list[int]]
) -> None:
    """Write the losses per batch and the epoch of each as loss_hist.npz and loss_hist.csv.

    Args:
        run_dir: folder.
        history: {type: [loss, ...]}, an entry for every batch that holds the type.
        epochs: {type: [epoch, ...]} of the same lengths, the first epoch is 1.
    """
    arrays = {_kept(name): np.asarray(v, dtype=np.float64) for name, v in history.items()}
    arrays |= {f"epoch/{name}": np.asarray(e, dtype=np.int64) for name, e in epochs.items()}
    save_arrays(Path(run_dir) / "loss_hist.npz", arrays)
    rows = (
        (name, i, epoch, repr(loss))
        for name, values in history.items()
        for i, (epoch, loss) in enumerate(zip(epochs[name], values, strict=True))
    )
    header = ("cell_type", "iteration", "epoch", "loss")
    write_table(Path(run_dir) / "loss_hist.csv", header, rows)


def _kept(name):
    """Return the name of a type's losses in the file, where epoch is a folder."""
    return "%epoch" if name == "epoch" else name


def load_history(run_dir: Path) -> tuple[dict, dict | None]:
    """Return ({type: losses}, {type: epochs}); the published pickle knows no epochs: None."""
    run_dir = Path(run_dir)
    if (run_dir / "loss_hist.npz").is_file():
        tree = load_tree(run_dir / "loss_hist.npz")
        epochs = {name: values.tolist() for name, values in tree.pop("epoch", {}).items()}
        history = {
            "epoch" if name == _kept("epoch") else name: values.tolist()
            for name, values in tree.items()
        }
        if {k: len(v) for k, v in epochs.items()} != {k: len(v) for k, v in history.items()}:
            raise InputError(
                f"{run_dir / 'loss_hist.npz'}: losses and epochs do not belong together, the file "
                "is damaged; copy it again"
            )
        return history, epochs
    if (run_dir / "avg_loss_hist.pkl").is_file():
        return read_pickled_history(run_dir / "avg_loss_hist.pkl"), None
    raise InputError(f"{run_dir}: no loss_hist.npz or avg_loss_hist.pkl inside")
