"""What can go wrong, as types: the type decides the retry, the HTTP status and the message that people read.

The words of an error hold no patient's name, birth date or ID: they reach logs and Prefect's database. An accession
number may stand there.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import ClassVar

LONGEST_LINE = 10_000
"""Characters of an error that is read back: a hundred accession numbers fit."""


class MkisoError(Exception):
    """Base of every error that mkiso raises on purpose.

    `words` says what happened and what to do, in one or two sentences. `details` are plain JSON values (counts,
    accession numbers, UIDs). `meaning` and `remedy` say what a kind is and what to do, in Markdown, for docs/errors.md.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False
    meaning: ClassVar[str] = ""
    remedy: ClassVar[str] = ""

    def __init__(self, words: str, **details: object) -> None:
        super().__init__(words)
        self.words = words
        self.details = details

    @property
    def line(self) -> str:
        """It as logs and Prefect have it; read back by error_of."""
        return f"{self.words} [{self.code}]"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.words, self.details))


def _rebuild(kind: type[MkisoError], words: str, details: dict[str, object]) -> MkisoError:
    return kind(words, **details)


class PermanentError(MkisoError):
    """Trying again changes nothing until somebody acts."""


class RetriableError(MkisoError):
    """The same step may pass in a moment; tasks retry it with back-off."""

    retriable = True


class InvalidRequest(PermanentError):
    code = "invalid_request"
    http_status = 400
    meaning = "a parameter is missing, empty or malformed"
    remedy = "correct the request; the PACS was not asked"


class InvalidAccessionNumber(InvalidRequest):
    code = "invalid_accession_number"
    meaning = "it has a wildcard, a control character, or more than 16 characters"
    remedy = "use the accession number as the PACS writes it"


class TooManyAccessionNumbers(InvalidRequest):
    code = "too_many_accession_numbers"
    meaning = "more accession numbers than `server.max_accessions`"
    remedy = "ask in several requests"


class BirthDateNeeded(InvalidRequest):
    code = "birth_date_needed"
    meaning = "the site asks for the patient's birth date too (`identity.confirm_birth_date`), and none was given"
    remedy = "ask the patient, and give it as `birth_date=1970-01-31`"


class UnsafeCharacter(InvalidRequest):
    code = "unsafe_character"
    meaning = "a search has a sign that a PACS takes for a wildcard (`*`, `?`, a backslash), or one that can't be seen"
    remedy = "search without it"


class PublisherUnknown(InvalidRequest):
    code = "publisher_unknown"
    meaning = "the site has no publisher of that name, or none at all"
    remedy = "name one of `publishers`; where there is none, have the disc file made"


class Unauthorized(PermanentError):
    code = "unauthorized"
    http_status = 401
    meaning = "the API key is absent or wrong"
    remedy = "send `X-API-Key`; see `auth`"


class SignInFailed(PermanentError):
    code = "sign_in_failed"
    http_status = 403
    meaning = "the sign-in at the provider came to nothing"
    remedy = "sign in again; if it happens again, check the clocks and `sign_in`, and run `mkiso doctor`"


class NotAllowed(PermanentError):
    code = "not_allowed"
    http_status = 403
    meaning = "who asks is known and may not do this"
    remedy = "ask somebody who may, or change the key's `rights` (`auth.keys`)"


class EncryptionRequired(PermanentError):
    code = "encryption_required"
    http_status = 403
    meaning = "the site hands out encrypted files only (`disc.encryption`)"
    remedy = "ask for `format=zip-encrypted`"


class WrongClaim(PermanentError):
    code = "wrong_claim"
    http_status = 403
    meaning = "the password is told only with the claim that came with the job"
    remedy = "ask on the page, or with the program, that asked for the disc; else ask for another disc"


class PasswordGone(PermanentError):
    code = "password_gone"
    http_status = 410
    meaning = "the disc's password was told already, or its time is over"
    remedy = "ask for another disc: it gets another password"


class ForeignRequest(PermanentError):
    code = "foreign_request"
    http_status = 403
    meaning = (
        "a page of another site sent the request without a click, or a browser over plain http doesn't say which "
        "page sent it"
    )
    remedy = "click the link yourself; serve mkiso over https; add the site to `server.trusted_origins`"


class UnknownHost(PermanentError):
    code = "unknown_host"
    http_status = 403
    meaning = "the browser used a host name with a dot that mkiso doesn't know as its own"
    remedy = "add it to `server.hosts`, or set `server.public_url`"


class SearchClosed(PermanentError):
    code = "search_closed"
    http_status = 403
    meaning = "patients are searched only where a key is needed"
    remedy = "set `auth.enabled` and a key"


