"""`[[worklist.hl7_senders]]`."""

from collections.abc import Mapping

from pydantic import Field, field_validator

from index.settings import Section


class Hl7Sender(Section):
    """One of `[[worklist.hl7_senders]]`: the exceptions for an HL7 sender."""

    application: str = Field("", description="MSH-3 of its messages. Empty: any.")
    facility: str = Field("", description="MSH-4 of its messages. Empty: any.")
    charset: str = Field("", description="Name of its character set, as in MSH-18; it overrules MSH-18.")
    map: Mapping[str, str] = Field(
        default_factory=dict,
        description="HL7 fields by attribute keyword, where they are not the usual ones.",
    )

    @field_validator("charset")
    @classmethod
    def _known_charset(cls, value: str) -> str:
        if not value:
            return value
        from index.orders.hl7.charsets import codec_and_charset
        from index.orders.hl7.faults import BadMessage

        try:
            codec_and_charset(value)
        except BadMessage as error:
            raise ValueError(error.text.removeprefix("MSH-18: ")) from None
        return value

    @field_validator("map")
    @classmethod
    def _known_paths(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        from index.orders.hl7.mapping import KEYWORDS
        from index.orders.hl7.message import parse_path

        for keyword, path in value.items():
            if keyword not in KEYWORDS:
                raise ValueError(f"{keyword!r} is none of {', '.join(sorted(KEYWORDS))}")
            parse_path(path)
        return value
