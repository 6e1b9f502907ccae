"""The stages that kill_campaign.py disturbs: command lines on tiny data, in their order.

``{w}`` is the work folder, ``{newest}`` the newest run folder in ``{w}/runs``.
"""

from typing import NamedTuple


class Stage(NamedTuple):
    """One command line of a pipeline."""

    name: str
    command: tuple
    again: tuple = ()  # what goes on after a kill where that is another command
    code: int = 0  # exit code of an undisturbed run (1: a score of tiny data is missed)
    own_folder: bool = False  # every start makes a run folder of its own


HERE = (
    "import sys; sys.path[:0] = ['.', 'tests']; from pathlib import Path; w = Path(sys.argv[1])\n"
)

CSD = f"{HERE}from helpers import tiny_movie\ntiny_movie(w / 'movie.npy')\n"
# main.py writes into results/ only; tests/helpers.py calls what it calls in the same way.
CSD_RUN = (
    "import sys; sys.path[:0] = ['.', 'tests']\n"
    "import main\nfrom common.files import one_line_faults\nfrom helpers import SMALL\n"
    "run = lambda argv: main.run_all(**SMALL | {{'data': '{w}/movie.npy', 'run_dir': '{w}/run',"
    " 'resume': True, 'movie': %r, 'maps': %r, 'n_epochs': 4}}) and 0\n"
    "one_line_faults(run)([])"
)
CSD_STAGES = [
    Stage("resize", ("resize.py", "--video_dir", "{w}/movie.npy", "--output_dir", "{w}/resized",
                     "--new_width", "4", "--new_height", "3", "--number_splits", "2",
                     "--target", "1,1")),
    Stage("onset", ("onset.py", "--data", "{w}/movie.npy", "--frame_rate_hz", "10", "--pixel_um",
                    "44", "--bootstrap", "5", "--out_dir", "{w}/onset")),
    Stage("training", ("-c", CSD_RUN % ("none", False))),
    Stage("movie", ("-c", (CSD_RUN % ("gif", True)).replace("{w}/run", "{w}/run_movie"))),
    Stage("report", ("run_report.py", "--run", "{w}/run_movie")),
]  # fmt: skip

SLEEP = (
    f"{HERE}from demo.synthetic import Plan, make_data_set\n"
    "from common.files import write_json\n"
    "plan = Plan(mice=4, minutes=2, epochs_per_run=6, size=16, snr=2.0, rem_boost=0.7, seed=3)\n"
    "make_data_set(w / 'raw', plan)\n"
    "split = dict(train=['990101', '990102'], val=['990103'], test=['990104'])\n"
    "write_json(w / 'split.json', split)\n"
)
SLEEP_TRAIN = ("main.py", "--mode", "train", "--data_path", "{w}/shards", "--split_file",
               "{w}/split.json", "--split", "mouse", "--num_epochs", "2", "--device", "cpu",
               "--num_filters", "4", "--num_blocks", "2", "--num_rnn_units", "4", "--num_frames",
               "24", "--model_savedir", "{w}/run")  # fmt: skip
# --model_continue refuses a folder in which no epoch was finished.
SLEEP_ON = (
    "import sys; sys.path[:0] = ['.']\nfrom pathlib import Path\nimport main\n"
    "begun = Path(sys.argv[1], 'training_state.h5').is_file()\n"
    "sys.exit(main.main(sys.argv[2:] + ['--model_continue'] * begun))"
)
SLEEP_SHARDS = ("create_tfrecords.py", "--data_path", "{w}/raw", "--des_path", "{w}/shards")
SLEEP_STAGES = [
    Stage("create_tfrecords", SLEEP_SHARDS, again=(*SLEEP_SHARDS, "--resume")),
    Stage("train", SLEEP_TRAIN, again=("-c", SLEEP_ON, "{w}/run", *SLEEP_TRAIN[1:])),
    Stage("predict", ("main.py", "--mode", "predict", "--model_savedir", "{w}/run", "--data_path",
                      "{w}/shards", "--result_savedir", "{w}/predicted", "--device", "cpu")),
]  # fmt: skip

SPARKS = f"{HERE}from helpers import write_ini\nwrite_ini(w / 'a.ini', w / 'data', w)\n"
SPARKS_STAGES = [
    Stage("demo data", ("make_demo_data.py", "--out", "{w}/data", "--movies", "4", "--frames", "24",
                        "--height", "16", "--width", "80", "--rates", "2", "1", "0", "--seed", "3",
                        "--exact")),
    Stage("training", ("training.py", "{w}/a.ini", "--threads", "1"),
          again=("training.py", "{w}/a.ini", "--threads", "1", "--resume")),
    Stage("prediction of four movies",
          ("load_trainings_predict.py", "{w}/a.ini", "--threads", "1", "--ids", "01", "02", "03",
           "04")),
]  # fmt: skip

RVF = (
    f"{HERE}from little import write_data_set\nimport tiny_split\n"
    "for name in ('linked', 'moved'):\n"
    "    write_data_set(w / name, movies=2, rows=64, cols=64)\n"
    "tiny_split.write_split(w / 'tiny')\n"
)
RVF_SIZE = ("--nrows", "32", "--ncols", "32")
RVF_STAGES = [
    Stage("preprocess", ("preprocess.py", "--root", "{w}/linked", *RVF_SIZE)),
    Stage("preprocess --move", ("preprocess.py", "--root", "{w}/moved", "--move", *RVF_SIZE)),
    Stage("flow", ("optical_flow_calculator.py", "--root", "{w}/linked", *RVF_SIZE)),
    Stage("make_splits", ("split_data.py", "--root", "{w}/linked", "--make_splits", "2")),
    Stage("split", ("split_data.py", "--root", "{w}/linked", "--splitnum", "0")),
    Stage("training", (
        "train_twostream.py", "--root", "{w}/tiny", "--ckptdir", "{w}/run", "--splitnum", "0",
        "--model_prefix", "t", "--grey_weights", "none", "--OF_weights", "none", "--lr", "1e-3",
        "--epoch", "2", "--batch_size", "3", "--depth", "18", "--width", "2", "--nframes", "8",
        "--nrows", "32", "--ncols", "32", "--val_clips", "1", "--device", "cpu")),
]  # fmt: skip

STCNN_TRAIN = (
    "train.py", "dataset.ca_path={w}/set/ca_traces", "dataset.mov_path={w}/set/movies",
    "dataset.num_t_pts_prepad=5", "model.network.out_channels=[2,2]",
    "model.network.x_kernel_size=[3,3]", "model.network.x_stride=[1,1]",
    "model.network.x_padding=[1,1]", "model.network.activation=[identity,leaky_relu]",
    "batch_size=9", "device=cpu", "n_epochs=3", "expt_path={w}/runs",
)  # fmt: skip
STCNN_STAGES = [
    Stage("synthetic set",
          ("make_synthetic.py", "--out", "{w}/set", "--stimuli", "tiny", "--neurons", "1")),
    Stage("training", STCNN_TRAIN, again=("train.py", "resume={newest}"), own_folder=True),
    Stage("predictions", ("generate_ca_predictions.py", "--checkpoint", "{newest}", "--stimulus",
                          "flicker", "--out", "{w}/predicted")),
]  # fmt: skip

FOLDERS = {
    "csd_darnn": (CSD, CSD_STAGES),
    "sleep_bilstm": (SLEEP, SLEEP_STAGES),
    "sparks_unet": (SPARKS, SPARKS_STAGES),
    "rvf_twostream": (RVF, RVF_STAGES),
    "stcnn": (HERE, STCNN_STAGES),
}
