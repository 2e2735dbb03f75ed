"""What keeps TLS with a registry from coming about."""

from __future__ import annotations

from agent.wire.troubles.row import (
    CA_ELSEWHERE,
    CA_THERE,
    ISSUE,
    ISSUE_ANEW,
    NODE,
    ON_NODES,
    REGISTRY,
    TRUST,
    Told,
    Trouble,
)

_PAIR = "set registry.client_cert and registry.client_key in invoke.yaml to a pair that it accepts"
_ANOTHER = (
    "ask whoever runs {registry} for another pair, and name it as registry.client_cert and "
    "registry.client_key in invoke.yaml"
)
_MUTUAL = (
    "it lets in only who presents a client's certificate (mutual TLS); by TLS 1.2 a server says "
    "'handshake failure' of that, and of having no cipher in common"
)

ROWS: tuple[Trouble, ...] = (
    Trouble(
        "client-refused",
        r"remote error: tls: (unknown certificate authority|unknown certificate\b|access denied"
        r"|(expired|revoked|unsupported) certificate)|The SSL certificate error",
        node=Told(
            message="{name} does not accept the certificate that it is shown",
            cause="its CA is not one that {name} asks for, or the certificate has ended or was "
            "revoked",
            cure=f"{_ANOTHER}, then: inv nodes.trust",
            elsewhere="put a pair that {name} accepts at {folder}/client.cert and "
            "{folder}/client.key",
        ),
        cluster=Told(
            message="{registry} does not accept the certificate that these nodes show it",
            cause="its CA is not one that {registry} asks for, or the certificate has ended or was "
            "revoked",
            cure=f"{_ANOTHER}, then: {ON_NODES}",
            elsewhere="put a pair that it accepts on the nodes: certs.d/{registry}/client.cert and "
            "client.key",
            matter=NODE,
        ),
        engine=Told(
            message="{name} does not accept the certificate that it is shown",
            cure=_ANOTHER,
        ),
    ),
    Trouble(
        "client-wanted",
        r"tls: (certificate required|bad certificate|handshake failure)"
        r"|No required SSL certificate was sent",
        node=Told(
            message="{name} wants a certificate of its clients",
            cause=_MUTUAL,
            cure=f"{_PAIR}, then: inv nodes.trust",
            elsewhere="put the pair beside the CA: {folder}/client.cert and {folder}/client.key",
        ),
        cluster=Told(
            message="{registry} wants a certificate of its clients",
            cause=_MUTUAL,
            cure=f"{_PAIR}, then: {ON_NODES}",
            elsewhere="put the pair beside the CA on the nodes: certs.d/{registry}/client.cert and "
            "client.key",
            matter=NODE,
            fix=TRUST,
        ),
        engine=Told(
            message="{name} wants a certificate of its clients",
            cause=_MUTUAL,
            cure=f"{_PAIR}; this machine's engine reads it beside the CA: "
            "/etc/docker/certs.d/{name}/client.cert and client.key",
        ),
    ),
    Trouble(
        "x509-unknown-authority",
        r"fetch (anonymous|oauth) token: [^\n]*x509: certificate signed by unknown authority",
        node=Told(
            message="the runtime does not trust {name}, the token server of {registry}",
            cause="its certificate is another CA's than the registry's; or this is Docker with "
            "containerd's image store, which asks for tokens with only the system's CAs",
            cure="inv nodes.trust --system-store, then on the node: systemctl restart docker",
            elsewhere="have the node trust the CA of {name}; Docker with containerd's image store: "
            "inv nodes.trust --system-store, then on the node: systemctl restart docker",
        ),
    ),
    Trouble(
        "x509-unknown-authority",
        r"x509: certificate signed by unknown authority|unknown certificate authority",
        trust=True,
        node=Told(
            message="the runtime does not trust the certificate of {name}",
            cause="it does not read the CA where this agent put it, or the certificate is "
            "another CA's",
            cure="compare inv certs.show with what the registry presents; then inv nodes.trust "
            "again",
            elsewhere=CA_ELSEWHERE,
        ),
        cluster=Told(
            message="these nodes do not trust the certificate of {registry}",
            cause="the runtime does not find its CA where it looks for it, or it is another CA's",
            cure=ON_NODES,
            elsewhere=CA_THERE,
            matter=NODE,
            fix=TRUST,
            words=r"x509: certificate signed by unknown authority|unknown certificate authority"
            r"|x509: certificate is not trusted|not trusted by the trust provider",
        ),
        engine=Told(
            message="this machine's engine does not trust {name}",
            cure="inv registry.up makes this machine's engine trust the registry",
        ),
    ),
    Trouble(
        "x509-common-name",
        r"x509: certificate relies on legacy Common Name",
        cluster=Told(
            message="the certificate of {registry} has its name in the old place only",
            cause="it names {host} as Common Name; runtimes read only subject alternative names",
            cure=ISSUE_ANEW,
            elsewhere="have it issued again with {host} as subject alternative name",
            matter=REGISTRY,
            fix=ISSUE,
        ),
    ),
    Trouble(
        "x509-wrong-name",
        r"x509: certificate is (valid for|not valid for any names)|legacy Common Name"
        r"|doesn't contain any IP SANs|x509: cannot validate certificate for",
        trust=True,
        node=Told(
            message="the registry's certificate is for another name than {name}",
            cause="its subject alternative names do not have {host}",
            cure="issue it again with that name: inv certs.issue",
            elsewhere="have whoever runs {name} issue its certificate with that name",
        ),
        cluster=Told(
            message="the certificate of {registry} is for another name",
            cause="{host} is not among its subject alternative names",
            cure=ISSUE_ANEW,
            elsewhere="have it issued again with {host} as subject alternative name",
            matter=REGISTRY,
            fix=ISSUE,
            words=r"x509: certificate is (valid for|not valid for any names)"
            r"|doesn't contain any IP SANs|x509: cannot validate certificate for",
        ),
        engine=Told(
            message="the certificate of {name} is for another name",
            cure="inv registry.up issues one for the name in invoke.yaml",
            words=r"x509: .*(?:is valid for|not valid for any names|doesn't contain any"
            r"|Common Name)",
        ),
    ),
    Trouble(
        "x509-not-yet-valid",
        r"x509: certificate has expired or is not yet valid: current time \S+ is before",
        cluster=Told(
            message="the certificate of {registry} is not valid yet on these nodes",
            cause="their clocks are behind, or the registry's was ahead when it was issued",
            cure="compare `date` on {nodes} with this machine's, and set them right (NTP)",
            matter=NODE,
        ),
    ),
    Trouble(
        "x509-expired",
        r"x509: certificate has expired or is not yet valid",
        trust=True,
        node=Told(
            message="the certificate of {name} has expired or is not yet valid",
            cause="its time is over, or this node's clock is wrong (it says {now})",
            cure="check `date` on the node, else issue it again: inv certs.issue",
            elsewhere="check `date` on the node, else have whoever runs {name} issue it again",
        ),
        cluster=Told(
            message="the certificate of {registry} has expired",
            cause="its time is over (or the nodes' clocks are ahead)",
            cure=ISSUE_ANEW,
            elsewhere="have it issued again",
            matter=REGISTRY,
            fix=ISSUE,
        ),
        engine=Told(
            message="the certificate of {name} is not valid at this machine's time",
            cure="inv certs.show shows its dates; check the clock, then inv registry.up",
            words=r"x509: certificate has expired|not yet valid",
        ),
    ),
    Trouble(
        "tls-failed",
        r"x509:|tls: |remote error: tls",
        trust=True,
        node=Told(
            message="TLS with {name} fails",
            cause="the runtime and the server do not agree on a secure connection",
            cure="look at the runtime's words in this message",
            elsewhere="look at the runtime's words in this message",
        ),
        cluster=Told(
            message="TLS with {registry} fails",
            cause="the runtime and the registry do not agree on a secure connection",
            cure="inv registry.status; inv certs.show",
            elsewhere="look at the runtime's words below",
            matter=REGISTRY,
            words=r"x509: |tls: |remote error: tls",
        ),
        engine=Told(
            message="this machine's engine and {name} do not agree on TLS",
            cure="inv certs.show; inv registry.up",
            words=r"x509:|tls: ",
        ),
    ),
)
