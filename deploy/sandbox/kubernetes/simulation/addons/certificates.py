"""kube-webhook-certgen: hook Jobs that make the TLS Secret of a webhook and put the CA into its configuration."""

from __future__ import annotations

import base64
from typing import Any

from sandbox.kubernetes.simulation.addons.agents import Agent, images_of, words_of

Obj = dict[str, Any]


class CertificateJobs(Agent):
    """Secrets appear when a `create` Job has run; the certificate is a placeholder, since nothing here verifies it."""

    def is_mine(self, pod: Obj) -> bool:
        """A pod of the certgen image."""
        return "webhook-certgen" in images_of(pod) or any(word.startswith("--secret-name=") for word in words_of(pod))

    def finished(self, pod: Obj) -> None:
        """Write the Secret that the Job was asked for."""
        options = dict(word.lstrip("-").split("=", 1) for word in words_of(pod) if "=" in word)
        namespace, name = options.get("namespace", pod["metadata"]["namespace"]), options.get("secret-name")
        if "create" in words_of(pod) and name and self.world.store.find("Secret", namespace, name) is None:
            placeholder = base64.b64encode(b"not a certificate").decode()
            names = ("ca", "cert", "key", "ca.crt", "tls.crt", "tls.key")
            self.world.store.create({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": name, "namespace": namespace},
                "data": dict.fromkeys(names, placeholder),
            })  # fmt: skip
