"""Secrets taken out of what leaves the machine: by kind of object, by name of a field, by known value, by pattern.

Every way alone misses some: a token in a log has no field name, a password has no pattern, a value that nobody told us
has only its field's name. All are applied to everything.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from modelberth.base.text import names_secret

REDACTED = "[redacted]"
_SHORTEST = 6
"""Characters; a known value that is shorter would take ordinary words out."""
_DEPTH = 100

# What tokens of the field look like. Each stands for itself, repeats are bounded: linear time on any line.
_PATTERNS = (
    re.compile(r"\bhf_[A-Za-z0-9]{20,64}"),  # Hugging Face
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),  # AWS access keys
    re.compile(r"\beyJ[A-Za-z0-9_-]{10,4096}\.[A-Za-z0-9_-]{10,8192}(?:\.[A-Za-z0-9_-]{0,4096})?"),  # JSON web tokens
    re.compile(r"\bsha256~[A-Za-z0-9_-]{20,100}"),  # OpenShift
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,255}|\bgithub_pat_[A-Za-z0-9_]{30,255}"),
    re.compile(r"\bglpat-[A-Za-z0-9_-]{20,64}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{20,200}"),
    re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,200}"),
    re.compile(
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----\s{0,4}(?:[A-Za-z-]{1,30}: [^\n]{0,100}\s{1,4}){0,4}"
        r"[A-Za-z0-9+/=\s\\]{0,20000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
    ),
)
# What stands after a word that announces a secret: the word stays.
_ANNOUNCED = re.compile(
    r"""(?ix)
    (
        \b(?:authorization|proxy-authorization)["']?\s{0,3}[:=]\s{0,3}["']?(?:bearer|basic|token)?\s{0,3}
      | \b(?:bearer|basic)\s{1,3}(?=[A-Za-z0-9+/=._~-]{16})
      | --(?:token|api-key|password|secret-key|access-key)\s{1,3}
      | (?:^|[?&;,\s"'{(\[]|--)[\w.-]{0,40}
        (?:access[_-]?key(?:[_-]?id)?|secret[_-]?key|api[_-]?key|password|passwd|token|signature|credential|client[_-]?secret)
        ["']?\s{0,3}[:=]\s{0,3}["']?
    )
    ([^\s"'&,;)\]}]{4,8192})
    """
)
_USERINFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{1,20}://)[^\s/@\"']{1,512}@")
# A count of tokens is no token: max_tokens: 200, token=17, total tokens = 1,024
_NUMBER = re.compile(r"[0-9][0-9.,_]{0,20}|none|null|true|false|auto", re.I)


class Redactor:
    """Takes secrets out of text and of objects.

    Args:
        known: values that must not be seen anywhere, such as what the environment and token files hold.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        written = (form for each in known if len(each) >= _SHORTEST for form in _forms(each))
        values = sorted(set(written), key=len, reverse=True)
        self._known = re.compile("|".join(re.escape(each) for each in values)) if values else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._known:
            text = self._known.sub(REDACTED, text)
        for pattern in _PATTERNS:
            text = pattern.sub(REDACTED, text)
        text = _USERINFO.sub(rf"\1{REDACTED}@", text)
        return _ANNOUNCED.sub(_without_value, text)

    def document(self, value: Any) -> Any:
        """A Kubernetes object without secrets; what is left has the same shape."""
        return self._value(value, "", 0)

    def _secret(self, value: dict[str, Any]) -> dict[str, Any]:
        """Names of keys are needed to tell a wrong shape from a right one; their values never are."""
        hidden = {
            key: dict.fromkeys(value[key], REDACTED)
            for key in ("data", "stringData")
            if isinstance(value.get(key), dict)
        }
        about = dict(value.get("metadata") or {})
        about.pop("annotations", None)  # kubectl keeps the whole Secret in one of them
        items = [self._secret(each) for each in value["items"]] if isinstance(value.get("items"), list) else None
        kept = {key: value[key] for key in ("apiVersion", "kind", "type") if key in value}
        return kept | {"metadata": self._value(about, "", 0)} | hidden | ({"items": items} if items is not None else {})

    def _value(self, value: Any, name: str, depth: int) -> Any:
        if depth > _DEPTH:
            return REDACTED
        if isinstance(value, dict) and value.get("kind") in {"Secret", "SecretList"}:
            return self._secret(value)
        if isinstance(value, dict):
            # env: [{name: HF_TOKEN, value: hf_...}]
            of_variable = str(value["name"]) if isinstance(value.get("name"), str) and "value" in value else ""
            return {
                key: self._value(each, of_variable if key == "value" and of_variable else str(key), depth + 1)
                for key, each in value.items()
            }
        if isinstance(value, list):
            return [self._value(each, name, depth + 1) for each in value]
        if isinstance(value, str):
            return REDACTED if value and names_secret(name) else self.text(value)
        return value


def _forms(value: str) -> tuple[str, ...]:
    """A value as it stands, as a Secret's data hold it, and as a URL does."""
    return value, b64encode(value.encode()).decode().rstrip("="), quote(value, safe="")


def _without_value(match: re.Match[str]) -> str:
    done = _NUMBER.fullmatch(match[2]) or match[2].startswith(REDACTED[:-1])
    return match[0] if done else f"{match[1]}{REDACTED}"
