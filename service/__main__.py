"""`python -m service`: the command line, as `mkiso serve` starts its processes."""

from service.cli import main

main()
