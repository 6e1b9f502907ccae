"""The recipe of a data set: how its movies and their flow were made, and how they are scaled.

A number in a movie means something only together with it. The recipe is read where a data set or
a model is opened, printed once, stored with what comes of it, and compared by its hash: manifest,
linked split, training, resume, prediction and pictures must agree. How movies are made is compared
(``making``); the scale is the weights' own, so a data set may have another one.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from common.files import InputError, read_json, write_json
from inputs.flow import flow_unit
from inputs.scaling import FLOW_STREAM, GREY_STREAM, RAW, names_sha256
from inputs.storage import Scaling
from inputs.utils import checked_stats, read_stats
from settings import FLOW_UNITS

UNIT_WORDS = dict(
    zip(
        FLOW_UNITS,
        ("full-size pixels per frame", "full-size pixels per second", "cm/s"),
        strict=True,
    )
)


def options_hash(options: dict) -> str:
    """Return 12 hexadecimal digits over how a movie or its flow is made, without its storage."""
    made = {name: value for name, value in options.items() if name != "store"}
    return _hash(made)


def _hash(value):
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a stream before z-scoring, and the movies behind them."""

    mean: float
    std: float
    files: str  # all, or train split N
    movies_sha256: str | None  # of names and moments of these movies; None: an older file
    names_sha256: str | None = None  # of their names; None: an older file

    @classmethod
    def of(cls, stats: dict) -> "Scale":
        """Return the scale in the content of a data_mean_std*.json."""
        told = (stats.get(name) for name in ("movies_sha256", "names_sha256"))
        return cls(float(stats["mean"]), float(stats["std"]), stats.get("files", "unknown"), *told)


