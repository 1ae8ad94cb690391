"""`python -m service COMMAND` is `mkiso COMMAND`, for processes that are started with this interpreter."""

from service.cli import main

if __name__ == "__main__":
    main()
