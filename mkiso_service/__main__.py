"""The command line, as `mkiso` and as `python -m mkiso_service`."""

import os
import sys


def main() -> None:
    """Run it with nothing imported from the folder in which the program, or who starts it, stands."""
    _fill_standard_streams()
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


def _fill_standard_streams() -> None:
    """Where who starts it has closed some of them, a file of ours would be opened in their place, such as an image that
    comes, and a library would write its warnings into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: that which it had
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


if __name__ == "__main__":
    main()
