"""Logging: structlog events on stderr, for a person on a terminal, as JSON lines elsewhere."""

import contextlib
import io
import json
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

from scp.observing.text import plain
from scp.settings.sections import LogSettings

# structlog imports rich wherever it is installed, which takes as long as structlog itself, for tracebacks
# that are written here.
if sys.modules.keys().isdisjoint(("structlog", "rich")):
    sys.modules["rich"] = None  # type: ignore[assignment]  # "import rich" raises ImportError
    import structlog

    del sys.modules["rich"]
else:
    import structlog

# Without local variables: they hold patients' names.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_STDERR = 2
# pynetdicom says in many lines what our events say in one; what it cannot handle it says as errors.
_QUIET = {"pynetdicom": logging.CRITICAL, "pydicom": logging.ERROR}


# syslog(3)'s priorities.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}

# One encoder for all events: json.dumps would make one for each.
_encode = json.JSONEncoder(default=repr).encode


def _json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


class _Unfailing:
    """A stream whose disk may be full: what cannot be written is lost, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, where that is possible."""
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        """Flush, where that is possible."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(settings: LogSettings) -> None:
    """Set up structlog for the process, and let other libraries' logging come out the same way."""
    stream = cast("TextIO", _Unfailing(sys.stderr))
    in_journal = _is_journal(_STDERR, os.environ.get("JOURNAL_STREAM", ""))
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any] = (
        [_as_text, structlog.dev.ConsoleRenderer(exception_formatter=_traceback)]
        if console
        else [_TRACEBACKS, _in_journal if in_journal else _json]
    )
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # A line is one write: two processes may share the journal's stream.
        logger_factory=structlog.WriteLoggerFactory(stream),
        # A reload may change the level, also of loggers that have been used.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_drop_meta, *renderer])
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    # pydicom's warnings quote values of data sets, names and birth dates among them.
    warnings.filterwarnings("ignore", module="pydicom")
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)


def _as_text(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Let a person's terminal show what came from outside, and not obey it; JSON escapes it anyway."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = plain(value)
    return event


def _traceback(to: TextIO, exc_info: Any) -> None:
    """Write a traceback, indented: no line that an exception quotes can pass for one of the log."""
    written = io.StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    to.write("\n".join(textwrap.indent(plain(line), "  ") for line in written.getvalue().split("\n")))


def _is_journal(descriptor: int, stream: str) -> bool:
    """Tell whether a descriptor is the journal's: $JOURNAL_STREAM is device:inode (systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _in_journal(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    """Render JSON behind its priority, which the journal takes off and keeps (sd-daemon(3))."""
    priority = _PRIORITIES.get(str(event.get("level")), _PRIORITIES["info"])
    return f"<{priority}>{_json(logger, method, event)}"


def _drop_meta(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event
