"""What the pool and a worker say to each other: questions, several on a line, and one JSON value a line as answers,
checked on arrival. A decoder that was taken over can send nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from mkiso.pictures.values import Decompressed, DecompressRequest, NotShown, ObjectFacts, Picture, PictureRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may take: seconds for each frame, of the processor and in all, memory (address space) in MiB, and
    MiB for each file that it writes. `spare_mib` stay free on the disk, for whoever asked to say how it ended.

    It reads files beneath `reads` and writes beneath `writes`, both of which are there when it starts, as
    mkiso.pictures.confinement has it.

    It dies of its own alarm; one that can't even do that is killed `grace_seconds` later. The largest frames take about
    five seconds of a processor, which on a busy machine may be minutes.
    """

    cpu_seconds: float = 60
    seconds: float = 300
    grace_seconds: float = 10
    memory_mib: int = 768
    file_mib: int = 128
    spare_mib: int = 4
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()


DECOMPRESSING = Limits(file_mib=4096)
"""A file holds all the frames of an object."""


@dataclass(frozen=True, slots=True)
class Question:
    """`spread`: see mkiso.pictures.render.render."""

    request: PictureRequest | DecompressRequest
    spread: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that a worker says: an object's facts, a frame, how many frames are decompressed and what they are,
    that a question is done, or with nothing set that it is there.

    `failed` is the errno of a fault that isn't the object's, such as a full disk.
    """

    facts: ObjectFacts | None = None
    picture: Picture | None = None
    not_shown: NotShown | None = None
    frames: int = 0
    decompressed: Decompressed | None = None
    done: bool = False
    failed: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether it ends the answers to a question."""
        return self.done or self.failed is not None


QUESTIONS: TypeAdapter[tuple[Question, ...]] = TypeAdapter(tuple[Question, ...])
ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
LIMITS: TypeAdapter[Limits] = TypeAdapter(Limits)
