"""`python -m benchmarks` compares all; `python -m benchmarks NAME` is another measurement."""

import importlib
import sys

from als.errors import InputError

# Each is the function of its name in a module, which most have alone.
COMMANDS = """
    compare growth export_speed app_latency app_screenshots load kill_resume memory_flat
    training_options training_cost gpu_check ablation_maps attack checks coco_example masks
    mask_sources faults focus smuggle tradeoff
""".split()
SHARED = {"app_latency": "app", "app_screenshots": "app", "coco_example": "checks"}
SHARED |= {"kill_resume": "reliability", "memory_flat": "reliability"}


def main(arguments: list[str] | None = None) -> None:
    """Run the command that is named first, `compare` if none is."""
    given = sys.argv[1:] if arguments is None else arguments
    name = given[0] if given and not given[0].startswith("-") else "compare"
    if name not in COMMANDS:
        sys.exit(f"{name}: no such benchmark; choose one of {', '.join(COMMANDS)}.")
    command = getattr(importlib.import_module(f"benchmarks.{SHARED.get(name, name)}"), name)
    try:
        command(given[given[:1] == [name] :])
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
