"""Train the network on recordings, or on the synthetic set made on first use.

    python train.py                                                  # synthetic set, small network
    python train.py dataset=lc_small model=stcnn_exp_leakyrelu_bn    # recordings, published network
    python train.py preset=debug                                     # a minute: does all run?
    python train.py resume=../results/stcnn/<run> n_epochs=40        # go on after an interruption
    python train.py --multirun seed=1,2,3                            # a sweep

Every key of conf/ can be changed as key=value; --debug shows the traceback of a fault.
Reads ``dataset.ca_path`` and ``dataset.mov_path``; writes ``<expt_path>/<date_time>_<expt_name>/``:
settings.json, config.json, model_chkpnt_<e>.pt and .safetensors, loss_hist.npz and .csv, log.csv,
scores.csv, items.csv. Source: specification 7.
"""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from common.files import InputError, fault_line, one_line_faults
from configuration import HERE, check_keys, compose_settings, is_override, root_override


@hydra.main(version_base=None, config_path="conf", config_name="config")
def run(config):
    """Train with one resolved configuration; Hydra calls this once per job."""
    from training import train

    given = [entry.lstrip("+~").split("=")[0] for entry in HydraConfig.get().overrides.task]
    settings = OmegaConf.to_container(config, resolve=True)
    try:
        run_dir = train(settings, explicit=[k for k in given if k not in ("repo_root", "debug")])
    except (InputError, OSError) as error:
        if settings["debug"]:
            raise
        # Hydra would print a page; SystemExit passes through it.
        print(fault_line(error), file=sys.stderr)
        raise SystemExit(2) from None
    print(f"run: {run_dir}")


@one_line_faults
def main(argv=None):
    """Check the arguments in one line, then hand over to Hydra."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments or "-h" in arguments:
        print(f"{__doc__}\n--help, --multirun, --debug; --cfg job prints every key with its value")
        return
    if "--debug" in arguments:
        arguments[arguments.index("--debug")] = "debug=true"
    overrides = [argument for argument in arguments if is_override(argument)]
    flags = [argument for argument in arguments if not is_override(argument)]
    if any(flag in ("-m", "--multirun") for flag in flags):
        check_keys(overrides)
        # A cluster job starts from another script and must find the modules of this folder.
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    else:
        compose_settings(overrides)
    sys.argv = [sys.argv[0], *flags, *overrides, root_override()]
    run()


if __name__ == "__main__":
    main()
