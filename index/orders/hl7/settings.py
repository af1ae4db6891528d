"""`[[worklist.hl7_senders]]`."""

from collections.abc import Mapping

from pydantic import Field, field_validator

from index.settings import Section


class Hl7Sender(Section):
    """One of `[[worklist.hl7_senders]]`: what is special about an HL7 sender."""

    application: str = Field("", description="MSH-3 that it is told by. Empty: any.")
    facility: str = Field("", description="MSH-4 that it is told by. Empty: any.")
    charset: str = Field("", description="Name of its character set, as in MSH-18, which it overrules.")
    map: Mapping[str, str] = Field(
        default_factory=dict,
        description="Attribute keyword to HL7 field, where the usual one does not hold it.",
    )

    @field_validator("charset")
    @classmethod
    def _known_charset(cls, value: str) -> str:
        if not value:
            return value
        from index.orders.hl7.charsets import known
        from index.orders.hl7.faults import BadMessage

        try:
            known(value)
        except BadMessage as error:
            raise ValueError(error.text.removeprefix("MSH-18: ")) from None
        return value

    @field_validator("map")
    @classmethod
    def _known_places(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        from index.orders.hl7.mapping import KEYWORDS
        from index.orders.hl7.message import path

        for keyword, place in value.items():
            if keyword not in KEYWORDS:
                raise ValueError(f"{keyword!r} is none of {', '.join(sorted(KEYWORDS))}")
            path(place)
        return value
