"""Logging: structlog events on stderr, as text on a terminal, as JSON lines elsewhere."""

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

# Without local variables, which hold patients' names.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_STDERR = 2
# pynetdicom logs in many lines what our events hold in one, and as errors what we handle.
_LEAST_LEVELS = {"pynetdicom": logging.CRITICAL, "pydicom": logging.ERROR}


# syslog(3)'s priorities.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}

# json.dumps would make an encoder for each event.
_encode = json.JSONEncoder(default=repr).encode


def _json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


class _LossyStream:
    """A stream that drops what cannot be written, where its disk is full or it is closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write where possible; return the number of characters written."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        """Flush where possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(settings: LogSettings) -> None:
    """Set up structlog for the process; what other libraries log is written in the same form."""
    stream = cast("TextIO", _LossyStream(sys.stderr))
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
    for name, least in _LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(least)


def _as_text(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make texts from outside harmless for a terminal; JSON escapes them anyway."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = plain(value)
    return event


def _traceback(to: TextIO, exc_info: Any) -> None:
    """Write a traceback, indented, so that no quoted line looks like a line of the log."""
    written = io.StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    to.write("\n".join(textwrap.indent(plain(line), "  ") for line in written.getvalue().split("\n")))


def _is_journal(descriptor: int, stream: str) -> bool:
    """Return whether a descriptor is the journal's: $JOURNAL_STREAM is device:inode (systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _in_journal(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    """Render JSON after its priority, which the journal removes and keeps (sd-daemon(3))."""
    priority = _PRIORITIES.get(str(event.get("level")), _PRIORITIES["info"])
    return f"<{priority}>{_json(logger, method, event)}"


def _drop_meta(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event
