"""Answers that are no registry's, or come of asking too much."""

from __future__ import annotations

from agent.wire.troubles.row import (
    NODE,
    ON_NODES,
    REACH,
    REGISTRY,
    TRUST,
    WHO_ANSWERS,
    Told,
    Trouble,
)

ROWS: tuple[Trouble, ...] = (
    Trouble(
        "plain-http",
        r"gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        trust=True,
        node=Told(
            message="{name} answers plain HTTP where TLS is expected",
            cause="something other than the TLS registry listens on that port",
            cure="check the port, and that the registry serves TLS: inv registry.status",
            elsewhere=REACH,
        ),
        cluster=Told(
            message="{registry} answers plain HTTP where TLS is expected",
            cause="something other than a TLS registry listens on that port",
            cure="inv registry.status; then inv registry.up",
            elsewhere="check the port, or say in hosts.toml that it is plain HTTP",
            matter=REGISTRY,
            words=r"server gave HTTP response to HTTPS client"
            r"|first record does not look like a TLS",
        ),
        engine=Told(
            message="whatever answers at {name} does not speak TLS",
            cure="inv registry.status shows what should be there; another program may hold the "
            "port",
            words=r"server gave HTTP response to HTTPS client",
        ),
    ),
    Trouble(
        "plain-to-https",
        r"HTTP request to an HTTPS server|malformed HTTP response"
        r"|(?<!<https> )\b400 Bad Request",
        cluster=Told(
            message="these nodes speak plain HTTP to the TLS port of {registry}",
            cause="their configuration names it with http:// (hosts.toml, or insecure-registries)",
            cure=ON_NODES,
            elsewhere="name it with https:// in certs.d/{registry}/hosts.toml",
            matter=NODE,
            fix=TRUST,
        ),
    ),
    Trouble(
        "rate-limit",
        r"toomanyrequests|[Tt]oo [Mm]any [Rr]equests|rate limit|\b429 \(?[A-Z]",
        node=Told(
            message="{name} limits how much is pulled",
            cause="this address or this login has pulled too much in a short time",
            cure="wait, then run again; a login, or a higher limit on the registry, helps for good",
            elsewhere="wait, then run again; a login, or a higher limit on {name}, helps for good",
        ),
        cluster=Told(
            message="{registry} limits how much is pulled",
            cause="too many pulls from this address or login",
            cure="wait, log in, or mirror the image into your own registry",
            matter=REGISTRY,
            passing=True,
            words=r"toomanyrequests|\b429\b|[Tt]oo [Mm]any [Rr]equests|rate limit",
        ),
        engine=Told(
            message="{name} limits how much is pulled and pushed",
            cure="wait, then run this again",
            words=r"toomanyrequests|too many requests",
        ),
    ),
    Trouble(
        "token-server",
        r"decode token response"
        r"|(fetch (anonymous|oauth) token|[Bb]earer token)[^\n]*\b(40[0456]|5\d\d) \(?[A-Z]",
        node=Told(
            message="the token server of {registry} issues no token",
            cause="whatever answers there is not a token server, or it is broken",
            cure="ask which one it is, then look at it: curl -si https://{registry}/v2/ | grep "
            "-i realm",
        ),
        cluster=Told(
            message="the token server of {registry} issues no token",
            cause="whatever answers there is not a token server, or it is broken",
            cure="from a node: curl -si https://{registry}/v2/ | grep -i realm; then look at "
            "that address",
            matter=REGISTRY,
            words=r"decode token response|decoding bearer token"
            r"|(fetch (anonymous|oauth) token|[Bb]earer token)[^\n]*\b(40[0456]|5\d\d) \(?[A-Z]",
        ),
    ),
    Trouble(
        "not-a-registry",
        r"media type text/|\(text/html\)|invalid character '<'|<!DOCTYPE|<html"
        r"|pinging container registry [^\n]*\b404 \(",
        node=Told(
            message="whatever answers for {name} is not a registry",
            cause="it sends a web page: a proxy, a sign-in page or another service answers in "
            "its place, or in place of its token server",
            cure="look at the page from the node: curl -i https://{name}/v2/",
        ),
        cluster=Told(
            message="whatever answers for {registry} is not a registry",
            cause="it sends a web page in place of an image: a proxy, a sign-in page or another "
            "service answers",
            cure=f"{WHO_ANSWERS} shows who; "
            "past a proxy: inv nodes.trust --hosts={nodes} --fix-proxy",
            elsewhere=f"{WHO_ANSWERS} shows who; "
            "past a proxy, add {host} to NO_PROXY of the runtime's unit",
            matter=REGISTRY,
            words=r"media ?type[^\n]{0,20}text/|\(text/html\)|invalid character '[^']+' looking for"
            r"|<!DOCTYPE|<html|pinging container registry [^\n]*\b404\b",
        ),
        engine=Told(
            message="whatever answers for {name} is not a registry: it sends a web page",
            cure="inv registry.status shows what should be there; curl -i https://{name}/v2/ "
            "what is",
            words=r"(?<!token response: )invalid character '<'|<!DOCTYPE|<html|media type text/",
        ),
    ),
)
