"""The command line, as `mkiso` and as `python -m mkiso_service`."""

import sys


def main() -> None:
    """Run it with nothing imported from the folder in which the program, or who starts it, stands."""
    if not sys.flags.safe_path:
        sys.path.pop(0)
    try:
        from mkiso_service.cli.main import run
        from mkiso_service.cli.terminal import OutputLost, give_up, prepare
    except KeyboardInterrupt:  # what is imported takes a moment, in which nobody else hears it
        sys.exit("Stopped.")
    prepare()
    try:
        code = run()
        if sys.stdout:
            sys.stdout.flush()
    except OutputLost as lost:
        code = give_up(lost)
    sys.exit(code)


if __name__ == "__main__":
    main()
