"""The names of pictures: 8.3, of `A-Z 0-9` alone, so that they are the same in every file system (Ecma-119 10.1)."""

from __future__ import annotations

PICTURE, THUMBNAIL, SCRIPT = "P", "T", "D"
LAST_NUMBER = 9_999_999


def picture_name(letter: str, number: int) -> str:
    """`P0000001.JPG`: a letter for what it shows and the number of the frame in its folder; a SCRIPT is `D0000001.JS`.

    Raises ValueError beyond 9,999,999.
    """
    if not 1 <= number <= LAST_NUMBER:
        raise ValueError(f"{number} is more than the names of pictures can count")
    return f"{letter}{number:07d}.{'JS' if letter == SCRIPT else 'JPG'}"


def names_of(number: int) -> tuple[str, ...]:
    """Every name that a frame may have been written under."""
    return tuple(picture_name(letter, number) for letter in (PICTURE, THUMBNAIL, SCRIPT))
