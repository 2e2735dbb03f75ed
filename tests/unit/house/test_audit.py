"""What `nox -s audit` makes of pip-audit's words."""

from __future__ import annotations

import json
import re

from tests.audit.__main__ import ACCEPTED, ROOT, Kept, accepted, judged, locks

VULN = {"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.0"]}


def said(**more: object) -> str:
    return json.dumps({"dependencies": [{"name": "x", "version": "1.0", **more}]})


def test_an_advisory_that_nobody_has_looked_at_is_open() -> None:
    report = judged("a.lock", said(vulns=[VULN]), [])
    assert report.unknown == ("x 1.0: PYSEC-1 CVE-2026-1 (mended in 2.0)",)


def test_an_accepted_one_is_not_by_whichever_of_its_names() -> None:
    kept = [Kept("a.lock", "x", "1.0", frozenset({"CVE-2026-1"}))]
    assert judged("a.lock", said(vulns=[VULN]), kept).unknown == ()
    assert judged("b.lock", said(vulns=[VULN]), kept).unknown
    assert judged("a.lock", said(vulns=[{**VULN, "aliases": []}]), kept).unknown


def test_a_package_that_the_index_does_not_know_is_not_counted_as_audited() -> None:
    report = judged("a.lock", said(skip_reason="not found on PyPI"), [])
    assert (report.asked, report.skipped) == (1, 1)


def test_what_is_accepted_is_what_the_locks_pin() -> None:
    for one in accepted(ACCEPTED.read_text()):
        assert one.lock in locks()
        if one.package:
            pinned = (ROOT / one.lock).read_text()
            assert re.search(rf"^{one.package}=={re.escape(one.last)}\b", pinned, re.MULTILINE)


def test_every_entry_has_a_reason() -> None:
    assert all(part.count("reason = ") == 1 for part in ACCEPTED.read_text().split("[[kept]]")[1:])
