import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from budcluster.kit.redaction import MASK, Redactor, names_a_secret

SECRET = 'p4ss"word/ü &+ end'
secrets = st.text(min_size=6, max_size=40).filter(lambda text: len(text.strip()) >= 6)


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        quote(SECRET, safe=""),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_known_secret_is_masked_in_every_spelling(written: str) -> None:
    masked = Redactor([SECRET]).mask(f"before {written} after")
    assert written not in masked
    assert MASK in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")


@pytest.mark.parametrize("user", ["", "u", "us", "use", "user:"])
def test_a_known_secret_is_masked_inside_a_larger_base64_text(user: str) -> None:
    encoded = base64.b64encode(f"{user}hunter2hunter2!".encode()).decode()
    masked = Redactor(["hunter2hunter2"]).mask(encoded)
    assert MASK in masked
    assert len(masked) <= len(encoded) - 12


def test_overlapping_secrets_leave_nothing_of_each_other() -> None:
    assert Redactor(["abcdefgh", "efghijkl"]).mask("x abcdefghijkl y") == "x *** y"


def test_the_longest_secret_wins() -> None:
    assert Redactor(["secret1", "secret1-and-more"]).mask("<secret1-and-more>") == "<***>"


def test_short_values_are_not_masked() -> None:
    assert Redactor(["a", "true", ""]).mask("that is true") == "that is true"


def test_each_line_of_a_secret_with_several_lines_is_masked() -> None:
    kubeconfig = "kind: Config\nusers:\n- token: abcdefghijklmnop\n"
    assert Redactor([kubeconfig]).mask("- token: abcdefghijklmnop") == MASK


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
SHAPES = [
    ("pull with hf_abcdefghijklmnopqrst now", "pull with *** now"),
    ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
    ("authorization: basic dXNlcjpwYXNz", "authorization: basic ***"),
    ("key sk-proj-0123456789abcdef.", "key ***."),
    ("id AKIAIOSFODNN7EXAMPLE!", "id ***!"),
    (f"token is {JWT}", "token is ***"),
    ("postgresql://me:pw@db:5432/x", "postgresql://me:***@db:5432/x"),
    ("https://me:p@ss@host/path", "https://me:***@host/path"),
    ("https://0123456789abcdefghij@host/", "https://***@host/"),
    ("--set password=x,other=1", "--set password=***,other=1"),
    ('{"password": "a \\"b\\" c", "n": 1}', '{"password": ***, "n": 1}'),
    ("DB_PASSWORD: hunter2", "DB_PASSWORD: ***"),
    ("?access_token=abcdef123&x=1", "?access_token=***&x=1"),
    ('{"token":"abcdef123"}', '{"token":"***"}'),
    ("X-Amz-Signature=0123456789abcdef&b", "X-Amz-Signature=***&b"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "AWS_SECRET_ACCESS_KEY=***"),
    ("a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- z", "a *** z"),
]


@pytest.mark.parametrize(("text", "expected"), SHAPES)
def test_well_known_shapes_are_masked(text: str, expected: str) -> None:
    assert Redactor().mask(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=4096 input_tokens: 12345678",
        "the token has expired",
        "invalid bearer token: the token has expired",
        "https://host/path@2x.png",
        "https://example.com:8443/x",
        "risk-based-scheduling-of-all-the-pods",
        "secret budcluster/registry-credentials not found",
        "image nvcr.io/nvidia/driver@sha256:0123456789abcdef",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert Redactor().mask(text) == text


def test_a_private_key_is_masked_across_lines() -> None:
    lines = Redactor().lines()
    text = ["ok", "-----BEGIN PRIVATE KEY-----", "MIIEvQIBADAN", "-----END PRIVATE KEY----- done", "next"]
    assert [lines.mask(line) for line in text] == ["ok", MASK, MASK, MASK + " done", "next"]


@pytest.mark.parametrize(
    "name", ["password", "HF_TOKEN", "clientSecret", "client-key-data", "AWS_SECRET_ACCESS_KEY", "x.api-key", "APIKey"]
)
def test_secret_names_are_known(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["secretName", "max_tokens", "access_key_id", "imagePullSecrets", "monkey", "keys"])
def test_other_names_are_not_secret(name: str) -> None:
    assert not names_a_secret(name)


def test_a_structure_is_scrubbed_by_name_and_by_value() -> None:
    scrubbed = Redactor(["known-value"]).scrub(
        {
            "auth": {"clientSecret": "abc", "token": None},
            "env": [{"name": "HF_TOKEN", "value": "abc"}, {"name": "MODE", "value": "fast"}],
            "note": "has known-value inside",
            "automountServiceAccountToken": True,
            "replicas": 2,
        }
    )
    assert scrubbed == {
        "auth": {"clientSecret": MASK, "token": None},
        "env": [{"name": "HF_TOKEN", "value": MASK}, {"name": "MODE", "value": "fast"}],
        "note": "has *** inside",
        "automountServiceAccountToken": True,
        "replicas": 2,
    }


def test_a_bottomless_structure_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert MASK in repr(Redactor().scrub(loop))


@given(secret=secrets, before=st.text(max_size=20), after=st.text(max_size=20))
@example(secret="aaaaaaa", before="aa", after="aa")
def test_no_known_secret_survives(secret: str, before: str, after: str) -> None:
    if secret not in MASK * 4:
        masked = Redactor([secret]).mask(before + secret + after)
        assert secret not in masked or secret in before + MASK + after


@given(st.text(), st.lists(secrets, max_size=3))
def test_masking_twice_changes_nothing_more(text: str, known: list[str]) -> None:
    known = [secret for secret in known if "*" not in secret]
    redactor = Redactor(known)
    once = redactor.mask(text)
    assert MASK in redactor.mask(once) or once == text


def test_masking_a_line_is_fast_enough_for_every_line() -> None:
    import time

    redactor = Redactor([f"secret-number-{n:04}" for n in range(10)])
    line = json.dumps({"@level": "info", "@message": "aws_eks_cluster.this: Still creating... [10s elapsed]"}) * 2
    started = time.process_time()
    for _ in range(2000):
        redactor.mask(line)
    assert (time.process_time() - started) / 2000 < 500e-6
