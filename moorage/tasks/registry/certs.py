"""Keys and certificates."""

from invoke.collection import Collection

from moorage.tasks.command import Run, command


@command(
    lock=True,
    help={"new_ca": "replace the CA; the old one stays as a dated copy"},
    own_registry="inv certs.issue",
)
def issue(run: Run, new_ca: bool = False) -> object:
    """Issue the CA and the registry's certificate; what is still good is kept.

    Example: inv certs.issue
    Example: inv certs.issue --new-ca
    """
    from moorage.pki import registry as pki

    issued = pki.issue(run.settings, run.ui, new_ca=new_ca)
    if not issued.changed:
        run.ui.say("unchanged: the certificates are still good")
    document = _shown(run)
    return {"ok": True, "changed": issued.changed, "made": list(issued.made), **document}


@command(lock=True)
def renew(run: Run) -> object:
    """Renew the registry's certificate and serve it; no connection is closed.

    A certificate that Moorage did not make is served as it lies in certs/.

    Example: inv certs.renew
    Example: inv certs.renew --json
    """
    from moorage.registry import renewal
    from moorage.upkeep import outcomes

    with outcomes.noted(run.settings, run.ui, "renew"):
        renewed = renewal.renew(run.settings, run.ui)
    run.ui.show(f"Served since now: {renewed.fingerprint}, until {renewed.not_after:%Y-%m-%d}.")
    document = _shown(run)
    return {"ok": True, "changed": renewed.changed, "served": renewed.fingerprint, **document}


@command()
def show(run: Run) -> object:
    """Show what the certificates say: names, end, fingerprints.

    Example: inv certs.show --json
    Example: inv certs.show
    """
    return {"ok": True, **_shown(run)}


def _shown(run: Run) -> dict[str, object]:
    from moorage.pki import registry as pki

    shown = pki.show(run.settings)
    folder = run.settings.certs_dir
    rows: list[list[str]] = []
    document: dict[str, object] = {
        "registry": None,
        "chain": [pki.to_json(one, folder / "registry.crt") for one in shown.chain],
        "made_here": shown.made_here,
    }
    for name, facts, file in (
        ("ca", shown.ca, run.settings.ca_file),
        ("registry", shown.registry, folder / "registry.crt"),
    ):
        if facts is None:
            continue
        said = pki.to_json(facts, file)
        document[name] = said
        rows += [
            [name, "file", said["path"]],
            ["", "subject", facts.subject],
            ["", "names", ", ".join(facts.names) or "-"],
            ["", "key", facts.key],
            ["", "ends", f"{facts.not_after:%Y-%m-%d %H:%M} UTC, in {said['days_left']} days"],
            ["", "SHA-256", facts.fingerprint],
        ]
    if shown.registry is not None:
        issuer = shown.registry.issuer
        rows.append(["", "made by", "Moorage" if shown.made_here else f"another: {issuer}"])
    rows += [["", "then", facts.subject] for facts in shown.chain]
    run.ui.table(("certificate", "", ""), rows)
    document["ends"] = _ends(run)
    return document


def _ends(run: Run) -> list[dict[str, object]]:
    """A table of when each certificate ends, with what the registry serves now."""
    import datetime

    from moorage.registry import served

    now = datetime.datetime.now(datetime.UTC)
    found = served.all_ends(run.settings)
    run.ui.table(("", "", "where"), [[one.what, one.words(now), one.where] for one in found])
    return [one.to_json(now) for one in found]


namespace = Collection("certs", issue, renew, show)
