"""`als data`: make, convert and check data sets."""

from pathlib import Path

from jsonargparse import ArgumentParser

from als.errors import InputError


def data(arguments: list[str]) -> None:
    """Data sets: als data toy DIR writes a drawn one; als data check DIR names broken files"""
    parser = ArgumentParser(prog="als data", description=data.__doc__)
    parser.add_argument("action", choices=["toy", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=24, help="toy: how many")
    parser.add_argument("--seed", type=int, default=0, help="toy: of the drawings")
    given = parser.parse_args(arguments)
    if given.action == "toy":
        from als.data.toy import write_toy

        write_toy(given.folder, given.images, given.seed)
        print(f"{given.folder}: {given.images} drawn images in the VOC layout")
        return
    from als.data.check import check_folder

    problems = check_folder(given.folder)
    if len(problems):
        print(problems.to_string(index=False))
        raise InputError(f"{given.folder}: {len(problems)} problems, see the table above.")
    print(f"{given.folder}: no broken file")