class StudyNotFound(PermanentError):
    code = "study_not_found"
    http_status = 404
    meaning = "the PACS has no study with this accession number"
    remedy = "check the number, and whether the study has reached this PACS"


class SelectionNotFound(PermanentError):
    code = "selection_not_found"
    http_status = 404
    meaning = "a chosen study or series isn't in the studies that are asked for"
    remedy = "look at the studies once more, and choose again"


class SelectionNotTold(PermanentError):
    code = "selection_not_told"
    http_status = 409
    meaning = "this publisher's disc couldn't say that it doesn't hold the whole study"
    remedy = "have the disc file made, print the whole study, or give the label a field with `{selection}`"


class NoDicomData(PermanentError):
    code = "no_dicom_data"
    http_status = 404
    meaning = "the study has no images"
    remedy = "ask again after the images were sent to the PACS"


class JobNotFound(PermanentError):
    code = "job_not_found"
    http_status = 404
    meaning = "the job or its disc is no longer kept"
    remedy = "ask for the disc again"


class VolumeNotFound(PermanentError):
    code = "volume_not_found"
    http_status = 404
    meaning = "the archive's ledger has no such volume, or the volume isn't in the state that the command needs"
    remedy = "check the label: `mkiso archive report`"


class PatientMismatch(PermanentError):
    """More than one patient in one question: nothing is kept."""

    code = "patient_mismatch"
    http_status = 409
    meaning = "the studies belong to more than one patient, or the patient API names another patient than the PACS"
    remedy = "several numbers: ask for each patient separately; one: have the PACS or the patient API corrected"


class OtherPatient(PermanentError):
    code = "other_patient"
    http_status = 409
    meaning = "the PACS names another patient, or other patient data, than were shown when the disc was confirmed"
    remedy = "look at the patient once more and ask again"


class WrongBirthDate(PermanentError):
    code = "wrong_birth_date"
    http_status = 409
    meaning = "the birth date given isn't the patient's in the PACS (`identity.confirm_birth_date`)"
    remedy = "check number and birth date; where both are right, have the PACS corrected"


class PrintUncertain(PermanentError):
    code = "print_uncertain"
    http_status = 409
    meaning = "an earlier order may already have made a disc, perhaps of other images"
    remedy = "look at the robot, then print with `confirm_reprint`"


class OrderedMeanwhile(PermanentError):
    code = "ordered_meanwhile"
    http_status = 409
    meaning = (
        "the same disc was ordered after the person who asks had looked (`orders_told`), so it isn't made once more"
    )
    remedy = "look the number up again; ask again where one more disc is wanted"


class JobCancelled(PermanentError):
    code = "job_cancelled"
    http_status = 409
    meaning = "somebody cancelled the job"
    remedy = "ask again; for a print, check the publisher first"


class SeveralDiscs(PermanentError):
    code = "several_discs"
    http_status = 409
    meaning = "the studies fill a set of discs"
    remedy = "download every disc, at its address in `parts`"


class OtherSet(PermanentError):
    """The disc that is asked for may be of another set than those that the asker has, together with which it may lack
    images; or its rest of another disc than the beginning that the asker has.
    """

    code = "other_set"
    http_status = 409
    meaning = (
        "this disc belongs, or may belong, to another set than the discs that you already have, or the rest of a "
        "download to another disc than its beginning"
    )
    remedy = "download every disc of one set, from the beginning, at the addresses in `sets`, or ask without `part`"


class FolderTaken(PermanentError):
    code = "folder_taken"
    http_status = 409
    meaning = "the folder of `mkiso burn --to` holds a disc already, or other files; nothing was written"
    remedy = "take an empty folder or stick; `--beside-others` allows other files, but never a second disc"


class JobCrashed(PermanentError):
    code = "job_crashed"
    http_status = 502
    meaning = "the job's process or its machine failed"
    remedy = "ask again; for a print, check the publisher first; the run in the Prefect UI says when it happened"


class TooLargeForMedium(PermanentError):
    code = "too_large_for_medium"
    http_status = 422
    meaning = "the studies don't fit one `disc.medium`, and `disc.span` is off"
    remedy = "set `disc.span`, or a larger `disc.medium`"


class NotConvertible(PermanentError):
    """An image can't be made Explicit VR Little Endian without loss or doubt; `why` is a sentence."""

    why = ""
    code = "not_convertible"
    http_status = 422
    meaning = "`disc.transfer_syntax` is `explicit-le`, and an image can't be made that: a video, or damaged pixels"
    remedy = "ask for the disc as it is archived: `transfer_syntax=as-archived`"


