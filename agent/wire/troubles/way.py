"""What lies between a machine and a registry: the name, the connection, the time."""

from __future__ import annotations

from agent.wire.troubles.row import NODE, ON_NODES, REACH, REGISTRY, TRUST, UP, Told, Trouble

ROWS: tuple[Trouble, ...] = (
    Trouble(
        "name-unresolved",
        r"no such host|server misbehaving|Temporary failure in name resolution",
        node=Told(
            message="the name {host} does not resolve on this node",
            cause="there is neither a hosts entry nor a DNS record for it",
            cure="let nodes.trust make a hosts entry (registry.address in invoke.yaml), or add "
            "a DNS record",
            elsewhere="add a DNS record for {host}, or have the registry not send its clients "
            "there",
        ),
        cluster=Told(
            message="the name {host} does not resolve on these nodes",
            cause="there is neither a hosts entry nor a DNS record for it",
            cure=ON_NODES,
            elsewhere="add a DNS record for {host}, or a hosts entry on {nodes}",
            matter=NODE,
            fix=TRUST,
            words=r"no such host|server misbehaving|[Tt]emporary failure in name resolution"
            r"|dial tcp: lookup ",
        ),
        engine=Told(
            message="this machine's engine does not know the name {name}",
            cure="inv registry.up adds it to /etc/hosts",
            words=r"no such host|server misbehaving|name resolution",
        ),
    ),
    Trouble(
        "registry-refused",
        r"connection refused",
        node=Told(
            message="{name} refuses the connection",
            cause="nothing listens on port {port} there",
            cure="start the registry: inv registry.up",
            elsewhere=REACH,
        ),
        cluster=Told(
            message="{registry} refuses the connection",
            cause="nothing listens there",
            cure="inv registry.up",
            elsewhere="start that registry, or correct its name and port",
            matter=REGISTRY,
            fix=UP,
            passing=True,
        ),
        engine=Told(
            message="nothing answers at {name}",
            cure="inv registry.up",
        ),
    ),
    Trouble(
        "no-route",
        r"no route to host|network is unreachable",
        node=Told(
            message="there is no route from this node to {name}",
            cause="the address is wrong, or a network or firewall is in the way",
            cure="check registry.address in invoke.yaml, then from the node: ip route get ADDRESS",
            elsewhere=REACH,
        ),
        cluster=Told(
            message="there is no route from these nodes to {registry}",
            cause="the address is wrong, or a network or firewall is in the way",
            cure="check registry.address, then from a node: ip route get ADDRESS",
            elsewhere="from a node: ip route get ADDRESS of {host}",
            matter=NODE,
            passing=True,
            words=r"no route to host|network is unreachable|host is down",
        ),
        engine=Told(
            message="this machine's engine finds no way to {name}",
            cure="check what /etc/hosts says of the name; inv doctor",
            words=r"no route to host|unreachable",
        ),
    ),
    Trouble(
        "registry-broken",
        r"\b500 \(?[A-Z]|Internal Server Error",
        node=Told(
            message="{name} answers with an error of its own",
            cause="something in the registry, or in its storage, is broken",
            cure="read its log: inv registry.logs",
        ),
        cluster=Told(
            message="{registry} answers with an error of its own",
            cause="something in the registry, or in its storage, is broken",
            cure="inv registry.logs",
            elsewhere="read that registry's log",
            matter=REGISTRY,
            passing=True,
        ),
    ),
    Trouble(
        "registry-timeout",
        r"i/o timeout|deadline exceeded|Client\.Timeout|no answer within|handshake timeout"
        r"|\b50[234] \(?[A-Z]",
        node=Told(
            message="{name} did not answer in time",
            cause="the address is wrong, a firewall drops packets, or the registry is too busy",
            cure="check the way from the node to the registry, then run again",
            elsewhere=REACH,
        ),
        cluster=Told(
            message="{registry} does not answer in time",
            cause="the address is wrong, a firewall drops packets, or the registry is too busy",
            cure="inv registry.status, then from a node: curl -v https://{registry}/v2/",
            elsewhere="from a node: curl -v https://{registry}/v2/",
            matter=REGISTRY,
            passing=True,
            words=r"i/o timeout|deadline exceeded|Client\.Timeout|TLS handshake timeout"
            r"|unexpected EOF|connection reset by peer|\b50[234]\b"
            r"|because the registry is unavailable\s*$|^RegistryUnavailable$",
        ),
        engine=Told(
            message="{name} does not answer this machine's engine in time",
            cure="check what /etc/hosts says of the name, and a firewall; inv doctor",
            words=r"i/o timeout|deadline exceeded|request canceled",
        ),
    ),
)
