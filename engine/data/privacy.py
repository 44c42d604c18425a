"""Secrets and personal data in texts, by named rules: where they stand, and the text with marks in their place.

The rules are cheap and sure rather than complete: each knows a form that is rarely anything else. A long hexadecimal
hash, a version number, a matrix product `a@b.T`, a documentation address or an example's password is none of them.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["secret", "personal"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A form of secret or personal data; its group `value`, else its whole match, is what must not be seen."""

    name: str
    kind: Kind
    pattern: re.Pattern[str]
    holds: Callable[[re.Match[str]], bool] = lambda found: True

    @property
    def mark(self) -> str:
        """What stands in the value's place after redaction."""
        return f"<{self.name.upper()}>"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule's value at characters [start, end) of a text. It does not carry the value."""

    rule: Rule
    start: int
    end: int


def find(text: str) -> list[Finding]:
    """All findings in a text, left to right and apart; where two rules meet, the earlier one of RULES holds."""
    found: list[Finding] = []
    for rule in RULES:
        for match in rule.pattern.finditer(text):
            start, end = match.span("value" if "value" in rule.pattern.groupindex else 0)
            apart = all(end <= other.start or other.end <= start for other in found)
            if apart and rule.holds(match):
                found.append(Finding(rule, start, end))
    return sorted(found, key=lambda finding: finding.start)


def redact(text: str) -> str:
    """The text with a mark such as `<EMAIL>` for each finding, until nothing more is found."""
    while findings := find(text):
        pieces, at = [], 0
        for finding in findings:
            pieces += [text[at : finding.start], finding.rule.mark]
            at = finding.end
        text = "".join(pieces) + text[at:]
    return text


_PLAIN = re.compile(
    r"your|example|sample|dummy|fake|test|change.?me|place.?holder|redacted|secret|password|token|xxx|\.\.\.|\*\*\*|1234",
    re.IGNORECASE,
)


def _random_looking(found: re.Match[str]) -> bool:
    """Whether a value is drawn rather than written: letters and digits, and 3.2 bits a character or more."""
    value = found["value"]
    counts = Counter(value).values()
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts)
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return mixed and bits >= 3.2 and not _PLAIN.search(value)


def _real_password(found: re.Match[str]) -> bool:
    password = found["value"].partition(":")[2]
    return not _PLAIN.search(password) and password.lower() not in (
        "pass",
        "pwd",
        "pw",
        "user",
        "root",
        "postgres",
    )


_ENDINGS = "com|org|net|edu|gov|mil|int|info|biz|name|dev|app|cloud|online|site|tech|xyz|email|academy|company|[a-z]{2}"
_RESERVED = re.compile(
    r"(?:^|\.)(?:example\.(?:com|org|net)|\w*example\.\w+|domain\.com|users\.noreply\.github\.com)$", re.I
)
_IN_URL = re.compile(r"://[^\s/]*\Z")
_SERVICES = {"git", "hg", "svn", "noreply", "no-reply"}


def _a_person(found: re.Match[str]) -> bool:
    name, _, domain = found[0].partition("@")
    # `scheme://user:password@host` is a place to log in, not to write to.
    if _IN_URL.search(found.string, max(0, found.start() - 80), found.start()):
        return False
    return name.lower() not in _SERVICES and not _RESERVED.search(domain)


_BEFORE_VERSION = re.compile(
    r"(?:version|release|build|ver|rev|[=<>~^!]=|[~^]|(?<![a-z])v|\w/)[\W_]{0,4}$", re.I
)


def _public_ipv4(found: re.Match[str]) -> bool:
    """Whether four numbers are a machine on the internet: in range, routed, and not said to be a version."""
    parts = [int(part) for part in found[0].split(".")]
    if max(parts) > 255 or max(parts) < 10 or any(len(p) > 1 and p[0] == "0" for p in found[0].split(".")):
        return False
    before = found.string[max(0, found.start() - 16) : found.start()]
    # A URL's `//` is no product's `name/1.2.3.4`.
    return not _BEFORE_VERSION.search(before) and ipaddress.IPv4Address(found[0]).is_global


