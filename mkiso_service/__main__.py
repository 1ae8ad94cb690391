"""`python -m mkiso_service`: the command line, as `mkiso serve` starts its processes."""

from mkiso_service.cli import main

main()
