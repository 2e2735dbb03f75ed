"""The journey that Moorage grew from, as steps: what people type by hand, and what Moorage types.

Pure: the steps for these settings. ``moorage.tasks.learn`` shows them and asks.
"""

from __future__ import annotations

from typing import NamedTuple

from moorage.settings import Settings


class TutorialStep(NamedTuple):
    """One step: why, the commands by hand, and tasks that do the same."""

    title: str
    why: str
    by_hand: tuple[str, ...]
    ours: tuple[str, ...]


def steps(settings: Settings) -> tuple[TutorialStep, ...]:
    """The journey for the registry of these settings, with the lab's first node as the node."""
    name, host = settings.registry_name, settings.registry.host
    node, image = f"{settings.lab.prefix}1", settings.image_reference
    folder = f"/etc/containerd/certs.d/{name}"
    return (
        TutorialStep(
            "A certificate",
            "The registry speaks TLS, so it needs a certificate that nodes can check by a CA.",
            (
                "openssl req -x509 -newkey rsa:4096 -nodes -days 3650 -keyout ca.key -out ca.crt"
                " -subj /CN=my-ca",
                f"openssl req -newkey rsa:4096 -nodes -keyout registry.key -out registry.csr"
                f" -subj /CN={host}",
                f"echo subjectAltName=DNS:{host} > san.txt",
                "openssl x509 -req -in registry.csr -CA ca.crt -CAkey ca.key -CAcreateserial"
                " -days 365 -extfile san.txt -out registry.crt",
            ),
            ("inv certs.issue",),
        ),
        TutorialStep(
            "A registry with a login",
            "It serves the certificate and lets in whoever knows the password.",
            (
                "htpasswd -Bc htpasswd moorage",
                f"docker run -d --restart=always -p {settings.registry.port}:443"
                " -v $PWD:/certs -e REGISTRY_HTTP_ADDR=:443 -e REGISTRY_AUTH=htpasswd ..."
                " registry:2",
            ),
            ("inv registry.up",),
        ),
        TutorialStep(
            "An image to pull",
            "Without one there is nothing to prove.",
            (f"docker build -t {image} .", f"docker login {name}", f"docker push {image}"),
            ("inv image.build image.push",),
        ),
        TutorialStep(
            "A node",
            "A throw-away node in Docker, with systemd, containerd and SSH; yours stay untouched.",
            ("(none: by hand you would try it on a real node)",),
            ("inv lab.up",),
        ),
        TutorialStep(
            "The node knows the registry and trusts it",
            "Name, CA and config.toml by hand, on each node. A typing error in config.toml keeps"
            " containerd from serving.",
            (
                f"echo ADDRESS {host} >> /etc/hosts",
                f"mkdir -p {folder} && cp ca.crt {folder}/",
                f"vi {folder}/hosts.toml      # server, ca",
                'vi /etc/containerd/config.toml      # config_path = "/etc/containerd/certs.d"',
                "systemctl restart containerd",
            ),
            (f"inv nodes.trust --hosts={node} --dry-run", f"inv nodes.trust --hosts={node}"),
        ),
        TutorialStep(
            "The proof",
            "A node that is set up is not yet a node that can pull.",
            (f"crictl pull --creds moorage:PASSWORD {image}",),
            (f"inv nodes.verify --hosts={node}",),
        ),
        TutorialStep(
            "A Secret, so that pods can pull",
            "Needs a cluster: inv up --kubernetes makes one of the lab's nodes.",
            (
                f"kubectl create secret docker-registry {settings.kubernetes.secret}"
                f" --docker-server={name} --docker-username=moorage --docker-password=PASSWORD",
                "kubectl patch serviceaccount default -p"
                f' \'{{"imagePullSecrets":[{{"name":"{settings.kubernetes.secret}"}}]}}\'',
            ),
            ("inv k8s.secret --namespace=default --attach",),
        ),
        TutorialStep(
            "Removing all of it",
            "By hand: from memory. Moorage knows what each file had before.",
            (f"rm -r {folder}; vi /etc/hosts /etc/containerd/config.toml; ...",),
            (f"inv nodes.untrust --hosts={node}", "inv down"),
        ),
    )
