"""What keeps the machine itself from pulling: its runtime, its disk, its certificates, a proxy."""

from __future__ import annotations

from agent.wire.troubles.row import CA_THERE, NO_PROXY, NODE, ON_NODES, TRUST, Told, Trouble

ROWS: tuple[Trouble, ...] = (
    Trouble(
        "runtime-down",
        r"dial unix [^ ]*\.sock: |unknown service runtime\.v1(alpha2)?\.",
        cluster=Told(
            message="the container runtime does not serve",
            cause="containerd is stopped, or its CRI plugin did not load",
            cure="on the node: journalctl -u containerd -n 50; ctr plugins ls",
            matter=NODE,
            passing=True,
        ),
    ),
    Trouble(
        "disk-full",
        r"no space left on device|[Dd]isk [Qq]uota exceeded",
        node=Told(
            message="the image does not fit on this node's disk",
            cause="the disk with the runtime's images is full",
            cure="make room (df -h), then run again",
        ),
        cluster=Told(
            message="the disk of these nodes is full",
            cause="the image does not fit where the runtime keeps its images",
            cure="make room on {nodes}: crictl rmi --prune; df -h",
            matter=NODE,
        ),
        engine=Told(
            message="the disk is full",
            cure="docker system df shows what takes the room; make some, then run this again",
        ),
    ),
    Trouble(
        "client-certificate",
        r"failed to load X509 key pair|missing key \S+ for client certificate"
        r"|[Mm]issing client certificate \S+ for key|private key does not match public key",
        trust=True,
        node=Told(
            message="a client's certificate or key in {folder} keeps the runtime from asking "
            "{name}",
            cause="a *.cert there counts as a client's certificate and needs its *.key, and a "
            "*.key its *.cert; a CA's file has to end with .crt",
            cure="ls -l {folder}; rename a CA's file to *.crt, move half a pair away, then run "
            "again",
        ),
        cluster=Told(
            message="a client's certificate or key keeps these nodes from asking {registry}",
            cause="a *.cert in certs.d counts as a client's certificate and needs its *.key, and "
            "a *.key its *.cert; a CA's file has to end with .crt",
            cure="on the node: ls -l /etc/containerd/certs.d/{registry} "
            "/etc/docker/certs.d/{registry}; then rename a CA's file to *.crt, or move "
            "half a pair away",
            matter=NODE,
        ),
        engine=Told(
            message="a client's certificate or key in /etc/docker/certs.d/{name} is without its "
            "other half",
            cure="ls -l /etc/docker/certs.d/{name}; a CA's file has to end with .crt, half a "
            "pair has to go",
        ),
    ),
    Trouble(
        "ca-unreadable",
        r"unable to (read|load) CA cert|\b(read|open) \S*certs\.d/",
        trust=True,
        node=Told(
            message="the runtime cannot read the CA file {path}",
            cause="the file is missing, is damaged, or is not a file",
            cure="ls -l {typed}; move it away if it is not Moorage's, then: inv nodes.trust",
        ),
        cluster=Told(
            message="the runtime cannot read the CA file it was pointed to",
            cause="the file that hosts.toml names is missing or damaged",
            cure=ON_NODES,
            elsewhere=CA_THERE,
            matter=NODE,
            fix=TRUST,
            words=r"unable to (read|load) CA|failed to (read|load) CA|\b(read"
            r"|open) [^ ]*/certs\.d/[^ ]*: ",
        ),
    ),
    Trouble(
        "proxy",
        # Of a proxy that refuses, Go says the status' words alone, where a registry's status has
        # its number: https://go.dev/src/net/http/transport.go (dialConn, CONNECT).
        r"proxyconnect|[Pp]roxy Authentication Required"
        r"|(Head|Get)\s*: [A-Z][a-z]+( [A-Z][a-z]+)*\s*$",
        node=Told(
            message="the runtime asks a proxy for the registry",
            cause="HTTPS_PROXY is set in its environment and the registry is not in NO_PROXY",
            cure="inv nodes.trust --fix-proxy, or add {host} to NO_PROXY of the service and "
            "restart it",
        ),
        cluster=Told(
            message="the runtime asks a proxy for {registry}",
            cause="HTTPS_PROXY is set in its environment and {host} is not in NO_PROXY",
            cure="inv nodes.trust --hosts={nodes} --fix-proxy",
            elsewhere="add {host} to NO_PROXY of the runtime's unit on {nodes}, then restart it",
            matter=NODE,
            fix=NO_PROXY,
            words=r"proxyconnect|[Pp]roxy [Aa]uthentication [Rr]equired|\b407\b"
            r"|(Head|Get)\s*: [A-Z][a-z]+( [A-Z][a-z]+)*\s*($|[\";])",
        ),
        engine=Told(
            message="this machine's engine asks a proxy for {name}",
            cure="add the registry's name to NO_PROXY of the Docker service",
            words=r"proxyconnect|proxy authentication required",
        ),
    ),
)
