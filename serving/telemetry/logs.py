"""Structured logs: one line per event, with the request id wherever there is one."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def setup(log_format: str, level: str) -> None:
    """Send the root logger to stderr as ``json`` or ``text`` from ``level`` (debug .. error) on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What was passed as ``extra``, and the ids of the current task's request and trace."""
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    ids = {"request_id": request_id.get(), "trace_id": trace_id.get()}
    return {key: value for key, value in ids.items() if value} | extra


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: ``time LEVEL message key=value ...``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it."""
        pairs = "".join(f" {key}={value}" for key, value in fields_of(record).items())
        line = f"{_utc(record)} {record.levelname:<7} {record.getMessage()}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _utc(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
