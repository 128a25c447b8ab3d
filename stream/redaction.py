"""What must not be said: ``redact`` takes credentials out of any text that leaves the process.

Two nets. The shapes in which credentials stand in URLs, whoever wrote them; and the values that this process
was told are secret (``remember``): tokens, passwords of sources, what references in the configuration stand
for. The second net is the only state of its kind here, as a log line may come from any thread and any library.
Knows nothing of configurations, logs or HTTP.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
SHORTEST = 4  # looked for in every text: shorter ones would blot out ordinary words
MOST = 4096  # values; the longest unmentioned is forgotten first

# Up to the *last* @ before a space or query: passwords hold @ and / too, and people write them so.
_USERINFO = re.compile(r"(?<=://)[^\s?#]*(?=@)")
_BARE_USERINFO = re.compile(r"(?<![\w/.-])(?!synthetic:)[\w.-]+:[^\s/@]+(?=@[\w\[])")
# Cameras take passwords as query values, and some in the path: /user=admin_password=x_channel=1
_SECRET_VALUE = re.compile(
    r"(?i)([?&/_;](?:[^=&\s/_;]*(?:token|pass|pwd|psw|secret|key|auth)[^=&\s/_;]*)=)([^&\s/_;]*)"
)

_lock = threading.Lock()
_values: dict[str, None] = {}
_forms: tuple[str, ...] = ()  # each value as it may be written, the longest first


def redact(text: str) -> str:
    """``text`` with every secret value that is known, and the credentials of every URL in it, as ``***``."""
    for form in _forms:
        if form in text:
            text = text.replace(form, HIDDEN)
    return _SECRET_VALUE.sub(rf"\1{HIDDEN}", _BARE_USERINFO.sub(HIDDEN, _USERINFO.sub(HIDDEN, text)))


def remember(values: Iterable[str]) -> None:
    """From now on these are never said, as they are or percent-encoded; those in force are to be told anew."""
    global _forms
    with _lock:
        for value in values:
            if len(value) >= SHORTEST:
                _values.pop(value, None)
                _values[value] = None
        while len(_values) > MOST:
            del _values[next(iter(_values))]
        forms = {form for value in _values for form in _written(value)}
        _forms = tuple(sorted(forms, key=len, reverse=True))


def url_secrets(url: str) -> list[str]:
    """The passwords in a URL: of its userinfo, of its query, and of what cameras take in the path."""
    found = [match[2] for match in _SECRET_VALUE.finditer(url)]
    if userinfo := _USERINFO.search(url) or _BARE_USERINFO.search(url):
        found.append(userinfo[0].partition(":")[2])
    return found


def _written(value: str) -> set[str]:
    """The forms in which a value may turn up: as it is, encoded in a URL, escaped in JSON or ``repr``."""
    plain = {value, unquote(value)}
    escaped = {write(form)[1:-1] for form in plain for write in (json.dumps, repr)}
    encoded = {write(form) for form in plain for write in (quote, quote_plus, _quote_all)}
    lower = {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), form) for form in encoded}
    return {form for form in plain | escaped | encoded | lower if len(form) >= SHORTEST}


def _quote_all(value: str) -> str:
    return quote(value, safe="")
