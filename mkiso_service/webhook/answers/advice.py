"""What a person can do about each error, in words of their language; docs/errors.md says more. Other codes show the
service's own message.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mkiso.languages import N_, Language

LATER = N_("Ask again in a few minutes.")
TELL_PACS = N_("Tell the PACS administrator.")
TELL = N_("Tell the administrator.")
UNEXPECTED = N_("An unexpected error happened. Ask again; if it happens twice, tell the administrator.")
LOOK = N_("But look at the disc robot first: the disc may be there already.")
LOOK_FIRST = frozenset(
    (
        "print_uncertain",
        "job_stopped",
        "job_cancelled",
        "job_crashed",
        "unforeseen",
        "publisher_refused",
        "proof_failed",
    )
)
"""The ends of a print that may have reached the publisher: asking again without looking there could make two discs."""
ADVICE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "invalid_accession_number": (
            N_(
                "This can't be an accession number: such a number has at most 16 letters, digits and signs, and no "
                "* or ? in it. Check it, and type or scan it once more."
            ),
        ),
        "too_many_accession_numbers": (N_("These are too many numbers at once. Ask for fewer at a time."),),
        "invalid_request": (N_("Something is missing in what was asked for, or is wrong in it."), TELL),
        "birth_date_needed": (N_("Type the patient's birth date too: ask for it, don't read it from a list."),),
        "unsafe_character": (
            N_(
                "The search has a sign that a PACS takes for a wildcard, such as * or ?, or one that can't be seen. "
                "Search without it."
            ),
        ),
        "publisher_unknown": (N_("There is no such disc robot here. Have the disc file made instead."),),
        "unauthorized": (N_("Sign in, and you come back to this page."),),
        "sign_in_failed": (N_("The sign-in failed. Sign in again; if it happens again, tell the administrator."),),
        "provider_unavailable": (
            N_("The sign-in service of this site can't be reached."),
            N_("Try again in a few minutes."),
        ),
        "job_running": (N_("The disc isn't ready yet. Ask again in a moment."),),
        "not_found": (N_("There is nothing at this address. Check it."),),
        "method_not_allowed": (N_("There is no page at this address. Go on from the page Patient discs."),),
        "study_not_found": (
            N_(
                "The PACS knows no study with this number. Check the number: capital and small letters count. If it is "
                "right, the images may not have arrived yet."
            ),
        ),
        "selection_not_found": (
            N_("A chosen series or study isn't in the PACS any more. Look the number up again, and choose again."),
        ),
        "selection_not_told": (
            N_(
                "This disc robot can't write on a disc that it isn't the whole examination. Make the disc file, "
                "or have the whole examination made."
            ),
        ),
        "no_dicom_data": (N_("The study exists but has no images yet. Ask again when its images have been sent."),),
        "patient_mismatch": (
            N_(
                "It isn't certain that all of this belongs to one patient, so no disc is made. If you gave several "
                "numbers, check them, and ask for each patient separately. If you gave one number, or all of them "
                "belong to one patient, tell the PACS administrator."
            ),
        ),
        "other_patient": (
            N_(
                "The PACS names another patient by now than the one who was shown, so no disc is made. Look the "
                "number up again."
            ),
        ),
        "ordered_meanwhile": (
            N_(
                "This disc was ordered since the patient was looked up, so no second one is made. Look the number up "
                "again, and ask again if one more disc is wanted."
            ),
        ),
        "wrong_birth_date": (
            N_("The PACS has another birth date for this number. Check the number and the birth date."),
        ),
        "study_incomplete": (
            N_("Some images could not be fetched, so no disc is made."),
            LATER,
            N_("If it happens again, tell the PACS administrator."),
        ),
        "not_archived": (
            N_(
                "The PACS doesn't have all images that were sent, so no disc is made. Send the study to the PACS, "
                "then here again."
            ),
        ),
        "study_grown": (
            N_("More images came after the disc was made, and that disc lacks them. Ask for a new disc here."),
        ),
        "instance_conflict": (N_("One image exists in two versions, so no disc is made."), TELL_PACS),
        "damaged_instance": (N_("An image in the PACS is damaged, so no disc is made."), TELL_PACS),
        "counts_unknown": (
            N_("The PACS doesn't say how many images there are, so nobody knows whether all came and no disc is made."),
            TELL,
        ),
        "answer_cut": (
            N_("The PACS may not have told of all studies with this number, so no disc is made."),
            TELL_PACS,
        ),
        "too_large_for_medium": (
            N_("The studies don't fit on one disc. Ask for fewer at a time, or tell the administrator."),
        ),
        "not_convertible": (
            N_("An image can't be converted for older programs. Ask for a disc with the images as they are archived."),
        ),
        "not_deidentifiable": (
            N_("An image may show whose it is, so no copy of it is made. Choose the series that may be copied."),
        ),
        "pacs_refused": (N_("The PACS refuses this service."), TELL_PACS),
        "pacs_unreachable": (N_("The PACS can't be reached."), LATER),
        "pacs_busy": (N_("The PACS is busy."), LATER),
        "pacs_silent": (N_("The PACS stopped answering."), LATER),
        "not_asked_everywhere": (
            N_("No PACS that answers has this number, and another one, which may have it, can't be asked."),
            LATER,
        ),
        "receiver_unavailable": (N_("The service can't receive images at the moment."), LATER),
        "proof_failed": (
            N_(
                "The finished disc file differed from what came from the PACS and was deleted. Ask again; if it "
                "happens twice, tell the administrator."
            ),
        ),
        "queue_full": (N_("Many discs are being made already. Ask again in a minute."),),
        "storage_unreadable": (UNEXPECTED,),
        "storage_full": (N_("The service has no room for another disc."), TELL),
        "orchestrator_unavailable": (
            N_("The service is starting, or a part of it isn't available. Ask again in a minute."),
        ),
        "service_stopping": (N_("The service is being restarted. Ask again in a minute."),),
        "job_stopped": (N_("This was stopped before it was ready. Ask again."),),
        "job_cancelled": (N_("This was cancelled. Ask again if the disc is still wanted."),),
        "job_crashed": (N_("This was interrupted before it was ready. Ask again."),),
        "job_not_found": (N_("This disc is no longer kept. Ask again to have it made again."),),
        "publisher_unavailable": (
            N_(
                "The disc robot can't be reached. Check that it is on, then ask again; if it is on, tell the "
                "administrator."
            ),
        ),
        "publisher_refused": (
            N_("The disc robot refused the disc. Look at its display for the cause, then ask again."),
        ),
        "print_uncertain": (
            N_(
                "The disc robot may already have made this disc. Look there first; have it made again only if it "
                "isn't there."
            ),
        ),
        "foreign_request": (N_("The browser doesn't say that the request comes from this page."), TELL),
        "unknown_host": (N_("The service doesn't know the host name in the address bar."), TELL),
        "search_closed": (
            N_(
                "Patients can't be searched for here, since nobody has to sign in. Ask by accession number, or tell "
                "the administrator."
            ),
        ),
        "not_allowed": (N_("Your sign-in doesn't allow this. Ask the administrator."),),
        "configuration": (N_("The service isn't set up for this."), TELL),
        "unforeseen": (UNEXPECTED,),
        "internal_error": (UNEXPECTED,),
        "encryption_required": (
            N_("This site hands out encrypted files only: ask for one on the page Patient discs."),
        ),
        "password_gone": (
            N_("The password was told already, and is kept nowhere. Make the file again if it is lost."),
        ),
        "wrong_claim": (
            N_("The password is told only on the page that asked for the disc. Make the file again if it is lost."),
        ),
        "unreachable": (N_("The service can't be reached. Check the network and ask again."),),
    }
)
"""Sentences by code; `unreachable` is the page's own, where nothing answers."""


PRECISE = frozenset(
    ("invalid_accession_number", "too_many_accession_numbers", "unsafe_character", "invalid_request", "not_found")
)
"""The service's own message says more about these, such as which character is wrong. It is in English, so readers of
English see that message."""


def must_look(kind: str, code: str, proves: str = "") -> bool:
    """Whether somebody has to look at the robot before they ask for this print again; a job of kind "" may be one."""
    return kind in ("print", "") and (bool(proves) or code in LOOK_FIRST)


def advice(code: str, spoken: Language, *, look: bool = False) -> str:
    """What to do, in a language; empty where there is nothing but the service's message. `look`: at the robot first."""
    sentences = () if code in PRECISE and spoken.code == "en" else ADVICE.get(code, ())
    more = (LOOK,) if sentences and look and code != "print_uncertain" else ()
    return " ".join(spoken.gettext(each) for each in (*sentences, *more))


def advices(spoken: Language) -> dict[str, str]:
    """All of it, for the counter page's script."""
    return {code: words for code in ADVICE if (words := advice(code, spoken))}
