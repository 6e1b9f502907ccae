"""Draw subject maps over a frame of the recording: three states side by side, one row per mouse.

Python port of the published plot_gradcam.m and overlay_heatmap_gradcam.m; specification section
8.5.
    python plot_gradcam.py --folder ../results/sleep_bilstm/run/gradcam/maps --mice 200128
    python plot_gradcam.py --folder MAPS --mice 191030 201125 --opacity 0.4 --colour_bar
Reads `<mouse>_avg[_hemis]_label<c>.mat` (subject_avg_gradcam H x W, example_data F x H x W).
Writes PNG and PDF.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import InputError, Parser, one_line_faults


def __getattr__(name):
    """Return what users import from this script; it lives in analysis/map_figures.py."""
    return getattr(importlib.import_module("analysis.map_figures"), name)


def build_parser() -> Parser:
    """Return the command line."""
    from analysis.figure_scripts import add_figure_flags
    from analysis.map_figures import COLOUR_MAP, FRAME, OPACITY

    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="folder with the .mat maps")
    parser.add_argument("--mice", nargs="+", required=True, help="date codes, one row each")
    parser.add_argument("--frame", type=int, default=FRAME, help="1-based background frame")
    parser.add_argument("--opacity", type=float, default=OPACITY, help="opacity of the map, 0 to 1")
    parser.add_argument(
        "--hemisphere",
        choices=("yes", "no"),
        help="maps of half a frame, where both kinds lie there",
    )
    parser.add_argument(
        "--colour_map", default=COLOUR_MAP, help="matplotlib colour map; published: jet"
    )
    parser.add_argument("--colour_bar", action="store_true", help="draw a colour bar")
    parser.add_argument(
        "--signed", action="store_true", help="draw the values, around 0 (maps of --mode occlusion)"
    )
    parser.add_argument(
        "--atlas", type=Path, default=None, help="AtlasandIsbrain.mat: draw its outlines"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="PNG to write; gradcam.png in the folder when absent"
    )
    return add_figure_flags(parser)


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Draw the maps of the given mice."""
    args = build_parser().parse_args(argv)
    from analysis.figure_scripts import present
    from analysis.map_figures import check_colour_map, read_maps, save_maps_figure

    if args.frame < 1:
        raise InputError(f"frame is {args.frame}: expected 1 or more")
    if not 0 <= args.opacity <= 1:
        raise InputError(f"opacity is {args.opacity:g}: expected 0 to 1")
    check_colour_map(args.colour_map)
    if not args.folder.is_dir():
        raise InputError(f"{args.folder}: no such folder; expected maps of main.py --mode gradcam")
    half = None if args.hemisphere is None else args.hemisphere == "yes"
    maps, examples = read_maps(args.folder, args.mice, hemisphere=half)
    outlines = None
    if args.atlas:
        from analysis.atlas import fit_to, read_atlas

        shape = next(iter(next(iter(maps.values())).values())).shape
        outlines = fit_to(read_atlas(args.atlas).parcels, *shape)
    look = {
        "frame": args.frame,
        "opacity": args.opacity,
        "colour_map": args.colour_map,
        "colour_bar": args.colour_bar,
        "outlines": outlines,
        "signed": args.signed,
    }
    path = save_maps_figure(maps, examples, args.out or args.folder / "gradcam.png", **look)
    present([path], args.show)


if __name__ == "__main__":
    main()