@dataclass(frozen=True)
class Recipe:
    """How the movies of a data set were made; None where a file of an older run does not tell."""

    crop: str | None  # none, region or sector
    grey: str | None  # weights of the colours: luma or reference
    resample_fps: float | None  # frames/s after interpolation in time; 0: as recorded
    nrows: int | None  # pixels
    ncols: int | None  # pixels
    # Rows, columns at which flow is computed; None: full size; a pixel's size, as 1.5mm.
    flow_size: tuple[int, int] | str | None
    flow_unit: str  # px_per_frame, px_per_s (both of the full-size picture) or cm_per_s
    farneback: tuple[tuple[str, float], ...]  # the method's six numbers
    frame_rate: float  # of files that tell none, frames/s; 0: unknown stays unknown
    grey_scale: Scale
    flow_scale: Scale
    store: str  # compact or float32
    raw: bool  # stored movies are raw; False: z-scored by an older version
    origin: str  # the files it was read from

    @classmethod
    def of_stats(cls, grey: dict, flow: dict, origin: str) -> "Recipe":
        """Return the recipe in the contents of data_mean_std.json and data_mean_std_OF.json."""
        options = {**grey["options"], **flow["options"]}
        names = ("crop", "grey", "resample_fps", "nrows", "ncols")
        size = options.get("flow_size")
        return cls(
            **{name: options.get(name) for name in names},
            flow_size=tuple(size) if isinstance(size, list) else size,
            flow_unit=flow_unit(options),
            farneback=tuple(sorted(options.get("farneback", {}).items())),
            frame_rate=options.get("frame_rate") or 0.0,
            grey_scale=Scale.of(grey),
            flow_scale=Scale.of(flow),
            store=options.get("store", "float32"),
            raw=grey.get("values") == RAW,
            origin=origin,
        )

    @classmethod
    def of_root(cls, root: Path) -> "Recipe":
        """Return the recipe of a data set, from its data_mean_std*.json.

        Raises:
            InputError: grey movies and flow were made or scaled on different movies.
        """
        root = Path(root)
        grey = read_stats(root / GREY_STREAM.stats_file, remedy="run preprocess.py")
        flow = read_stats(root / FLOW_STREAM.stats_file, remedy="run optical_flow_calculator.py")
        _check_pair(root, grey, flow)
        return cls.of_stats(grey, flow, f"file: {root / GREY_STREAM.stats_file} and _OF")

    @classmethod
    def of_weights(cls, info: dict, weights: Path) -> "Recipe | None":
        """Return the recipe stored with a model, or None where none is stored."""
        if "grey_stats" not in info or "of_stats" not in info:
            return None
        stats = [
            checked_stats(f"{weights}: {key} of its JSON", info[key], "train it again")
            for key in ("grey_stats", "of_stats")
        ]
        return cls.of_stats(*stats, f"file: JSON of {Path(weights).name}")

    def _made(self):
        """Return what decides how movies are made, by name."""
        values = asdict(self)
        for name in ("origin", "store", "raw", "grey_scale", "flow_scale"):
            del values[name]
        return values

    @property
    def making(self) -> str:
        """Return 12 hexadecimal digits over how movies are made, without their scale."""
        return _hash(self._made())

    @property
    def hash(self) -> str:
        """Return 12 hexadecimal digits over everything that changes a number of a movie."""
        # The two numbers follow from the movies; older files do not name these.
        scales = [{"mean": s.mean, "std": s.std} for s in (self.grey_scale, self.flow_scale)]
        made = self._made()
        if not self.raw:
            # As the versions computed it that z-scored movies on disk: their runs go on.
            made["per_second"] = made.pop("flow_unit") == FLOW_UNITS[1]
            del made["frame_rate"]
            return _hash(made | dict(zip(("grey_scale", "flow_scale"), scales, strict=True)))
        return _hash([made, scales])

    def line(self) -> str:
        """Return the recipe in words, for the start of a run."""
        size = self.flow_size or "full size"
        if isinstance(size, tuple):
            size = "{} x {}".format(*size)
        elif self.flow_size:
            size += " a pixel, between the frames as recorded,"
        rate = f"{self.resample_fps:g} frames/s" if self.resample_fps else "frame rate as recorded"
        grey, flow = self.grey_scale, self.flow_scale
        return (
            f"recipe {self.hash} ({self.origin}): crop {self.crop}, grey {self.grey}, {rate}, "
            f"{self.nrows} x {self.ncols} pixels, flow at {size} in {UNIT_WORDS[self.flow_unit]}; "
            f"grey {grey.mean:.4g} +- {grey.std:.4g}, flow {flow.mean:.4g} +- {flow.std:.4g} "
            f"over movies: {grey.files}"
        )

    def differences(self, other: "Recipe") -> list[str]:
        """Return what of the making differs, as ``name here -> there``; scales are left out."""
        here, there = self._made(), other._made()
        return [f"{n} {here[n]} -> {there[n]}" for n in here if here[n] != there[n]]

    def scaling(self, model: "Recipe | None" = None) -> dict[str, Scaling] | None:
        """Return {stream: what turns stored values into the inputs of ``model``}.

        Args:
            model: recipe of the weights; None: the data set's own scale, for training.

        Returns:
            None where stored values are the inputs: z-scored on disk, and scaled alike.
        """
        model = model or self
        compact = model.store == "compact"
        pairs = {
            "grey": (self.grey_scale, model.grey_scale),
            "of": (self.flow_scale, model.flow_scale),
        }
        if self.raw:
            return {
                n: Scaling.zscore(b.mean, b.std, compact=compact) for n, (_, b) in pairs.items()
            }
        if all((a.mean, a.std) == (b.mean, b.std) for a, b in pairs.values()):
            return None
        return {n: Scaling(a.std / b.std, (a.mean - b.mean) / b.std) for n, (a, b) in pairs.items()}


def _check_pair(root, grey, flow):
    """Raise InputError when the two streams were not made and measured together."""
    shared = [name for name in grey["options"] if name in flow["options"] and name != "store"]
    changed = [
        f"{name} {flow['options'][name]} -> {grey['options'][name]}"
        for name in shared
        if flow["options"][name] != grey["options"][name]
    ]
    if changed:
        raise InputError(
            f"{root}: flow was made otherwise than the grey movies ({', '.join(changed)}); run "
            "optical_flow_calculator.py --recalculate"
        )
    files = [stats.get("files") for stats in (grey, flow)]
    names = [stats.get("names_sha256") for stats in (grey, flow)]
    if files[0] != files[1] or (None not in names and names[0] != names[1]):
        same = " other" if files[0] == files[1] else ""
        raise InputError(
            f"{root}: mean and deviation of grey are over movies: {files[0]}, those of flow over"
            f"{same} movies: {files[1]}; run preprocess.py and optical_flow_calculator.py with "
            "the same --stats and --splitnum"
        )


