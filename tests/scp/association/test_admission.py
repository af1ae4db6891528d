"""Who may talk with us, and which presentation contexts are accepted."""

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom.presentation import PresentationContext

from scp.association.admission import Admission, Grant, Rejection, plain_address
from scp.association.contexts import allows_sop_class, is_storage, supported_contexts
from scp.association.syntaxes import RANKS, Rank, preferred
from scp.settings.sections import Peer
from support.peer import CT, ECHO, EXPLICIT, IMPLICIT, settings

WORKLIST = "1.2.840.10008.5.1.4.31"
MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT = "1.2.840.10008.1.20.1"
SERVICES = {WORKLIST: "worklist"}
BASE = "1.2.840.10008.1.2"
BIG, DEFLATED, BASELINE, LOSSLESS = f"{BASE}.2", f"{BASE}.1.99", f"{BASE}.4.50", f"{BASE}.4.70"
PRIVATE_SYNTAX = "1.2.840.113619.5.2"


def decide(calling="SCU", called="US", address="10.0.0.1", peers=(), **dicom):
    return Admission(settings(**dicom), peers, SERVICES).decide(calling, called, address)


def test_unknown_callers_may_store_but_use_no_service():
    assert Grant({}, is_known=False) == decide()


def test_unknown_callers_may_be_allowed_all():
    assert Grant(SERVICES, is_known=False) == decide(unknown_callers="all")


def test_unknown_callers_may_be_rejected():
    assert Rejection.CALLING_AET == decide(unknown_callers="reject")


def test_known_callers_use_the_services():
    assert Grant(SERVICES, is_known=True) == decide(peers=[Peer(aet="SCU")], unknown_callers="reject")


@pytest.mark.parametrize(
    ("address", "known"), [("10.0.0.1", True), ("::ffff:10.0.0.1", True), ("10.0.0.2", False)]
)
def test_a_title_with_a_host_counts_from_there_only(address, known):
    verdict = decide(peers=[Peer(aet="SCU", host="10.0.0.1")], address=address)

    assert known == verdict.is_known


def test_an_unknown_host_has_no_address():
    assert not decide(peers=[Peer(aet="SCU", host="no.such.host.invalid")]).is_known


def test_a_host_name_is_looked_up():
    assert decide(peers=[Peer(aet="SCU", host="localhost")], address="127.0.0.1").is_known


def test_called_titles_are_compared_without_padding():
    assert Rejection.CALLED_AET == decide(called="OTHER", called_aets=("US ",))
    assert isinstance(decide(called="US", called_aets=("US ",)), Grant)


def test_called_title_goes_before_calling_title():
    assert Rejection.CALLED_AET == decide(called="OTHER", called_aets=("US",), unknown_callers="reject")


def test_plain_address():
    assert ["10.0.0.1", "::1", "fe80::1"] == [
        plain_address(text) for text in ("::ffff:10.0.0.1", "0:0:0:0:0:0:0:1", "fe80::1%eth0")
    ]


# --- SOP Classes ---

# Storage by their names, but not over the network.
NOT_FOR_THE_NETWORK = {"1.2.840.10008.1.3.10"}


def test_storage_is_what_the_standard_calls_storage():
    named = {
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name and "Commitment" not in name
    }
    ours = {uid for uid, (_, kind, *_) in UID_dictionary.items() if "SOP Class" in kind and is_storage(uid)}

    assert named - NOT_FOR_THE_NETWORK <= ours
    odd = sorted(UID_dictionary[uid][0] for uid in ours - named)
    assert not [name for name in odd if any(word in name for word in ("FIND", "MOVE", "GET", "Creation"))]


@pytest.mark.parametrize(
    "uid",
    [
        ECHO,
        WORKLIST,
        MPPS,
        COMMITMENT,
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull, retired
        "1.2.840.10008.5.1.4.1.2.2.1",
        "1.2.840.10008.5.1.4.1.1.201.2",
        "1.2.840.10008.5.1.4.34.6.1",
        "1.2.840.10008.5.1.1.9",
        "1.2.840.10008",
        "1.2.840.10008.9.9.9",
        "",
        "no uid",
        "1.2.3/../4",
        "1" * 65,
    ],
)
def test_no_storage(uid):
    assert not is_storage(uid)


@pytest.mark.parametrize(
    "uid", [CT, "1.2.840.10008.5.1.4.1.1.9999.1", "1.3.12.2.1107.5.9.1", "1.2.840.100080.1", "2.25.1"]
)
def test_storage_known_newer_and_private(uid):
    assert is_storage(uid)


def test_messages_fit_their_own_sop_class_or_service():
    services = {"1.1": "ups", "1.2": "ups", "1.3": "worklist"}

    fitting = [
        allows_sop_class(*pair, services)
        for pair in (("1.1", "1.1"), ("1.1", "1.2"), ("1.1", "1.3"), (CT, "1.1"))
    ]

    assert [True, True, False, False] == fitting


# --- transfer syntaxes ---


def test_every_transfer_syntax_of_the_standard_has_its_rank():
    known = {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"}

    assert {"1.2.840.10008.1.20"} == known - RANKS.keys()  # Papyrus 3, retired: as unknown


def test_no_syntax_named_lossless_counts_as_lossy():
    for uid, rank in RANKS.items():
        name = UID_dictionary.get(uid, ("",))[0]
        if "Lossless" in name and "Lossy" not in name:
            assert Rank.LOSSLESS == rank, name


def test_the_order_of_preference():
    order = [EXPLICIT, IMPLICIT, LOSSLESS, DEFLATED, BIG, BASELINE, PRIVATE_SYNTAX]

    assert order == preferred([*reversed(order), "no uid", EXPLICIT])


def proposed(abstract, *syntaxes, number=1):
    context = PresentationContext()
    context.context_id = number
    context.abstract_syntax = abstract
    context.transfer_syntax = list(syntaxes)
    return context


def test_one_context_for_each_abstract_syntax_with_all_its_syntaxes():
    [context] = supported_contexts([proposed(CT, BASELINE), proposed(CT, IMPLICIT, number=3)], {})

    assert [IMPLICIT, BASELINE] == context.transfer_syntax
    assert (True, False) == (context.scu_role, context.scp_role)


def test_services_take_what_can_be_decoded():
    [context] = supported_contexts([proposed(WORKLIST, BASELINE, DEFLATED, IMPLICIT)], SERVICES)

    assert [IMPLICIT] == context.transfer_syntax


def test_what_is_no_service_is_not_supported():
    assert [] == supported_contexts([proposed(WORKLIST, IMPLICIT), proposed(COMMITMENT, IMPLICIT)], {})


def test_with_retrieval_the_caller_may_be_scp_of_storage():
    [context] = supported_contexts([proposed(CT, IMPLICIT)], {}, retrieve=True)

    assert (True, True) == (context.scu_role, context.scp_role)