def _public_ipv6(found: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(found[0])
    except ValueError:
        return False
    return address.is_global and address in ipaddress.IPv6Network("2000::/3")


def _dialled(found: re.Match[str]) -> bool:
    """Whether digits are as many as a phone number has (ITU E.164), and not the fictional 555-01xx."""
    digits = re.sub(r"\D", "", found[0])
    return 10 <= len(digits) <= 15 and len(set(digits)) > 2 and digits[-7:-2] != "55501"


_NAMED_SECRET = (
    r"(?i:\b[\w-]*(?:api_?-?key|secret|access_?-?key|auth_?-?token|access_?-?token|token|passw(?:or)?d)(?:_?key|_\w+)?)"
    r"""["']?\s*[:=]\s*["'](?P<value>[^\s"'<>{}$]{16,200})["']"""
)

RULES: tuple[Rule, ...] = (
    Rule(
        "private_key",
        "secret",
        re.compile(
            r"-----BEGIN (?P<name>[A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?)-----"
            r"(?:[\s\S]{0,20000}?-----END (?P=name)-----|(?:(?:\\n|\s)*[A-Za-z0-9+/=]{16,})+)"
        ),
    ),
    Rule("aws_key", "secret", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), lambda m: "EXAMPLE" not in m[0]),
    Rule(
        "github_token", "secret", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{50,255})\b")
    ),
    Rule("gitlab_token", "secret", re.compile(r"\bglpat-[\w-]{20,64}")),
    Rule("slack_token", "secret", re.compile(r"\bxox[abeoprs]-(?:\d{8,}-)+[\w-]{10,}")),
    Rule("google_key", "secret", re.compile(r"\bAIza[\w-]{35}(?![\w-])")),
    Rule("hugging_face_token", "secret", re.compile(r"\bhf_[A-Za-z0-9]{34,40}\b")),
    Rule("stripe_key", "secret", re.compile(r"\b[rs]k_live_[A-Za-z0-9]{16,}\b")),
    Rule(
        "model_api_key",
        "secret",
        re.compile(r"\b(?P<value>sk-(?:(?:proj|svcacct|admin|ant|or)-[\w-]{20,}|[A-Za-z0-9]{32,}))(?![\w-])"),
        _random_looking,
    ),
    Rule("jwt", "secret", re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")),
    Rule(
        "url_password",
        "secret",
        re.compile(r"\b[a-z][a-z+]{1,15}://(?P<value>[\w.%+-]{1,64}:[^\s/:@'\"<>{}$]{4,100})(?=@[\w.-])"),
        _real_password,
    ),
    Rule("secret_value", "secret", re.compile(_NAMED_SECRET), _random_looking),
    Rule(
        "email",
        "personal",
        re.compile(
            r"(?<![\w.+%@-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,5}"
            rf"(?:{_ENDINGS})(?![\w(\[-]|\.\w)"
        ),
        _a_person,
    ),
    Rule(
        "ip_address",
        "personal",
        re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w)"),
        _public_ipv4,
    ),
    Rule(
        "ip_address",
        "personal",
        re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:{1,2}){3,7}[0-9a-fA-F]{1,4}(?![\w:.])"),
        _public_ipv6,
    ),
    Rule(
        "phone",
        "personal",
        re.compile(
            r"(?<![\w+.)\]-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?|\d{1,4}[ .-])\d{2,4}(?:[ .-]?\d{2,4}){1,3}"
            r"|\(\d{3}\) ?\d{3}-\d{4}|\d{3}(?P<dash>[.-])\d{3}(?P=dash)\d{4})(?![\w-]|\.\d)"
            r"""|(?:(?<=["'])|(?<=tel:))\+\d{10,15}(?!\w)"""
        ),
        _dialled,
    ),
)