class NotDeidentifiable(PermanentError):
    code = "not_deidentifiable"
    http_status = 422
    meaning = "an image may show whose it is, or can't be looked at: no de-identified copy is made of it"
    remedy = "choose the series of CT, MR and PET images that may be copied; see docs/deidentified.md"


class PacsRefused(PermanentError):
    code = "pacs_refused"
    http_status = 502
    meaning = "the PACS refused: AE titles, addresses or identifiers don't match (A801 and others)"
    remedy = "add the receiver's AE title, address and port to the PACS; `mkiso doctor`"


class StudyIncomplete(PermanentError):
    code = "study_incomplete"
    http_status = 502
    meaning = "images are still missing after every attempt, or nothing proves that all came"
    remedy = "the message says how many and why; check them in the PACS"


class NotArchived(PermanentError):
    code = "not_archived"
    http_status = 502
    meaning = "the PACS doesn't list or give images that were sent to an inbox, however long mkiso waited"
    remedy = "send the study to the PACS, then to the inbox again"


class StudyGrown(PermanentError):
    code = "study_grown"
    http_status = 409
    meaning = "more images came to an inbox after the disc of their study was made (`again: no`)"
    remedy = "the disc that was made lacks them: ask for a new one at the counter"


class InstanceConflict(PermanentError):
    code = "instance_conflict"
    http_status = 502
    meaning = "two different images came under one SOP Instance UID"
    remedy = "have the PACS corrected"


class DamagedInstance(PermanentError):
    """Not a whole DICOM instance: cut short, malformed, or beyond the bounds that a header is read within."""

    code = "damaged_instance"
    http_status = 502
    meaning = "an image is cut short or malformed"
    remedy = "have the image sent to the PACS again"


class CountsUnknown(PermanentError):
    code = "counts_unknown"
    http_status = 502
    meaning = "the PACS lists no images and gives no counts"
    remedy = "`pacs.require_counts: false` makes discs all the same; they say so"


class PublisherRefused(PermanentError):
    code = "publisher_refused"
    http_status = 502
    meaning = "the publisher refused the order, or failed at it"
    remedy = "read the publisher's own message, which follows; check the publisher"


class ProofFailed(PermanentError):
    code = "proof_failed"
    http_status = 500
    meaning = "a finished disc file differs from what was received or proved; mkiso deleted it"
    remedy = "ask again; if it comes back, check the machine's memory and disk"


class ArchiveUnusable(PermanentError):
    code = "archive_unusable"
    http_status = 500
    meaning = (
        "the archive's ledger, data directory and store don't belong together, or one is missing; nothing was changed"
    )
    remedy = "use the right ledger and mount the right store; see [archive.md](archive.md)"


class LedgerUnavailable(PermanentError):
    """The archive's ledger can't be reached, read or written now. No step repeats by itself: whether the last
    transaction was written isn't known, and a run that begins anew looks.
    """

    code = "ledger_unavailable"
    http_status = 503
    meaning = (
        "the archive's ledger can't be used now: its PostgreSQL isn't there, its disk fails or is full, or mkiso may "
        "not write its file"
    )
    remedy = (
        "is the server of `archive.ledger_url` running, the disk of `storage.data_dir` well, and everything there "
        "mkiso's own? Run `mkiso doctor`"
    )


class LedgerDamaged(PermanentError):
    code = "ledger_damaged"
    http_status = 500
    meaning = "the file of the archive's ledger is damaged; nothing was changed"
    remedy = (
        "restore it from a backup ([operating.md](operating.md#backup-and-restore)); without one `mkiso archive "
        "adopt`, then `mkiso archive import` of each volume"
    )


class Unforeseen(PermanentError):
    code = "unforeseen"
    http_status = 500
    meaning = "a fault of mkiso itself"
    remedy = "report it, with the request id and the log"


class ConfigurationError(PermanentError):
    """The configuration can't be used; `problems` lists everything that is wrong with it."""

    code = "configuration"
    http_status = 500
    meaning = "the configuration can't be used"
    remedy = "run `mkiso config check`"

    def __init__(self, words: str, problems: tuple[str, ...] = (), **details: object) -> None:
        super().__init__(words, **details)
        self.problems = problems or (words,)


class AnswerCut(PermanentError):
    code = "answer_cut"
    http_status = 502
    meaning = "the PACS reached its limit of answers, even for the shortest period, or never ended its answer"
    remedy = "raise the PACS's limit, or set `pacs.find_limit`"


class PacsUnreachable(RetriableError):
    code = "pacs_unreachable"
    http_status = 502
    meaning = "no connection to the PACS, or no association"
    remedy = "is the PACS running? Check `pacs.host`, `pacs.port` and the firewall"


