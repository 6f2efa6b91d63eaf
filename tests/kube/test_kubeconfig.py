import contextlib
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from budcluster.kube import refusals
from budcluster.kube.kubeconfig import LARGEST_BYTES, Kubeconfig, read_kubeconfig
from budcluster.kube.refusals import KubeconfigRefused, SeveralContexts, SeveralProblems
from tests.kube.certificates import AUTHORITY, CLIENT, NOW, OTHER, b64, make_document, make_jwt, make_pair


def read(document: Any = None, **options: Any) -> Kubeconfig:
    return read_kubeconfig(json.dumps(make_document() if document is None else document), now=NOW, **options)


def refused(document: Any, **options: Any) -> KubeconfigRefused:
    with pytest.raises(KubeconfigRefused) as caught:
        read(document, **options)
    return caught.value


class TestWhatIsTaken:
    @pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
    def test_a_token_kubeconfig_is_rebuilt(self, write: Any) -> None:
        document = make_document(preferences={"colors": True}, extensions=[{"name": "x"}])
        config = read_kubeconfig(write(document), now=NOW)
        assert config.server == "https://10.0.0.5:6443"
        assert config.token == "a-bearer-token"
        rebuilt = json.loads(config.to_json())
        assert rebuilt.keys() == {"apiVersion", "kind", "clusters", "users", "contexts", "current-context"}
        assert rebuilt["users"] == [{"name": "cluster", "user": {"token": "a-bearer-token"}}]
        assert read(rebuilt) == config

    def test_a_client_certificate_kubeconfig_is_rebuilt_and_its_end_is_known(self) -> None:
        user = {
            "token": None,
            "client-certificate-data": b64(CLIENT.certificate + OTHER.certificate),
            "client-key-data": b64(CLIENT.key),
        }
        config = read(make_document(user=user))
        assert config.token is None
        assert config.expires_at == NOW + timedelta(days=30)
        assert read(json.loads(config.to_json())) == config

    def test_only_certificates_are_kept_of_a_bundle(self) -> None:
        mixed = b"a comment\n" + AUTHORITY.certificate + AUTHORITY.key
        config = read(make_document(cluster={"certificate-authority-data": b64(mixed)}))
        assert config.certificate_authority == AUTHORITY.certificate

    def test_the_end_of_a_jwt_is_known_and_other_tokens_have_none(self) -> None:
        ends = NOW + timedelta(hours=1)
        config = read(make_document(user={"token": make_jwt({"exp": ends.timestamp()})}))
        assert config.expires_at == ends
        assert read().expires_at is None
        for claims in ({}, [], {"exp": "soon"}, {"exp": 1e300}, {"exp": None}):
            assert read(make_document(user={"token": make_jwt(claims)})).expires_at is None

    def test_tls_server_name_and_namespace_are_kept(self) -> None:
        document = make_document(cluster={"tls-server-name": "Kubernetes.default"})
        document["contexts"][0]["context"]["namespace"] = "team-a"
        config = read(document)
        assert (config.tls_server_name, config.namespace) == ("kubernetes.default", "team-a")
        document["contexts"][0]["context"]["namespace"] = "../x"
        assert read(document).namespace == "default"

    def test_a_context_is_chosen_by_name(self) -> None:
        document = make_document()
        document["contexts"].append({"name": "other", "context": {"cluster": "gone", "user": "u"}})
        assert read(document, context="ctx").token == "a-bearer-token"

    def test_what_other_contexts_hold_does_not_matter(self) -> None:
        document = make_document()
        document["users"].append({"name": "bad", "user": {"exec": {"command": "rm"}}})
        assert read(document).token == "a-bearer-token"

    def test_the_fingerprint_names_the_cluster_and_not_the_login_or_the_spelling(self) -> None:
        one = read(make_document(cluster={"server": "https://API.example.com:443/"}))
        other = read(make_document(cluster={"server": "https://api.example.com"}, user={"token": "another-token"}))
        assert one.fingerprint == other.fingerprint
        assert one.fingerprint != read().fingerprint
        stranger = make_document(cluster={"certificate-authority-data": b64(OTHER.certificate)})
        assert read(stranger).fingerprint != read().fingerprint

    def test_it_does_not_print_its_secrets(self) -> None:
        user = {"client-certificate-data": b64(CLIENT.certificate), "client-key-data": b64(CLIENT.key)}
        config = read(make_document(user=user))
        assert "a-bearer-token" not in repr(config)
        assert "PRIVATE" not in f"{config}"
        assert len(config.secrets) == 2


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cluster": {"server": "http://10.0.0.5"}}, "not-https"),
    ({"cluster": {"server": None}}, "server-address-invalid"),
    ({"cluster": {"insecure-skip-tls-verify": True}}, "insecure-tls-refused"),
    ({"cluster": {"proxy-url": "http://proxy"}}, "proxy-refused"),
    ({"cluster": {"certificate-authority": "/ca", "certificate-authority-data": None}}, "file-path-refused"),
    ({"cluster": {"certificate-authority-data": None}}, "certificate-authority-missing"),
    ({"cluster": {"certificate-authority-data": "%%%"}}, "certificate-authority-invalid"),
    ({"cluster": {"certificate-authority-data": b64(b"hello")}}, "certificate-authority-invalid"),
    ({"cluster": {"certificate-authority-data": 5}}, "certificate-authority-invalid"),
    ({"cluster": {"tls-server-name": "a b"}}, "server-address-invalid"),
    ({"user": {"token": None}}, "credential-missing"),
    ({"user": {"token": None, "exec": {"command": "aws"}}}, "exec-refused"),
    ({"user": {"exec": {}}}, "exec-refused"),
    ({"user": {"token": None, "auth-provider": {"name": "gcp"}}}, "auth-provider-refused"),
    ({"user": {"token": None, "tokenFile": "/etc/shadow"}}, "file-path-refused"),
    ({"user": {"client-key": "/key"}}, "file-path-refused"),
    ({"user": {"token": None, "username": "a", "password": "b"}}, "basic-auth-refused"),
    ({"user": {"as": "system:admin"}}, "impersonation-refused"),
    ({"user": {"token": "a\r\nX-Header: b"}}, "credential-invalid"),
    ({"user": {"token": 5}}, "credential-invalid"),
    ({"user": {"token": "x" * 70_000}}, "credential-invalid"),
    ({"user": {"client-key-data": b64(CLIENT.key)}}, "credential-invalid"),
    (
        {"user": {"client-certificate-data": b64(CLIENT.certificate), "client-key-data": b64(OTHER.key)}},
        "credential-invalid",
    ),
    (
        {
            "user": {
                "client-certificate-data": b64(CLIENT.certificate),
                "client-key-data": b64(CLIENT.protected_key),
            }
        },
        "credential-invalid",
    ),
    ({"user": {"client-certificate-data": b64(b"x"), "client-key-data": b64(b"x")}}, "credential-invalid"),
    ({"user": {"token": make_jwt({"exp": (NOW - timedelta(hours=1)).timestamp()})}}, "credential-expired"),
    ({"kind": "Pod"}, "kubeconfig-malformed"),
    ({"clusters": "x"}, "kubeconfig-malformed"),
    ({"users": [5]}, "kubeconfig-malformed"),
    ({"users": [{"name": 1}]}, "kubeconfig-malformed"),
    ({"users": []}, "kubeconfig-malformed"),
    ({"contexts": []}, "context-missing"),
    ({"contexts": None}, "context-missing"),
]


