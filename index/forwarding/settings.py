"""The section `[[routes]]` of the configuration."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from index.forwarding.patterns import sop_classes
from index.settings import AETitle, Section, Unique


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _is_given(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; leave the key out where it does not matter")
    return value


def _is_sop_class(value: str) -> str:
    if not re.fullmatch(r"[0-9.*?]+", value) and not sop_classes(value):
        raise ValueError("is neither a UID nor the keyword of a SOP Class (PS3.6 Table A-1)")
    return value


_Text = Annotated[str, AfterValidator(_is_given)]
Patterns = Annotated[tuple[_Text, ...], BeforeValidator(_as_list), Unique]
_SOPClasses = Annotated[
    tuple[Annotated[_Text, AfterValidator(_is_sop_class)], ...], BeforeValidator(_as_list), Unique
]
_Peers = Annotated[tuple[AETitle, ...], BeforeValidator(_as_list), Unique]


class RouteSettings(Section):
    """One of `[[routes]]`: which instances are forwarded, and to whom.

    All keys that are given besides `name` and `to` must match, each with one of its values; * and ? are
    wildcards. With none of them, every instance is forwarded.
    """

    name: str = Field("", description="What the route is for; only `check` shows it.")
    to: Annotated[_Peers, Field(min_length=1)] = Field(
        description="AE titles of [[peers]] with host and port. An instance is not sent back to its sender."
    )
    modality: Patterns = Field((), description='Modality, as "CT" or ["CT", "MR"].')
    calling_aet: Patterns = Field(
        (), description="AE title of the sender. What is imported has none: ?* leaves it out."
    )
    called_aet: Patterns = Field((), description="AE title that the sender called us by.")
    sop_class: _SOPClasses = Field(
        (), description='SOP Class UIDs, or keywords of PS3.6 Table A-1, as "EnhancedCTImageStorage".'
    )
    description: Patterns = Field(
        (), description="StudyDescription or SeriesDescription, in any case of letters."
    )

    @property
    def is_for_all(self) -> bool:
        """Whether every instance is forwarded."""
        return not (
            self.modality or self.calling_aet or self.called_aet or self.sop_class or self.description
        )
