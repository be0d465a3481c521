"""`als data`: make, check, convert and download data sets."""

from pathlib import Path

from jsonargparse import ArgumentParser


def data(arguments: list[str]) -> None:
    """Data sets: als data toy|check|to-coco|prepare ... (als data ACTION --help tells more)"""
    parser = ArgumentParser(prog="als data", description=data.__doc__)
    parser.add_argument("action", choices=list(ACTIONS))
    given = parser.parse_args(arguments[:1])
    ACTIONS[given.action](arguments[1:])


def toy(arguments: list[str]) -> None:
    """Write a drawn data set in the VOC layout: als data toy DIR"""
    parser = ArgumentParser(prog="als data toy", description=toy.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=24, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the drawings")
    given = parser.parse_args(arguments)

    from als.data.toy import write_toy

    write_toy(given.folder, given.images, given.seed)
    print(f"{given.folder}: {given.images} drawn images in the VOC layout")


def check(arguments: list[str]) -> None:
    """Name every broken file of a data set in VOC's or COCO's layout: als data check DIR"""
    parser = ArgumentParser(prog="als data check", description=check.__doc__)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)

    from als.data.check import check_folder

    _tell(check_folder(given.folder, tell=print), given.folder)


def to_coco(arguments: list[str]) -> None:
    """Write a VOC-layout folder in COCO's: als data to-coco DIR --splits train val --out NEW"""
    parser = ArgumentParser(prog="als data to-coco", description=to_coco.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=str, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args(arguments)

    from als.data.convert import to_coco as convert

    for split, images in convert(given.folder, given.splits, given.out).items():
        print(f"{given.out}:{split}: {images} images in COCO's layout")


def prepare(arguments: list[str]) -> None:
    """Download and unpack a data set: als data prepare voc07+12|sbd|coco2017 DIR"""
    parser = ArgumentParser(prog="als data prepare", description=prepare.__doc__)
    parser.add_argument("name", type=str)
    parser.add_argument("folder", type=Path, help="the data root")
    given = parser.parse_args(arguments)

    from als.data.prepare import prepare as run

    _tell(run(given.name, given.folder), given.folder)


ACTIONS = {"toy": toy, "check": check, "to-coco": to_coco, "prepare": prepare}


def _tell(problems, folder: Path) -> None:
    """The table of `check_folder`; raises InputError when it is not empty."""
    from als.data.check import refuse_problems

    refuse_problems(problems, folder)
    print(f"{folder}: no broken file")
