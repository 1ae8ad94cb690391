"""The command line, as `mkiso` and as `python -m mkiso_service`."""

import sys


def main() -> None:
    """Run it with nothing imported from the folder in which the program, or who starts it, stands."""
    if not sys.flags.safe_path:
        sys.path.pop(0)
    try:
        from mkiso_service.cli.main import run
    except KeyboardInterrupt:  # what is imported takes a moment, in which nobody else hears it
        sys.exit("Stopped.")
    sys.exit(run())


if __name__ == "__main__":
    main()