class PacsBusy(RetriableError):
    code = "pacs_busy"
    http_status = 502
    meaning = "the PACS is out of resources (A701, A702); often this means that it can't reach mkiso's receiver"
    remedy = "check that the PACS can connect to `receiver.port`; try again later"


class PacsSilent(RetriableError):
    code = "pacs_silent"
    http_status = 504
    meaning = "the PACS sent no answer and no image within the time limits in `pacs`"
    remedy = "check the PACS"


class NotAskedEverywhere(RetriableError):
    code = "not_asked_everywhere"
    http_status = 502
    meaning = "no source that answers has the study, and another source, which may have it, can't be asked"
    remedy = "ask again when that source answers; `mkiso doctor`"


class PatientApiUnavailable(RetriableError):
    code = "patient_api_unavailable"
    http_status = 502
    meaning = "the patient API doesn't answer; discs are made with the PACS's names and say so"
    remedy = "check `patient_api`; run `mkiso doctor`"


class ReceiverUnavailable(RetriableError):
    code = "receiver_unavailable"
    http_status = 503
    meaning = "the receiver isn't running"
    remedy = "`mkiso serve` restarts it; its log says why"


class ClaimLost(RetriableError):
    """Another archive run has taken over what this one works on; nothing of it is written."""

    code = "claim_lost"
    http_status = 503
    meaning = "another archive run has taken over these studies"
    remedy = "nothing: the other run continues"


class PublisherUnavailable(RetriableError):
    code = "publisher_unavailable"
    http_status = 502
    meaning = "the publisher can't be reached or is busy"
    remedy = "is it switched on? Check `publishers`; run `mkiso doctor`"


class ProviderUnavailable(RetriableError):
    code = "provider_unavailable"
    http_status = 503
    meaning = "the sign-in provider can't be reached; who is signed in stays signed in"
    remedy = "is it running? Check `sign_in.issuer`; run `mkiso doctor`"


class OrchestratorUnavailable(RetriableError):
    code = "orchestrator_unavailable"
    http_status = 503
    meaning = "Prefect can't be reached"
    remedy = "is it running? Check `prefect.api_url`"


class QueueFull(RetriableError):
    code = "queue_full"
    http_status = 503
    meaning = "more jobs are waiting than `server.max_queued_jobs`"
    remedy = "wait for the time in Retry-After"


class StorageFull(RetriableError):
    code = "storage_full"
    http_status = 503
    meaning = "less disk space is free than `storage.min_free_gib`"
    remedy = "free some space, or shorten `disc.keep_hours`"


class StorageUnreadable(RetriableError):
    code = "storage_unreadable"
    http_status = 503
    meaning = (
        "a file of mkiso's own can't be read or written (too many open files, no permission, a file system that has "
        "become read-only, a failing disk), or its storage hangs"
    )
    remedy = "ask again; if it stays, run `mkiso doctor`, and look at the disk, or at the server of the share"


class DeadlinePassed(RetriableError):
    code = "deadline_passed"
    http_status = 504
    meaning = "the job takes longer than a request may wait"
    remedy = "the job continues: ask for its state at the address in `job`"


class JobRunning(RetriableError):
    code = "job_running"
    http_status = 409
    meaning = "the job hasn't ended yet"
    remedy = "ask again in a moment"


class JobStopped(RetriableError):
    code = "job_stopped"
    http_status = 503
    meaning = "the job was stopped because its worker ended"
    remedy = "retry the run in the Prefect UI, or ask again; for a print, check the publisher first"


class ServiceStopping(RetriableError):
    code = "service_stopping"
    http_status = 503
    meaning = "mkiso is being restarted"
    remedy = "ask again"


def why_refused(error: OSError) -> str:
    """What the system says of a file, in words. A service may write only to what was there when it started: what is
    mounted or made later is read-only to it.
    """
    reason = error.strerror or type(error).__name__
    return f"{reason}; if it came after mkiso's start, restart mkiso" if error.errno == errno.EROFS else reason


def error_of(line: str) -> MkisoError | None:
    """The error that was told on a line (MkisoError.line), without its details; None where it tells of none, or is no
    line of ours: anybody with Prefect's API can write one.
    """
    words, _, code = line.removesuffix("]").rpartition(" [")
    if not line.endswith("]") or not line.replace("\n", "").isprintable() or len(line) > LONGEST_LINE:
        return None
    return next((kind(words) for kind in kinds() if kind.code == code), None)


def kinds() -> Iterator[type[MkisoError]]:
    """Every kind of error that has a code of its own, in the order above."""
    for kind in list(globals().values()):
        if isinstance(kind, type) and issubclass(kind, MkisoError) and "code" in vars(kind) and kind is not MkisoError:
            yield kind
