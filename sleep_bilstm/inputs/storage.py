"""How epochs are cut and stored: settings that every shard of a folder shares, and their flags."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.faults import add_cluster_flag
from common.files import Parser
from inputs.preprocess import EDGES, NORMALIZATIONS
from inputs.states import EPOCH_S

# data
PATTERN = "*.mat"
SECONDS = EPOCH_S  # 1 to 30
DOWNSAMPLE = 1  # 1, 2 or 4: block average before normalisation
# normalisation
NORMALIZATION = "temporal"  # temporal, spatial, minmax, none
EDGE = "zeros"  # zeros, drop, reflect: what stands for a missing neighbour beyond 10 s
ARTIFACT_NEIGHBOURS = "use"  # use, zeros
UNKNOWN = "error"  # error, drop: an unknown code in scoringindex_file
CODES = ""  # meaning of the codes, "1=REM,2=wake,3=NREM"; empty: 0 wake, 1 NREM, 2 artifact, 3 REM
# storage
DTYPE = "float32"  # float32, float16
LAYOUT = "masked"  # masked, dense
COMPRESSION = "none"  # none, gzip
WORKERS = 1


@dataclass(frozen=True)
class Storage:
    """Settings that every shard of a folder shares; stored in dataset.json."""

    seconds: int = SECONDS
    normalization: str = NORMALIZATION
    edge: str = EDGE
    artifact_neighbours: str = ARTIFACT_NEIGHBOURS
    unknown: str = UNKNOWN
    codes: str = CODES
    downsample: int = DOWNSAMPLE
    dtype: str = DTYPE
    layout: str = LAYOUT
    compression: str = COMPRESSION
    reference_format: bool = False


@dataclass(frozen=True)
class Conversion:
    """What a call of create converts, and how it treats what is there.

    Attributes:
        mice: date codes, tags or <date>-<tag>; all when empty.
        pattern: file name pattern of the recordings.
        mask_file: brain mask for recordings without one.
        workers: recordings converted at the same time.
        cluster: text of --cluster, "" for this machine.
        overwrite: replace what is there.
        resume: skip complete shards.
    """

    mice: Sequence[str] = ()
    pattern: str = PATTERN
    mask_file: Path | None = None
    workers: int = WORKERS
    cluster: str = ""
    overwrite: bool = False
    resume: bool = False


def build_parser(description: str, seconds: int = SECONDS) -> Parser:
    """Return the command line; ``seconds`` is the default length of an input."""
    parser = Parser(description=description)
    add = parser.add_argument
    add(
        "--data_path", type=Path, required=True, help="folder with recordings, searched recursively"
    )
    add("--des_path", type=Path, required=True, help="folder to write")
    add(
        "--mice",
        nargs="+",
        default=[],
        help="date codes, tags or <date>-<tag> to convert; all when absent",
    )
    add("--pattern", default=PATTERN, help="file name pattern of the recordings")
    add("--seconds", type=int, default=seconds, help="length of an input in s, 1 to 30")
    add(
        "--normalization",
        choices=NORMALIZATIONS,
        default=NORMALIZATION,
        help="z-score per pixel or per frame, ...",
    )
    add("--edge", choices=EDGES, default=EDGE, help="missing neighbour beyond 10 s")
    add(
        "--artifact_neighbours",
        choices=("use", "zeros"),
        default=ARTIFACT_NEIGHBOURS,
        help="artifacts as neighbours",
    )
    add("--unknown", choices=("error", "drop"), default=UNKNOWN, help="epochs with an unknown code")
    add("--codes", default=CODES, help="meaning of the scores, such as 1=REM,2=wake,3=NREM")
    add("--downsample", type=int, choices=(1, 2, 4), default=DOWNSAMPLE, help="block average")
    add("--dtype", choices=("float32", "float16"), default=DTYPE, help="type of the stored values")
    add("--layout", choices=("masked", "dense"), default=LAYOUT, help="masked pixels only, or all")
    add(
        "--compression",
        choices=("none", "gzip"),
        default=COMPRESSION,
        help="of the signals of each record",
    )
    add("--reference_format", action="store_true", help="write the published one file per epoch")
    add(
        "--mask",
        type=Path,
        default=None,
        help="file with xform_mask or parcelisbrain, for recordings without a mask",
    )
    add("--workers", type=int, default=WORKERS, help="recordings converted at the same time")
    add_cluster_flag(parser)
    add("--overwrite", action="store_true", help="replace what is there")
    add("--resume", action="store_true", help="skip complete shards")
    add("--debug", action="store_true", help="show the traceback of a fault")
    return parser
