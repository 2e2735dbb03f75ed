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
    cause="the user name or the password is wrong, or none was given",
    cure="inv k8s.secret --namespace={namespaces} --attach",
    elsewhere="{create}",
    matter=LOGIN,
    fix=SECRET,
)

ROWS: tuple[Trouble, ...] = (
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
        r"|: denied: ",
        node=_NODE,
        cluster=_CLUSTER._replace(
            words=r"pull access denied|(resource|access) is denied|access forbidden"
            r"|[Aa]ccess denied|(^|: )denied(: |\s*$)"
        ),
    ),
    Trouble(
        "login-refused",
        r"\b401 \(?[A-Z]|[Uu]nauthorized|no basic auth credentials|authentication required"
        r"|incorrect username|invalid username/password",
        node=Told(
            message="{registry} refuses the login",
            cause="the user name or the password is wrong, or none was given",
            cure="check the login with the registry: inv registry.status",
        ),
        cluster=_NEEDED._replace(
            words=r"\b401\b|[Uu]nauthorized|authentication required|incorrect username"
            r"|invalid username/password|failed to authorize",
        ),
    ),
)
