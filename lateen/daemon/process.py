"""What every process of a mesh does first: read the settled settings, log as one JSON line per event, and end when
the supervisor ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

import structlog

from lateen.daemon.settings import Settings, read

_PR_SET_PDEATHSIG = 1


def enter(argv: list[str] | None = None) -> Settings:
    """Sets the process up and returns its settings; `argv` is [settings file, supervisor's pid]."""
    file, parent = argv if argv is not None else sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the supervisor is gone")
    log_json()
    return read(Path(file))


def log_json() -> None:
    """Structured logs on stderr, one JSON object per line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
