"""`python -m fgdd_fast` is the command `fgdd-fast`."""

from fgdd_fast.cli import main

main()
