"""Log lines: fields, request ids, exceptions, both formats."""

from __future__ import annotations

import json
import logging
import sys

from serving.telemetry.logs import JsonFormatter, TextFormatter, request_id


def record(message: str = "call", error: bool = False, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("pxserve", logging.INFO, "file.py", 1, message, (), None)
    vars(made).update(extra)
    if error:
        try:
            raise ValueError("broken")
        except ValueError:
            made.exc_info = sys.exc_info()
    return made


def test_json_line_has_the_fields_and_the_request_id() -> None:
    token = request_id.set("abc")
    try:
        line = json.loads(JsonFormatter().format(record(model="digits", milliseconds=1.5)))
    finally:
        request_id.reset(token)
    assert (line["message"], line["level"], line["request_id"]) == ("call", "info", "abc")
    assert (line["model"], line["milliseconds"]) == ("digits", 1.5)
    assert line["time"].endswith("Z")


def test_json_exception_stays_on_one_line() -> None:
    text = JsonFormatter().format(record(error=True))
    assert "\n" not in text
    assert "ValueError: broken" in json.loads(text)["exception"]


def test_text_line_has_the_same_for_people() -> None:
    text = TextFormatter().format(record(model="digits", error=True))
    first, *rest = text.splitlines()
    assert first.endswith("INFO    call model=digits")
    assert rest[-1] == "ValueError: broken"