class TestWhatIsRefused:
    @pytest.mark.parametrize(("changes", "slug"), REFUSED)
    def test_each_for_its_own_reason_with_a_way_out(self, changes: dict[str, Any], slug: str) -> None:
        problem = refused(make_document(**changes))
        assert problem.slug == slug
        assert problem.detail.endswith(".") or problem.detail.endswith(").")

    def test_all_reasons_come_at_once(self) -> None:
        document = make_document(
            cluster={"server": "http://x", "proxy-url": "http://p", "insecure-skip-tls-verify": True},
            user={"token": None, "exec": {"command": "x"}, "client-key": "/k"},
        )
        problem = refused(document)
        assert isinstance(problem, SeveralProblems)
        assert {one.slug for one in problem.problems} == {
            "not-https",
            "proxy-refused",
            "insecure-tls-refused",
            "exec-refused",
            "file-path-refused",
        }

    def test_several_contexts_are_listed(self) -> None:
        document = make_document()
        document["contexts"].append({"name": "other", "context": {"cluster": "c", "user": "u"}})
        problem = refused(document)
        assert isinstance(problem, SeveralContexts)
        assert problem.contexts == ("ctx", "other")
        assert refused(document, context="third").slug == "context-missing"

    def test_an_expired_client_certificate_is_told(self) -> None:
        old = make_pair(ends=NOW - timedelta(days=1))
        user = {"token": None, "client-certificate-data": b64(old.certificate), "client-key-data": b64(old.key)}
        assert refused(make_document(user=user)).slug == "credential-expired"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "just text",
            "[1, 2]",
            "a: [",
            "a: &x 1\nb: *x\n",
            "a: !!python/object/apply:os.system [id]",
            "a: !tag b",
            "[" * 10_000,
            "a: " + "{a: " * 40,
            "---\na: 1\n---\nb: 2\n",
            b"\xff\xfe\x00",
            "\ud800",
            "a: 2020-99-99",
            "a: " + "1" * 5_000,
            "\0",
            "- 1\n" * 100_000,
            "? [a]\n: b",
        ],
        ids=lambda text: repr(text)[:20],
    )
    def test_text_that_is_no_kubeconfig_is_refused(self, text: str | bytes) -> None:
        with pytest.raises(KubeconfigRefused):
            read_kubeconfig(text, now=NOW)

    def test_a_laughing_billion_costs_nothing(self) -> None:
        bomb = "a: &a [x,x]\n" + "\n".join(f"b{n}: &b{n} [*a,*a]" for n in range(100))
        with pytest.raises(refusals.KubeconfigUnreadable, match="aliases"):
            read_kubeconfig(bomb, now=NOW)

    def test_more_than_a_mebibyte_is_refused(self) -> None:
        with pytest.raises(refusals.KubeconfigTooLarge):
            read_kubeconfig("#" * (LARGEST_BYTES + 1), now=NOW)

    def test_a_parse_error_does_not_quote_the_content(self) -> None:
        with pytest.raises(refusals.KubeconfigUnreadable) as caught:
            read_kubeconfig("token: canary-value\n  bad: [", now=NOW)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert "line" in str(caught.value)


