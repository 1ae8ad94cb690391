"""When a disc is asked for of what was sent, and what an archive's answer means for it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from mkiso.config.inboxes import Inbox
from mkiso.errors import InstanceConflict, NotArchived, StudyGrown, StudyIncomplete
from mkiso.receiver.pushed import Ask, Pushed
from mkiso.study.models import Study, images_words

Step = Literal["rest", "wait", "ask", "start"]
NAMED_UIDS = 5


@dataclass(frozen=True, slots=True)
class View:
    """What is known of a study in an inbox. `quiet_seconds` is how long nothing came, `pushed` when something came
    last, in seconds since the epoch. `agrees`: the archive lists what was sent, as far as the inbox needs it to.
    """

    pushed_fingerprint: str
    quiet_seconds: float
    pushed: float
    asked: tuple[Ask, ...] = ()
    agrees: bool = False


def next_step(view: View, rules: Inbox) -> Step:
    """`rest`: nothing is to be done until more comes. `wait`: look again. `ask` the archive. `start` a job.

    What came to nothing is tried again where it is sent again; what was made isn't made again.
    """
    last = view.asked[-1] if view.asked else None
    if not view.pushed_fingerprint:
        return "rest"
    if last is not None and not last.ended:
        return "wait"
    if (
        last is not None
        and last.fingerprint == view.pushed_fingerprint
        and (last.ended == "done" or view.pushed <= last.time)
    ):
        return "rest"
    if view.quiet_seconds < rules.quiet_seconds:
        return "wait"
    if rules.ask == "none" or view.agrees or view.quiet_seconds >= rules.wait_minutes * 60:
        return "start"
    return "ask"


def made_before(asked: Sequence[Ask]) -> str:
    """The job that has made a disc of the study, empty where none has."""
    return next((ask.job_id for ask in reversed(asked) if ask.ended == "done"), "")


def key_of(inbox: str, study_instance_uid: str, wanted: Ask) -> str:
    """Of one job: what was sent, and which ask it is."""
    return f"{inbox}:{study_instance_uid}:{wanted.fingerprint}:{wanted.nonce}"


@dataclass(frozen=True, slots=True)
class Compared:
    """The SOP Instance UIDs that the archive lists and that don't lie here, and those that came and that it doesn't
    list.
    """

    missing: frozenset[str]
    unarchived: frozenset[str]


def compared(pushed: Pushed, study: Study) -> Compared:
    """What was sent beside what the archive has; where it tells no list, by number alone nothing can be named."""
    listed = study.expected.instances
    if listed is None:
        return Compared(frozenset(), frozenset())
    return Compared(listed - pushed.uids, pushed.came - listed)


def agrees(pushed: Pushed, studies: Sequence[Study], rules: Inbox) -> bool:
    """Whether nothing more is to be waited for: the archive lists what was sent, and what it has beyond that was sent
    too or may be fetched from it.
    """
    if len(studies) != 1:
        return False
    [study] = studies
    count = study.expected.count
    if count is None or count < len(pushed.came) or compared(pushed, study).unarchived:
        return False
    return rules.fetch or _lacking(pushed, study) <= 0


def _lacking(pushed: Pushed, study: Study) -> int:
    """How many images the archive has that don't lie here, as far as it tells: by its list, else by its count."""
    count = study.expected.count
    return len(compared(pushed, study).missing) or (0 if count is None else count - len(pushed.instances))


def require_archived(pushed: Pushed, studies: Sequence[Study]) -> None:
    """Raise NotArchived where the archive doesn't list all that came, or counts fewer. One that tells neither says
    nothing: require_retrieved does.
    """
    unarchived = [uid for study in studies for uid in sorted(compared(pushed, study).unarchived)]
    if not studies:
        raise _not_archived(pushed, "knows no study, and so doesn't list any of", len(pushed.came))
    if unarchived:
        raise _not_archived(pushed, f"doesn't list {len(unarchived)} of", len(unarchived), unarchived)
    for study in studies:
        if study.expected.count is not None and study.expected.count < len(pushed.came):
            lacking = len(pushed.came) - study.expected.count
            raise _not_archived(pushed, f"has {study.expected.count} images of the study, and not", lacking)


def require_retrieved(pushed: Pushed, uids: Collection[str]) -> None:
    """Raise NotArchived where something that came isn't among what the disc would hold (`uids`): what an archive
    counts without listing it may be others.
    """
    if absent := sorted(pushed.came.difference(uids)):
        raise _not_archived(pushed, f"didn't give {len(absent)} of", len(absent), absent)


def _not_archived(pushed: Pushed, words: str, count: int, uids: Sequence[str] = ()) -> NotArchived:
    return NotArchived(
        f"The PACS {words} the {images_words(len(pushed.came))} sent to {pushed.inbox}: no disc was made, since "
        "nobody can say that they are all. Send the study to the PACS, then to this inbox again.",
        unarchived=count,
        unarchived_sop_instance_uids=list(uids[:NAMED_UIDS]),
    )


def require_sent(pushed: Pushed, study: Study, rules: Inbox, before: int) -> None:
    """Raise StudyIncomplete where the archive has what nobody sent, and InstanceConflict where two different images
    came under one UID, unless it may be fetched from there. `before`: of how many images a disc was asked for before;
    where no archive is asked, fewer are there only because they aren't kept any more.
    """
    if rules.ask == "pacs" and rules.fetch:
        return
    if pushed.conflicts:
        raise InstanceConflict(
            f"Different images came to {pushed.inbox} under one SOP Instance UID, so nobody can say which one belongs "
            "on the disc. Ask for the disc at the counter, from the PACS.",
            sop_instance_uid=min(pushed.conflicts),
        )
    gone = max(len(pushed.gone), before - len(pushed.instances))
    if rules.ask == "none" and gone > 0:
        raise StudyIncomplete(
            f"{gone} images of this study came to {pushed.inbox} before, and aren't kept any more: no disc was made "
            f"of the {len(pushed.instances)} that are. Send the whole study again.",
            expected=len(pushed.instances) + gone,
            missing=gone,
        )
    lacking = _lacking(pushed, study)
    if rules.ask == "pacs" and lacking > 0:
        count = study.expected.count
        raise StudyIncomplete(
            f"{lacking} of the {count} images that the PACS has were not sent to {pushed.inbox}: no disc was made. "
            "Send the whole study again.",
            expected=count,
            missing=lacking,
            missing_sop_instance_uids=sorted(compared(pushed, study).missing)[:NAMED_UIDS],
        )


def may_make_again(rules: Inbox, after: str, inbox: str) -> None:
    """Raise StudyGrown where a disc was made before and the rules want no second one."""
    if after and rules.again == "no":
        raise StudyGrown(
            f"More images of this study came to {inbox} after its disc was made: that disc lacks them, and no other "
            "was made. Ask for a new disc at the counter.",
            made_by=after,
        )
