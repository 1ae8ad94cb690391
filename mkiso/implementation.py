"""Who we are to other implementations: what PS3.7 D.3.3.2 and the File Meta Information (PS3.10 7.1) ask for."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

IMPLEMENTATION_CLASS_UID = "2.25.172548372753690984048334091932896198021"  # PS3.5 B.2: a UID made from a UUID
IMPLEMENTATION_VERSION_NAME = "MKISO_1"


@cache
def program_version() -> str:
    """Which mkiso this is, in words."""
    try:
        return version("mkiso")
    except PackageNotFoundError:  # run from a checkout
        return "(not installed)"