class TestGarbage:
    @given(st.one_of(st.text(), st.binary()))
    def test_any_text_is_read_or_refused(self, text: str | bytes) -> None:
        with contextlib.suppress(KubeconfigRefused):
            read_kubeconfig(text, now=NOW)

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )

    @settings(max_examples=150)
    @given(
        st.sampled_from(["server", "certificate-authority-data", "proxy-url", "tls-server-name"]),
        st.sampled_from(["token", "client-certificate-data", "client-key-data", "exec", "as", "username"]),
        json_values,
        json_values,
    )
    def test_any_value_anywhere_is_read_or_refused(self, of_cluster: str, of_user: str, one: Any, other: Any) -> None:
        with contextlib.suppress(KubeconfigRefused):
            read(make_document(cluster={of_cluster: one}, user={of_user: other}))

    @given(st.sampled_from(["clusters", "users", "contexts", "kind", "apiVersion", "current-context"]), json_values)
    def test_any_top_level_value_is_read_or_refused(self, name: str, value: Any) -> None:
        with contextlib.suppress(KubeconfigRefused):
            read(make_document(**{name: value}))


class TestInMemory:
    def test_another_process_reads_it_and_it_is_gone_afterwards(self) -> None:
        config = read()
        with config.in_memory() as path:
            command = [sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", path]
            seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert Path(path).read_text() == config.to_json()
        assert json.loads(seen) == json.loads(config.to_json())
        assert not os.path.exists(path)  # noqa: PTH110
