"""Logins and rights."""

from __future__ import annotations

from agent.wire.troubles.row import LOGIN, SECRET, Told, Trouble

# A token server has no other words for a wrong login, for none, and for one that may not have the
# image: https://distribution.github.io/distribution/spec/auth/token/
_NODE = Told(
    message="{registry} refuses the login, or denies {image} to it",
    cause="the user name or the password is wrong, none was given, or this user may not pull it: "
    "a registry says the same of all three",
    cure="check the login with the registry: inv registry.status; then the user's rights there",
)
_CLUSTER = Told(
    message="{registry} refuses the login, or denies {image} to it",
    cause="the login is wrong, none was given, or this user may not pull the image: a "
    "registry with a token server says the same of all three",
    cure="inv k8s.secret --namespace={namespaces} --attach",
    elsewhere="{create}",
    matter=LOGIN,
    fix=SECRET,
    either=True,
)
_NEEDED = Told(
    message="{registry} refuses the login",
    cause="the user name or the password is wrong, or none was given; or it has expired",
    cure="inv k8s.secret --namespace={namespaces} --attach",
    elsewhere="{create}",
    matter=LOGIN,
    fix=SECRET,
)

# The front's own sentences (moorage/registry/front/haproxy.cfg.in): Docker, Podman and Skopeo pass
# them on, containerd says the status alone.
_MAY_NOT = r"\bthe login \S+ may (not (use|delete|list)\b|pull .*but not push\b)"
_GIVE = "inv users.list shows what each login may do; inv users.add gives a login more"
_FRONT = (
    Trouble(
        "access-denied",
        _MAY_NOT,
        node=Told(
            message="{registry} denies {image} to this login",
            cause="the login's role, or the repositories it is for, do not include that",
            cure=_GIVE,
        ),
        cluster=Told(
            message="{registry} denies {image} to this login",
            cause="the login's role, or the repositories it is for, do not include that",
            cure="inv k8s.secret --namespace={namespaces} --replace puts a login there that pulls"
            " everything",
            elsewhere="{create}",
            matter=LOGIN,
            either=True,
        ),
        engine=Told(
            message="{name} does not allow that to this login",
            cause="the login's role, or the repositories it is for, do not include that",
            cure=_GIVE,
        ),
    ),
    Trouble(
        "cached-path",
        r"\bof the cache of \S+: it fills itself\b",
        engine=Told(
            message="{name} does not accept pushes there",
            cause="it is the path of a cache of another registry, which fills itself by pulls",
            cure="inv registry.cache --list names those paths; push to another one",
        ),
    ),
    Trouble(
        "login-refused",
        r"\bthe login \S+ has expired\b",
        node=Told(
            message="{registry} refuses the login",
            cause="the login has expired",
            cure="inv users.add LOGIN with its role, and --expires for a later end",
        ),
        engine=Told(
            message="{name} refuses the login",
            cause="the login has expired",
            cure="inv users.add LOGIN with its role, and --expires for a later end",
        ),
    ),
)

ROWS: tuple[Trouble, ...] = (
    *_FRONT,
    Trouble(
        "login-refused",
        # The runtime had none to give, whatever it says of rights before that.
        r"no basic auth credentials",
        cluster=_NEEDED,
        engine=Told(
            message="{name} refuses the login",
            cure="inv registry.up gives the registry the login in .moorage/registry again",
            words=r"unauthorized|no basic auth credentials|authentication required|\b401 [A-Z]"
            r"|insufficient_scope",
        ),
    ),
    Trouble(
        "login-refused",
        r"insufficient_scope|(fetch (anonymous|oauth) token|[Bb]earer token)[^\n]*\b403 \(?[A-Z]",
        node=_NODE,
        cluster=_CLUSTER._replace(
            words=r"insufficient_scope|(fetch (anonymous|oauth) token|[Bb]earer token)[^\n]*\b403\b"
        ),
    ),
    Trouble(
        "access-denied",
        # A blob that is denied after the manifest was given is no matter of the login.
        r"\b403 \(?[A-Z]|StatusCode: 403"
        r"|(download failed after attempts=\d+|fetching blob): denied",
        node=Told(
            message="{registry} denies {image}",
            cause="this user may not pull it, or something before the registry blocks it",
            cure="give the user the right, or pull with another one",
        ),
        cluster=Told(
            message="{registry} denies {image}",
            cause="this user may not pull it, its login has expired, or something before the "
            "registry blocks it",
            cure="give the user the right, or pull with another one: inv k8s.secret"
            " --namespace={namespaces} --credentials=FILE --replace",
            elsewhere="give the user the right, or pull with another one: {create}",
            matter=LOGIN,
            either=True,
            words=r"\b403\b|Forbidden|download failed after attempts=\d+: denied"
            r"|fetching blob: denied",
        ),
        engine=Told(
            message="{name} does not allow it",
            cure="is the reference in invoke.yaml (image.name) one you may write?",
            words=r"\bdenied: |resource is denied|access forbidden|\b403 [A-Z]",
        ),
    ),
    Trouble(
        "login-refused",
        r"pull access denied|(resource|access) is denied|access forbidden|^\s*denied\s*$"
        r"|(?<!permission )\bdenied: ",
        node=_NODE,
        cluster=_CLUSTER._replace(
            words=r"pull access denied|(resource|access) is denied|access forbidden"
            r"|[Aa]ccess denied|(^|: )denied\s*$|(?<!permission )\bdenied: "
        ),
    ),
    Trouble(
        "login-refused",
        r"\b401 \(?[A-Z]|[Uu]nauthorized|no basic auth credentials|authentication required"
        r"|incorrect username|invalid username/password",
        node=Told(
            message="{registry} refuses the login",
            cause="the user name or the password is wrong, or none was given; or it has expired",
            cure="inv registry.up makes the nodes' login again; then the same command",
        ),
        cluster=_NEEDED._replace(
            words=r"\b401\b|[Uu]nauthorized|authentication required|incorrect username"
            r"|invalid username/password|failed to authorize",
        ),
    ),
)
