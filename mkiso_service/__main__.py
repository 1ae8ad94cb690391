"""`python -m mkiso_service`: the command line, with nothing imported from the working folder."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path.pop(0)
    from mkiso_service.cli.main import run

    sys.exit(run())
