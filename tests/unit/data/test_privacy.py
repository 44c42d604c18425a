"""Secrets and personal data: each rule finds its form, ordinary code has none, and redaction is done in one go."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.privacy import RULES, find, redact

# Put together here, so that no scanner takes this file for a leak.
RANDOM = "q7Xv2Lm9Rk4Tz8Wp1Bn6Yc3Hd5Jf0GsAeUiZ4"
FOUND = {
    "private_key": "-----BEGIN RSA "
    + "PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA "
    + "PRIVATE KEY-----",
    "aws_key": "AKIA" + "IOSFODNN7ABCDEFG",
    "github_token": "ghp_" + RANDOM,
    "gitlab_token": "glpat-" + RANDOM[:20],
    "slack_token": "xoxb-" + "123456789012-" + RANDOM[:24],
    "google_key": "AIza" + RANDOM[:35],
    "hugging_face_token": "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567",
    "stripe_key": "sk_live_" + RANDOM[:24],
    "model_api_key": "sk-proj-" + RANDOM,
    "jwt": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + RANDOM,
    "url_password": "postgresql://anna:v3ryUnl1kely@db.firm.io/x",
    "secret_value": f'API_KEY = "{RANDOM}"',
    "email": "write to anna.berg+work@firm-post.co.uk today",
    "ip_address": "ssh root@box; ping 81.169.145.70",
    "phone": "call +49 30 1234 5670",
}

ORDINARY = [
    'SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
    "commit 1f0c3b5d9a7e2468ace013579bdf02468ace1357",
    "uuid = '123e4567-e89b-12d3-a456-426614174000'",
    'version = "10.2.33.4"; pip install thing==12.0.19.4; release v11.22.3.4; Chrome/91.10.44.12',
    "section 1.2.3.4 of the text, and 1.2.3.4.5 below",
    "host = '127.0.0.1'; other = '192.168.17.20'; net = '10.20.30.40/8'; any = '0.0.0.0'; doc = '203.0.113.77'",
    "y = x@w.T; z = a@self.weight; q = a@b.dot(c); r = m@n.to(device); s = a@b.mm(c)",
    "@app.route('/x')\n@pytest.mark.slow\ndef f(): ...",
    "git@github.com:owner/repo.git and user@example.com and noreply@firm.com",
    "x = a[1::2]; std::vector<int> v; t = '12:30:45'; b = items[::2]; mac = '00:1b:44:11:3a:b7'",
    "n = +1234567890; m = 1234567890123; z = 3.14159265358979; d = '2024-01-15'; e = a-123-456-7890",
    'password = os.environ["PASSWORD"]; token = "your-api-token-goes-here"; api_key = "<YOUR_KEY>"',
    'tokenizer = "Qwen2.5-Coder-7B"; secret_santa(["a", "b"]); token = "end_of_sentence_marker"',
    "url = 'https://user:password@host.com/'; dsn = f'redis://{user}:{pw}@{host}'",
    "sk-learn-compatible-estimators-and-transformers-list; hf_hub_download_with_retries_and_cache()",
    "call 212-555-0142 or (212) 555-0199",
]


@pytest.mark.parametrize("name", FOUND)
def test_each_rule_finds_its_form(name: str) -> None:
    text = f"before {FOUND[name]} after"
    assert [found.rule.name for found in find(text)] == [name]
    clean = redact(text)
    assert f"<{name.upper()}>" in clean and clean.startswith("before ") and clean.endswith(" after")
    value = text[find(text)[0].start : find(text)[0].end]
    assert len(value) > 8 and value not in clean


def test_every_rule_is_tried_here() -> None:
    assert {rule.name for rule in RULES} == set(FOUND)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_code_has_none(text: str) -> None:
    assert [(found.rule.name, text[found.start : found.end]) for found in find(text)] == []
    assert redact(text) == text


def test_benchmark_programs_have_no_secret(field_data: Path) -> None:
    for name in ("humaneval/HumanEval.jsonl.gz", "mbpp/mbpp.jsonl.gz"):
        with gzip.open(field_data / name, "rt") as lines:
            texts = [value for line in lines for value in json.loads(line).values() if isinstance(value, str)]
        assert len(texts) > 300
        assert [(f.rule.name, text[f.start : f.end]) for text in texts for f in find(text)] == []


def test_the_projects_own_code_has_none(root: Path) -> None:
    texts = [file.read_text() for place in ("engine", "launch") for file in (root / place).rglob("*.py")]
    assert len(texts) > 100
    assert [(f.rule.name, text[f.start : f.end]) for text in texts for f in find(text)] == []


def test_redaction_ends_where_a_mark_uncovers_another_value() -> None:
    text = "a.b@firm.com+49 30 1234 5670"
    assert [found.rule.name for found in find(text)] == ["email"]
    assert redact(text) == "<EMAIL><PHONE>"


PIECES = st.sampled_from(
    [*FOUND.values(), *ORDINARY, *"@.+-:/\"' \n<>=()1a", "com", "12.34", "+49", "token=", "://"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=12).map("".join))
def test_redaction_twice_is_redaction_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
    assert find(once) == []
