"""Train the network on recordings, or on the synthetic set made on first use.

    python train.py                                                  # synthetic set, small network
    python train.py dataset=lc_small model=stcnn_exp_leakyrelu_bn    # recordings, published network
    python train.py preset=debug                                     # a minute: does all run?
    python train.py resume=../results/stcnn/<run> n_epochs=40        # go on after an interruption
    python train.py --multirun seed=1,2,3                            # a sweep
    python train.py --config-dir DIR dataset=mine                    # your DIR/dataset/mine.yaml

Every key of conf/ can be changed as key=value; --debug shows the traceback of a fault.
Reads ``dataset.ca_path`` and ``dataset.mov_path``; writes ``<expt_path>/<date_time>_<expt_name>/``:
settings.json, config.json, model_chkpnt_<e>.pt and .safetensors, loss_hist.npz and .csv, log.csv,
scores.csv, items.csv. Source: specification 7.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import FOLDER, one_line_faults


@one_line_faults
def main(argv=None):
    """Check the arguments in one line, then hand over to Hydra."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments or "-h" in arguments:
        print(f"{__doc__}\n--help, --multirun, --debug; --cfg job prints every key with its value")
        return
    import hydra

    from runs.arguments import split_arguments
    from runs.configuration import (
        config_folder_overrides,
        plain_booleans,
        plain_settings,
        root_override,
    )
    from runs.jobs import run_job

    if "--debug" in arguments:
        arguments[arguments.index("--debug")] = "debug=true"
    overrides, flags = split_arguments(arguments)
    overrides = plain_booleans(overrides)
    settings = plain_settings([*config_folder_overrides(flags), *overrides])
    if settings["dataset"].get("make") and "--cfg" not in flags:
        from demo.synthetic import make_on_first_use

        make_on_first_use(settings)
    if any(flag in ("-m", "--multirun") for flag in flags):
        # A cluster job starts from another script and must find the modules of this folder.
        paths = [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    sys.argv = [sys.argv[0], *flags, *overrides, root_override()]
    conf = str(FOLDER / "conf")
    hydra.main(version_base=None, config_path=conf, config_name="config")(run_job)()


if __name__ == "__main__":
    main()
