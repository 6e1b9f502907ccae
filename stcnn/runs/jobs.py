"""One job of train.py, as Hydra calls it: once, or once per point of a sweep."""

import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from common.files import InputError, fault_line
from runs.configuration import checked
from runs.training import train

OWN = ("repo_root", "debug")  # given by train.py, or without influence on the run


def run_job(config: DictConfig) -> None:
    """Train with one resolved configuration; a fault is one line and exit code 2."""
    given = [entry.lstrip("+~").split("=")[0] for entry in HydraConfig.get().overrides.task]
    try:
        settings = checked(OmegaConf.to_container(config, resolve=True))
        run_dir = train(settings, explicit=[key for key in given if key not in OWN])
    except (InputError, OSError) as error:
        if config["debug"]:
            raise
        # Hydra would print a page; SystemExit passes through it.
        print(fault_line(error), file=sys.stderr)
        raise SystemExit(2) from None
    print(f"run: {run_dir}")
