"""Types of settings, and whether files that settings name are looked at."""

from contextvars import ContextVar
from typing import Annotated

from pydantic import Field

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]

# Whether the files that are named are read and checked. Only who serves from them may need to read them.
files_are_checked: ContextVar[bool] = ContextVar("files_are_checked", default=False)
