"""A-ASSOCIATE-RQ in, A-ASSOCIATE-AC or -RJ out, both read back with pynetdicom's codecs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ

from mkiso.config.settings import Receiver
from mkiso.implementation import IMPLEMENTATION_CLASS_UID
from mkiso.network.negotiation import Acceptance, Rejection, decode_request, negotiate
from mkiso.network.pdu import ProtocolError
from mkiso.receiver.negotiation import is_allowed, is_storage, preferred, storage_offer
from peers.raw_peer import CT, EXPLICIT, IMPLICIT, VERIFICATION, associate_rq, every_user_item, window

BIG_ENDIAN, JPEG_2000, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1.99"


SETTINGS = Receiver(ae_title="CDRECORD", max_pdu_bytes=131_072)


def answer(encoded: bytes, **changed: object) -> Acceptance | Rejection:
    settings = SETTINGS.model_copy(update=changed)
    return negotiate(decode_request(encoded[6:]), storage_offer(settings), "10.0.0.1")


def window_in(answered: A_ASSOCIATE_AC) -> tuple[int | None, int | None] | None:
    """Operations invoked and performed."""
    assert answered.user_information is not None
    told = answered.user_information.async_ops_window
    return None if told is None else (told.maximum_number_operations_invoked, told.maximum_number_operations_performed)


def accepted(encoded: bytes) -> tuple[Acceptance, A_ASSOCIATE_AC]:
    result = answer(encoded)
    assert isinstance(result, Acceptance)
    pdu = A_ASSOCIATE_AC()
    pdu.decode(result.pdu)
    return result, pdu


def test_verification_and_all_that_may_be_storage_is_accepted_and_nothing_else() -> None:
    stored = [CT, VERIFICATION, "1.2.840.113619.4.26", "1.2.840.10008.5.1.4.1.1.9999"]
    classes = [*stored, "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.20.1", "1.2.840.10008.1.3.10"]
    result, pdu = accepted(associate_rq({uid: [EXPLICIT] for uid in classes}))
    assert [context.result for context in pdu.presentation_context] == [0, 0, 0, 0, 3, 3, 3]
    assert sorted(result.contexts) == [1, 3, 5, 7]
    assert (result.calling_ae_title, pdu.called_ae_title, pdu.calling_ae_title) == ("RAWPEER", "CDRECORD", "RAWPEER")
    assert pdu.user_information is not None
    assert (pdu.user_information.maximum_length, pdu.user_information.implementation_class_uid) == (
        131_072,
        IMPLEMENTATION_CLASS_UID,
    )


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([IMPLICIT, EXPLICIT], EXPLICIT),
        ([EXPLICIT, IMPLICIT], EXPLICIT),
        ([BIG_ENDIAN, IMPLICIT, EXPLICIT], EXPLICIT),
        ([IMPLICIT, BIG_ENDIAN], IMPLICIT),
        ([JPEG_2000, EXPLICIT], JPEG_2000),
        ([EXPLICIT, JPEG_2000], EXPLICIT),
        (["1.2.3.999"], "1.2.3.999"),
        ([DEFLATED], DEFLATED),
    ],
)
def test_the_peers_first_choice_is_taken_but_explicit_before_implicit(proposed: list[str], chosen: str) -> None:
    assert preferred(proposed) == chosen
    assert accepted(associate_rq({CT: proposed}))[0].contexts[1].transfer_syntax == chosen


def test_user_information_is_answered_as_the_standard_says() -> None:
    _, pdu = accepted(associate_rq({CT: [EXPLICIT]}, user_items=every_user_item()))
    information = pdu.user_information
    assert information is not None
    assert window_in(pdu) == (8, 8)
    assert [(str(uid), item.scu_role, item.scp_role) for uid, item in information.role_selection.items()] == [
        (CT, 1, 0)
    ]
    assert [(str(item.uid), item.app_info) for item in information.ext_neg] == [(CT, bytes((2, 0, 3, 0, 0, 0)))]
    assert information.common_ext_neg == [] and information.user_identity is None


@pytest.mark.parametrize(
    ("proposed", "answered"), [((8, 1), (8, 1)), ((0, 0), (64, 64)), ((1000, 2), (64, 2)), ((1, 1), (1, 1))]
)
def test_a_window_is_answered_with_what_is_performed(proposed: tuple[int, int], answered: tuple[int, int]) -> None:
    assert window_in(accepted(associate_rq(user_items=[window(*proposed)]))[1]) == answered


def test_who_proposes_no_window_gets_the_answer_as_if_there_were_none() -> None:
    without = answer(associate_rq())
    request = decode_request(associate_rq()[6:])
    assert negotiate(request, replace(storage_offer(SETTINGS), operations=1), "10.0.0.1") == without
    assert window_in(accepted(associate_rq())[1]) is None


@pytest.mark.parametrize(
    ("encoded", "changed", "reason"),
    [
        (associate_rq(called="ELSE"), {}, (1, 1, 7)),
        (associate_rq(), {"allowed_peers": ("PACS",)}, (1, 1, 3)),
        (associate_rq()[:6] + b"\0\2" + associate_rq()[8:], {}, (1, 2, 2)),
        (associate_rq().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"), {}, (1, 1, 2)),
        (associate_rq().replace((16384).to_bytes(4, "big"), (10).to_bytes(4, "big")), {}, (1, 1, 1)),
    ],
    ids=["called AE title", "peer", "protocol version", "application context", "tiny PDUs"],
)
def test_rejections_name_their_reason(encoded: bytes, changed: dict[str, object], reason: tuple[int, int, int]) -> None:
    result = answer(encoded, **changed)
    assert isinstance(result, Rejection) and result.words
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(result.pdu)
    assert (pdu.result, pdu.source, pdu.reason_diagnostic) == reason


@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        ("PACS", True),
        ("pacs", False),
        ("10.1.2.3", True),
        ("10.1.0.0/16", True),
        ("10.2.0.0/16", False),
        ("PACS@10.1.2.3", True),
        ("PACS@10.9.9.9", False),
        ("OTHER@10.1.2.3", False),
        ("fe80::/10", False),
        ("@10.1.2.3", False),
    ],
)
def test_allowed_peers_are_titles_addresses_networks_or_both(entry: str, allowed: bool) -> None:
    assert is_allowed("PACS", "10.1.2.3", (entry,)) is allowed
    assert is_allowed("PACS", "10.1.2.3", ())


def test_of_a_context_id_that_comes_twice_the_first_counts() -> None:
    encoded = associate_rq()
    first = encoded.index(b"\x20\x00", 74)
    second = encoded.index(b"\x20\x00", first + 1)
    result, pdu = accepted(encoded[: second + 4] + b"\x01" + encoded[second + 5 :])
    assert result.contexts == {1: (CT, EXPLICIT)} and len(pdu.presentation_context) == 1


def test_every_storage_class_that_pynetdicom_knows_is_storage() -> None:
    from pynetdicom.sop_class import _STORAGE_CLASSES

    assert [uid for uid in _STORAGE_CLASSES.values() if not is_storage(str(uid))] == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@settings(max_examples=300, deadline=None)
@given(
    position=st.integers(0, len(associate_rq()) - 1),
    change=st.binary(min_size=1, max_size=8),
    cut=st.integers(0, len(associate_rq())),
)
def test_a_changed_request_is_answered_or_a_protocol_error(position: int, change: bytes, cut: int) -> None:
    encoded = associate_rq()
    for mangled in (
        encoded[:position] + change + encoded[position + len(change) :],
        encoded[:position] + change + encoded[position:],
        encoded[:cut],
    ):
        try:
            assert answer(mangled).pdu
        except ProtocolError:
            continue
