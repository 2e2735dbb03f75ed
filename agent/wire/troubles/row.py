"""A row of the table of troubles, and what a side says of it."""

from __future__ import annotations

import re
from typing import NamedTuple

# The host of a URL: in what a runtime says, that of the last one is at fault.
SITE = re.compile(r"https?://([^/\s\"\\]+)")
IMAGE_NAME = "@image"  # stands for the image's name in the words that a row is compared with

# What a trouble is a matter of; the cluster's side groups pods by it.
NODE, IMAGE, LOGIN, REGISTRY = "node", "image", "login", "registry"

# Commands of ours that cure a trouble: the key of a fix in `moorage.cluster.workload.cures`.
TRUST, UP, ISSUE, SECRET, PUSH = "nodes.trust", "registry.up", "certs.issue", "k8s.secret", "push"
NO_PROXY = "nodes.trust --fix-proxy"

# Cures that several rows name.
ON_NODES = "inv nodes.trust --hosts={nodes}"
ISSUE_ANEW = "inv certs.issue && inv registry.up"
CA_THERE = "put that registry's CA on the nodes: certs.d/{registry}/ca.crt"
CA_ELSEWHERE = "give the runtime the CA of {name}: {folder}/ca.crt; or ask whoever runs {name}"
REACH = "from the node: curl -v https://{name}/; or have the registry not send its clients there"
WHO_ANSWERS = "from a node: curl -vL https://{registry}/v2/"
PRELOAD = "docker pull {image} && inv nodes.preload {image} --hosts={nodes}"


class Told(NamedTuple):
    """What one side says of a trouble.

    Each side fills in {registry}, {host} and {image}. A node also {name} (the host that is asked,
    the registry as a rule), {port}, {now}, {path} (the file that the words name), {typed} (the same
    in a command), {folder} (where the registry's certificates are) and {pull} (the same pull by
    hand); the engine {name}; the cluster {nodes}, {namespaces}, {pod}, {why}, {tags}, {pull}, and
    of a login {asked} (the server as the image spells it), {create} and {again} (commands that make
    the Secret).

    ``elsewhere`` is the cure if another host than our registry is at fault. ``words`` are this
    side's own where it hears others than the row has.

    The cluster's alone: ``matter``; ``fix``, the command of ours that does the cure; ``passing``,
    it may go away by itself, so waiting makes sense; ``either``, a registry says the same of a
    login without the right as of a wrong one.
    """

    message: str
    cause: str = ""
    cure: str = ""
    elsewhere: str = ""
    words: str = ""
    matter: str = REGISTRY
    fix: str = ""
    passing: bool = False
    either: bool = False


class Trouble(NamedTuple):
    """A reason why a pull fails: its code, the words it is known by, and what each side says of it.

    ``told`` is what a side says that has no text of its own; a side without any does not know the
    row. ``trust``: it is the node's trust that fails, so that a change of it is rolled back.
    """

    code: str
    words: str
    told: Told | None = None
    trust: bool = False
    node: Told | None = None
    cluster: Told | None = None
    engine: Told | None = None


class Row(NamedTuple):
    """A trouble as one side has it."""

    code: str
    words: str
    trust: bool
    told: Told
