"""`als export`: the detector as one file for other programs."""

from pathlib import Path

from jsonargparse import ArgumentParser


def export(arguments: list[str]) -> None:
    """For other programs: als export CHECKPOINT --format onnx|torchscript|pt2 [--size H W]"""
    parser = ArgumentParser(prog="als export", description=export.__doc__)
    parser.add_argument("checkpoint", type=Path, help="or 'shipped' for the one in the package")
    parser.add_argument("--format", choices=["onnx", "torchscript", "pt2"], default="onnx")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="pixels of the images that will come; default: the network's min_size and max_size",
    )
    parser.add_argument("--out", type=Path, help="default: <checkpoint's name>.<format>, here")
    given = parser.parse_args(arguments)

    from als.errors import InputError
    from als.export import export as run
    from als.export import photographs
    from als.inference import load

    predictor = load(given.checkpoint)
    config = predictor.detector.config
    size = tuple(given.size or (config.min_size, config.max_size))
    if min(size) < 32:
        raise InputError(f"--size {size[0]} {size[1]}: give sides of at least 32 pixels.")
    out = given.out or Path(f"{Path(predictor.source).stem}.{given.format}")
    difference = run(predictor.detector, out, given.format, size)
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, for images of {size[0]} x {size[1]} pixels "
        f"(height x width); differs from PyTorch by at most {difference:.1g} on "
        f"{len(photographs(size))} photographs"
    )
