"""Types of settings."""

from contextvars import ContextVar
from typing import Annotated

from pydantic import Field

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]

# Whether files that settings name are read and checked. Commands other than serve and check need not be able
# to read them.
files_are_checked: ContextVar[bool] = ContextVar("files_are_checked", default=False)
