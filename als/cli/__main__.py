"""`python -m als.cli`."""

from als.cli import main

main()
