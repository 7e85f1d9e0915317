"""Passwords and tokens: what they look like, and texts without them. All that Stilla writes or shows goes through here.

A secret in an option would be copied into the run folder, its report and the logs. Recipes that hold one are refused; of
texts that others make (errors of libraries, addresses from the environment) it is cut out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "***"

_OWNER = re.compile(r"(?<=[a-z0-9]{2}:/)(/?)([^\s/?#'\"<>:@]+:(?!\d+/)[^\s'\"<>]*|[^\s/?#'\"<>]*)@", re.IGNORECASE)
"""Who asks, in a URL: `user:password`, or a token alone. Paths make one slash of two."""
_BARE = re.compile(r"(?<![\w/:.@-])(?!mailto:)[\w.+-]+:(?!\d+@)[^\s/@:'\"<>]{3,}@(?=[\w-])")
"""The same without the `https://`."""
_WORD = (r"(?:[a-z0-9]+[_-])*(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|"
         r"account[_-]?key|credentials?)(?:[_-]id)?|"
         r"(?:(?:hf|hub|hugging[_-]?face|hugging[_-]?face[_-]hub|auth|use[_-]auth|access|api|bearer|refresh|session|security|"
         r"github|gitlab|wandb|x[_-]amz[_-]security)[_-])?token")
_NAME = re.compile(_WORD, re.IGNORECASE)
_GIVEN = re.compile(rf"(?<!\w)((?:{_WORD}|sig|signature|x-amz-(?:signature|credential)|awsaccesskeyid)[\"']?\s?=\s?[\"']?|"
                    rf"[\"'](?:{_WORD})[\"']\s?:\s?[\"']|bearer\s+)(?!\*\*\*)([^\s&\"',;}})]+)", re.IGNORECASE)
"""`token=...`, `?sig=...`, `"api_key": "..."`, `Bearer ...`."""
_TOKEN = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|"
                    r"glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16})\b")
"""What services give out, by its shape."""
_VARIABLE = re.compile(r"(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|SAS)$", re.IGNORECASE)
SHORTEST = 6
"""Characters that a value of the environment has at least before it is cut out of texts: shorter ones are words as well."""


def without_secrets(text: str) -> str:
    """The text with `***` in the place of every password and token that it shows."""
    for value in _of_the_environment(os.environ):
        text = text.replace(value, HIDDEN)
    text = _OWNER.sub(
        lambda found: f"{found[1]}{HIDDEN}@" if _is_secret_owner(found[2], found.string[: found.start()]) else found[0], text)
    text = _BARE.sub(f"{HIDDEN}@", text)
    text = _GIVEN.sub(lambda found: found[0] if _is_number(found[2]) else f"{found[1]}{HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text)


def however_written(secret: str) -> re.Pattern[str]:
    """The secret itself, and with characters as JSON, addresses and HTML may write them: `\\/`, `\\u002f`, `%2F`, `&#47;`."""
    return re.compile("".join(
        rf"(?:\\{{0,8}}{re.escape(one)}|\\{{1,8}}u00(?i:{ord(one):02x})|%(?i:{ord(one):02x})|&#0*{ord(one)};|&#[xX]0*(?i:{ord(one):x});)"
        for one in secret))


def is_known_variable(name: str) -> bool:
    """Whether a variable of the environment is called so that its value is taken for a secret."""
    return bool(_VARIABLE.search(name))


def places_of_secrets(plain: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in plain data (a recipe) a password or token stands."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            if isinstance(value, str) and value and _NAME.fullmatch(str(key)):
                yield (*place, key)
            else:
                yield from places_of_secrets(value, (*place, key))
    elif isinstance(plain, Sequence) and not isinstance(plain, str | bytes):
        for number, value in enumerate(plain):
            yield from places_of_secrets(value, (*place, number))
    elif isinstance(plain, str) and without_secrets(plain) != plain:
        yield place


def hidden(plain: Any) -> Any:
    """Plain data with `***` in the place of every password and token."""
    if isinstance(plain, Mapping):
        return {key: HIDDEN if isinstance(value, str) and value and _NAME.fullmatch(str(key)) else hidden(value)
                for key, value in plain.items()}
    if isinstance(plain, Sequence) and not isinstance(plain, str | bytes):
        return [hidden(one) for one in plain]
    return without_secrets(plain) if isinstance(plain, str) else plain


def _is_secret_owner(owner: str, before: str) -> bool:
    """`ann:geheim`, or anybody to a web server; not the container of `abfs://data@account`, nor `sftp://ann@host`."""
    scheme = re.search(r"([\w+.-]*):/$", before)
    web = scheme is not None and scheme[1].lower().rpartition("+")[2] in ("http", "https", "ws", "wss")
    return bool(owner) and owner != HIDDEN and (":" in owner or web or len(owner) > 30)


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text.lower()))


def _of_the_environment(environment: Mapping[str, str]) -> list[str]:
    """The values of variables that are called so, and passwords in addresses (HTTPS_PROXY, HF_ENDPOINT)."""
    found = {value for name, value in environment.items() if _VARIABLE.search(name) and not os.path.exists(value)}
    found |= {owner.partition(":")[2] for value in environment.values() for _, owner in _OWNER.findall(value) if ":" in owner}
    return sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True)
