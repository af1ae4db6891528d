"""SOP Class Extended Negotiation: which options of a service are agreed on (PS3.7 Section D.3.3.5)."""

from collections.abc import Mapping

from pydicom.uid import UID

# By service, for each byte of the Service-class-application-information whether we support its option.
# PS3.4 Section C.5.1.1: relational queries, combined matching of date and time, fuzzy matching of names
# (without accents); not: adjustment of time zones, conversion of multi-frame images.
SUPPORTED: Mapping[str, bytes] = {"query": bytes((1, 1, 1, 0, 0))}


def agreed(proposed: Mapping[UID, bytes], services: Mapping[str, str]) -> dict[UID, bytes]:
    """Return the answer for each SOP Class whose service has options; bytes that are unknown to us are 0."""
    answers = {}
    for sop_class, asked in proposed.items():
        supported = SUPPORTED.get(services.get(str(sop_class), ""))
        if supported and asked:
            padded = supported.ljust(len(asked), b"\0")
            answers[sop_class] = bytes(one & ours for one, ours in zip(asked, padded, strict=False))
    return answers