def split_recipe_file(root: Path, splitnum: int | str) -> Path:
    """Return the path of the JSON that names the recipe of a split's linked movies."""
    return Path(root) / f"split{splitnum}_recipe.json"


def note_split(root: Path, splitnum: int) -> None:
    """Store the recipe of the movies that a split links; nothing where the data set has none."""
    if all((root / stream.stats_file).exists() for stream in (GREY_STREAM, FLOW_STREAM)):
        recipe = Recipe.of_root(root)
        path, wanted = split_recipe_file(root, splitnum), {"recipe": _linked(recipe)}
        if not path.exists() or read_json(path) != wanted:
            write_json(path, wanted)


def _linked(recipe):
    """Return what a split must share with its data set: z-scored movies carry their scale."""
    return recipe.making if recipe.raw else recipe.hash


def recipe_of_split(root: Path, splitnum: int) -> Recipe:
    """Return the recipe of a data set after comparing it with that of the linked split.

    Raises:
        InputError: the movies were made anew after the split was linked.
    """
    recipe, path = Recipe.of_root(root), split_recipe_file(root, splitnum)
    if not path.exists():
        if recipe.raw:
            raise InputError(
                f"{path}: not found; run split_data.py --root {root} --splitnum {splitnum}"
            )
        return recipe  # splits of older runs do not tell
    linked = read_json(path).get("recipe")
    if linked != _linked(recipe):
        raise InputError(
            f"{path}: split {splitnum} links movies of recipe {linked}, the data set has "
            f"{_linked(recipe)} now; run split_data.py --root {root} --splitnum {splitnum}"
        )
    return recipe


def check_training_scale(recipe: Recipe, root: Path, splitnum: int, stems: list[str]) -> None:
    """Raise InputError when the scale is that of other movies than the training set's.

    Args:
        stems: movies of the training set of ``splitnum``.
    """
    scale = recipe.grey_scale
    if not scale.files.startswith("train"):
        return  # all movies, as published
    remedy = (
        f"run preprocess.py and optical_flow_calculator.py with --stats train --splitnum {splitnum}"
    )
    if scale.files != f"train split {splitnum}":
        raise InputError(
            f"{root}: mean and deviation are over movies: {scale.files}, this is split {splitnum}, "
            f"whose test patients may be among them; {remedy}"
        )
    if scale.names_sha256 not in (None, names_sha256(stems)):
        raise InputError(
            f"{root}: mean and deviation are over other movies than the training set of split "
            f"{splitnum}: the split file or the movies changed; {remedy}"
        )


def fit_to_model(
    root: Path, splitnum: int, info: dict, weights: Path
) -> tuple[Recipe | None, dict[str, Scaling] | None]:
    """Return the recipe of a model and what turns a data set's stored values into its inputs.

    Raises:
        InputError: the movies were made in another way than those of the model's training.
    """
    model, data = Recipe.of_weights(info, weights), recipe_of_split(root, splitnum)
    if model is None:
        print(f"note: {Path(weights).name} names no recipe: the data set's own scale is used")
        return None, data.scaling()
    changed = model.differences(data)
    if changed:
        raise InputError(
            f"{root}: movies made otherwise than those that {weights} was trained on "
            f"({', '.join(changed)}); preprocess this data set with the options of the training"
        )
    print(model.line())
    if model.store == "float32" and data.store == "compact":
        print(
            f"note: {Path(weights).name} was trained on float32 movies, {root} stores uint8 and "
            "float16: probabilities differ from those of single files; --store float32 keeps all"
        )
    return model, data.scaling(model)
