"""The command line `als`: thin, each command one call into the package.

A command imports what it needs when it runs, so that `als --help` answers at once.
"""

import sys

from als.cli.app import app
from als.cli.data import data
from als.cli.evaluate import evaluate, predict
from als.cli.export import export
from als.cli.reproduce import reproduce
from als.cli.study import study
from als.cli.tables import tables
from als.cli.train import ship, train
from als.errors import InputError
from als.machine import keep_freed_memory

COMMANDS = {
    run.__name__: run
    for run in (train, evaluate, predict, study, reproduce, tables, data, app, ship, export)
}
COMPUTE = ("train", "evaluate", "predict", "study", "reproduce")  # and end; the app stays


def main(arguments: list[str] | None = None) -> None:
    """Run one command; bad input ends with one sentence on stderr and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print("als COMMAND ... (als COMMAND --help tells more)\n")
        for name, run in COMMANDS.items():
            print(f"  {name:<10}{run.__doc__}")
        return
    if arguments[0] in COMPUTE:
        keep_freed_memory()
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(f"'{arguments[0]}' is no command; there are {', '.join(COMMANDS)}.")
        COMMANDS[arguments[0]](arguments[1:])
    except InputError as error:
        print(f"als: {error}", file=sys.stderr)
        sys.exit(2)
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        print(f"als: {error.filename}: {error.strerror}; give another place.", file=sys.stderr)
        sys.exit(2)
