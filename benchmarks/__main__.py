"""`python -m benchmarks` compares all; `python -m benchmarks NAME` is another measurement."""

import importlib
import sys

from als.errors import InputError

# Each is the function of its name in a module.
COMMANDS = {
    "compare": "compare",
    "memory": "memory",
    "growth": "growth",
    "export_speed": "export_speed",
    "app_latency": "app",
    "app_screenshots": "app",
    "load": "load",
    "kill_resume": "reliability",
    "memory_flat": "reliability",
    "training_options": "training_options",
    "training_cost": "training_cost",
    "gpu_check": "gpu_check",
    "ablation_maps": "ablation_maps",
    "attack": "attack",
    "checks": "checks",
    "coco_example": "checks",
    "masks": "masks",
    "mask_sources": "mask_sources",
    "faults": "faults",
    "focus": "focus",
    "smuggle": "smuggle",
    "tradeoff": "tradeoff",
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command that is named first, `compare` if none is."""
    given = sys.argv[1:] if arguments is None else arguments
    name = given[0] if given and not given[0].startswith("-") else "compare"
    if name not in COMMANDS:
        sys.exit(f"{name}: no such benchmark; choose one of {', '.join(COMMANDS)}.")
    command = getattr(importlib.import_module(f"benchmarks.{COMMANDS[name]}"), name)
    try:
        command(given[given[:1] == [name] :])
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
