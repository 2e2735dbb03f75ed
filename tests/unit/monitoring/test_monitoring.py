"""What Prometheus is given: judged by promtool, by its own clock, and scraped by Prometheus."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import ssl
import stat
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.daemonset import scrape
from moorage import monitoring
from moorage.errors import Refused
from moorage.monitoring import dashboard, prometheus, rules, scraping
from moorage.pki import authority as authorities
from moorage.pki.authority import AGENT_NAME, Authority
from moorage.pki.ends import End
from moorage.pki.roster import Roster
from moorage.settings import CertsSettings, Settings, UpkeepSettings
from moorage.upkeep import outcomes, textfile
from tests.adopted import Folder, adopted, adopted_by_address
from tests.ports import free_port
from tests.prometheus import program

ROOT = Path(__file__).parents[3]
DAY = 86400
NODE = '{job="moorage-nodes",node="n1",instance="n1:7443",registry="r",folder="/"}'
# Of node_exporter on the registry's machine.
HERE = 'registry="r",job="moorage-upkeep",instance="127.0.0.1:9100"'
KEPT = "moorage_kept_certificate"
SUCCEEDED = "moorage_upkeep_last_success_timestamp_seconds"

# Each family has a sample.
UPKEEP = textfile.text(
    outcomes.Notes(9, {"collect": outcomes.PartOutcome(1, 2, 0.5, "x", "y")}),
    "my.registry.io",
    ROOT,
    (End("CA", "ca.crt", datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)),
     End("fleet CA", "fleet/ca.crt", None, why="spoilt")),
)  # fmt: skip


def disks(here: int, elsewhere: int) -> dict[str, str]:
    """What node_exporter shows if so many percent are free at the registry's mount point."""
    at = 'job="moorage-upkeep",instance="127.0.0.1:9100"'
    return {
        f'moorage_registry_storage_info{{{HERE},folder="/srv/r",mountpoint="/srv"}}': "1x30",
        **{
            f'node_filesystem_{name}_bytes{{{at},mountpoint="{place}"}}': f"{value}x30"
            for place, free in (("/srv", here), ("/", elsewhere))
            for name, value in (("avail", free), ("size", 100))
        },
    }


# Alert -> the series that fires it, one that does not, and the minutes after which it has to.
FIRES: dict[str, tuple[dict[str, str], dict[str, str], float]] = {
    "MoorageAgentSilent": ({f"up{NODE}": "1 1 0x30"}, {f"up{NODE}": "1x30"}, 1.5),
    "MoorageNodeNotTrusted": (
        {f"moorage_registry_trusted{NODE}": "0x30"},
        {f"moorage_registry_trusted{NODE}": "0 0 1x30"},
        3,
    ),
    "MoorageDriftGivenUp": (
        {f"moorage_drift_state{NODE}": "3x30"},
        {f"moorage_drift_state{NODE}": "1x30"},
        0.5,
    ),
    "MoorageDriftNotPutBack": (
        {f"moorage_drift_state{NODE}": "2x30"},
        {f"moorage_drift_state{NODE}": "0x30"},
        6,
    ),
    "MoorageOperationCutOff": (
        {f"moorage_interrupted{NODE}": "1x30"},
        {f"moorage_interrupted{NODE}": "0x30"},
        3,
    ),
    "MoorageStateDamaged": (
        {f"moorage_state_damaged{NODE}": "1x30"},
        {f"moorage_state_damaged{NODE}": "0x30"},
        3,
    ),
    "MoorageRegistryOutOfReach": (
        {f"moorage_registry_reachable{NODE}": "0x30"},
        {f"moorage_registry_reachable{NODE}": "1x30"},
        3,
    ),
    "MoorageRegistryDown": (
        {'up{job="moorage-registry",instance="127.0.0.1:5001"}': "1 1 0x30"},
        {'up{job="moorage-registry",instance="127.0.0.1:5001"}': "1x30"},
        1.5,
    ),
    "MoorageRegistryCertificateEnds": (
        {f"moorage_registry_certificate_end_timestamp_seconds{NODE}": f"{20 * DAY}x30"},
        {f"moorage_registry_certificate_end_timestamp_seconds{NODE}": f"{40 * DAY}x30"},
        0.5,
    ),
    "MoorageCAEnds": (
        {f"moorage_registry_ca_end_timestamp_seconds{NODE}": f"{20 * DAY}x30"},
        {f"moorage_registry_ca_end_timestamp_seconds{NODE}": f"{40 * DAY}x30"},
        0.5,
    ),
    "MoorageAgentCertificateEnds": (
        {f"moorage_certificate_end_timestamp_seconds{NODE}": f"{20 * DAY}x30"},
        {f"moorage_certificate_end_timestamp_seconds{NODE}": f"{40 * DAY}x30"},
        0.5,
    ),
    "MoorageKeptCertificateEnds": (
        {f'{KEPT}_end_timestamp_seconds{{certificate="CA",{HERE}}}': f"{20 * DAY}x30"},
        {f'{KEPT}_end_timestamp_seconds{{certificate="CA",{HERE}}}': f"{40 * DAY}x30"},
        0.5,
    ),
    "MoorageKeptCertificateInvalid": (
        {f'{KEPT}_valid{{certificate="CA",{HERE}}}': "0x30"},
        {f'{KEPT}_valid{{certificate="CA",{HERE}}}': "1x30"},
        3,
    ),
    # promtool's clock begins with 0, and there is a scrape each 30 seconds.
    "MoorageClockOff": (
        {f"moorage_node_time_seconds{NODE}": "400+30x30"},
        {f"moorage_node_time_seconds{NODE}": "200+30x30"},
        3,
    ),
    "MoorageDiskAlmostFull": (
        {
            f"moorage_filesystem_avail_bytes{NODE}": "9x30",
            f"moorage_filesystem_size_bytes{NODE}": "100x30",
        },
        {
            f"moorage_filesystem_avail_bytes{NODE}": "11x30",
            f"moorage_filesystem_size_bytes{NODE}": "100x30",
        },
        3,
    ),
    "MoorageCollectionFailed": (
        {f'moorage_upkeep_failed{{part="collect",{HERE}}}': "1x30"},
        {f'moorage_upkeep_failed{{part="collect",{HERE}}}': "0x30"},
        0.5,
    ),
    "MoorageUpkeepFailed": (
        {f'moorage_upkeep_failed{{part="renew",{HERE}}}': "1x30"},
        {f'moorage_upkeep_failed{{part="collect",{HERE}}}': "1x30"},
        0.5,
    ),
    # promtool's clock begins in 1970: what has to be old is of before that.
    "MoorageUpkeepSilent": (
        {f"moorage_upkeep_last_run_timestamp_seconds{{{HERE}}}": f"-{2 * DAY + 1}x30"},
        {f"moorage_upkeep_last_run_timestamp_seconds{{{HERE}}}": f"-{DAY}x30"},
        0.5,
    ),
    "MoorageBackupOld": (
        {f'{SUCCEEDED}{{part="backup",{HERE}}}': f"-{2 * DAY + 1}x30"},
        {
            f'{SUCCEEDED}{{part="backup",{HERE}}}': f"-{DAY}x30",
            f'{SUCCEEDED}{{part="prune",{HERE}}}': f"-{9 * DAY}x30",
        },
        0.5,
    ),
    "MoorageRegistryDiskAlmostFull": (
        disks(here=9, elsewhere=90),
        disks(here=11, elsewhere=1),
        3,
    ),
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(certs=CertsSettings(dir=str(tmp_path / "certs")))


def written(settings: Settings, tmp_path: Path, **how: bool) -> Path:
    found = monitoring.setup(
        settings, tmp_path / "out", kubernetes=how.get("kubernetes", True), check=False
    )
    return found.folder


def promtool(*words: str, said: str | None = None) -> str:
    done = subprocess.run(
        [program("promtool"), *words], input=said, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("kubernetes", [False, True])
def test_prometheus_takes_the_configuration_and_the_rules(
    settings: Settings, tmp_path: Path, kubernetes: bool
) -> None:
    folder = written(settings, tmp_path, kubernetes=True)
    if not kubernetes:
        (folder / "prometheus.yml").write_text(prometheus.document(settings, kubernetes=False))
    said = promtool("check", "config", str(folder / "prometheus.yml"))
    assert "1 rule files found" in said
    assert f"{len(rules.ALERTS) + 1} rules found" in said


def case(alert: str, series: dict[str, str], minutes: float, fires: bool) -> dict[str, Any]:
    """A test of promtool's: whether the alert fires ``minutes`` after the clock's beginning."""
    return {
        "interval": prometheus.INTERVAL,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                "eval_time": f"{int(minutes * 60)}s",
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
        ],
    }


def judge(folder: Path, *cases: dict[str, Any]) -> None:
    content = {
        "rule_files": ["alerts.yml"], "evaluation_interval": prometheus.INTERVAL,
        "tests": list(cases),
    }  # fmt: skip
    (folder / "test.yml").write_text(yaml.safe_dump(content))
    promtool("test", "rules", str(folder / "test.yml"))


def test_each_alert_fires_when_it_should_and_not_when_all_is_well(
    settings: Settings, tmp_path: Path
) -> None:
    assert set(FIRES) == {one.name for one in rules.ALERTS}
    folder = written(settings, tmp_path)
    judge(
        folder,
        *(case(name, bad, minutes, True) for name, (bad, _, minutes) in FIRES.items()),
        *(case(name, good, minutes, False) for name, (_, good, minutes) in FIRES.items()),
    )


def test_a_stopped_node_and_a_certificate_of_20_days_fire_within_two_scrapes(
    settings: Settings, tmp_path: Path
) -> None:
    folder = written(settings, tmp_path)
    two_scrapes = 2 * int(prometheus.INTERVAL.removesuffix("s")) / 60
    judge(
        folder,
        # Up until minute 1, which is the last good scrape.
        case("MoorageAgentSilent", {f"up{NODE}": "1 1 1 0x9"}, 1 + two_scrapes, True),
        *(
            case(name, FIRES[name][0], two_scrapes, True)
            for name in FIRES
            if name.endswith(("CertificateEnds", "CAEnds"))
        ),
    )


def test_the_viewers_own_end_is_told_although_its_holder_cannot_see_it(
    settings: Settings, tmp_path: Path
) -> None:
    folder = written(settings, tmp_path)
    for days, fires in ((20, True), (22, False)):
        (folder / "alerts.yml").write_text(rules.document(settings, days * DAY))
        judge(folder, case("MoorageViewerCertificateEnds", {f"up{NODE}": "1x9"}, 1, fires))


def test_every_alert_stands_in_the_page_of_both_languages() -> None:
    names = {one.name for one in (*rules.ALERTS, rules.viewer_ends(0))}
    for page in ("docs", "docs-zh"):
        text = (ROOT / page / "how-to" / "watch-it.md").read_text()
        assert set(re.findall(r"^\| (Moorage\w+) \|", text, re.MULTILINE)) == names, page


def test_prometheus_can_evaluate_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [{"record": f"p{n}", "expr": one.expression} for n, one in enumerate(dashboard.PANELS)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    assert f"{len(asked)} rules found" in promtool("check", "rules", str(path))


def test_every_alert_names_a_command_or_what_to_do(settings: Settings) -> None:
    for one in rules.ALERTS:
        assert one.cure.startswith(("inv ", "crictl ")), one
        assert one.severity in (rules.WARNING, rules.CRITICAL)


def test_promtool_has_nothing_to_say_about_the_upkeeps_metrics() -> None:
    assert promtool("check", "metrics", said=UPKEEP) == ""
    assert 'moorage_upkeep_failed{registry="my.registry.io",part="collect"} 1' in UPKEEP


def test_two_cas_of_one_name_in_one_file_are_one_sample_that_says_the_worse() -> None:
    """node_exporter refuses the whole file for a sample that is there twice."""
    ended, later = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2020, 2100))
    ends = [End("CA", "ca.crt (CN=x)", at) for at in (later, ended)]
    text = textfile.text(outcomes.Notes(), "r", ROOT, ends)
    assert promtool("check", "metrics", said=text) == ""
    kept = [line for line in text.splitlines() if line.startswith(KEPT)]
    assert [line.rpartition(" ")[2] for line in kept] == [str(int(ended.timestamp())), "0"]


def test_an_end_that_is_not_known_is_told_as_that_and_has_no_time() -> None:
    of = 'registry="my.registry.io",certificate='
    assert f'{KEPT}_end_timestamp_seconds{{{of}"CA",where="ca.crt"}} 4102444800' in UPKEEP
    assert f'{KEPT}_valid{{{of}"CA",where="ca.crt"}} 1' in UPKEEP
    assert f'{KEPT}_valid{{{of}"fleet CA",where="fleet/ca.crt"}} 0' in UPKEEP
    assert f'{KEPT}_end_timestamp_seconds{{{of}"fleet CA"' not in UPKEEP


def test_node_exporter_is_scraped_if_it_is_told_of_the_upkeep(settings: Settings) -> None:
    told = dataclasses.replace(settings, upkeep=UpkeepSettings(textfile="/srv/moorage.prom"))
    assert "moorage-upkeep" in prometheus.document(told, kubernetes=False)
    assert "moorage-upkeep" not in prometheus.document(settings, kubernetes=False)


# -- what is scraped ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with adopted_by_address(tmp_path) as made:
        yield made


def viewers_look(folder: Folder, out: Path) -> str:
    found = monitoring.setup(folder.settings, out, kubernetes=False, check=True)
    assert [one.state for one in found.answers] == [scraping.SCRAPED], found.answers
    node = found.answers[0].node
    context = ssl.create_default_context(cafile=str(out / "fleet-ca.crt"))
    context.load_cert_chain(out / "viewer.crt", out / "viewer.key")
    status, content = scraping._get(node, context)
    assert status == 200
    return content.decode()


def test_promtool_has_nothing_to_say_about_an_agents_metrics(
    folder: Folder, tmp_path: Path
) -> None:
    folder.apply()
    text = viewers_look(folder, tmp_path / "out")
    assert promtool("check", "metrics", said=text) == ""
    pod = scrape.text(str(folder.box.root), "node1", "full", True)
    assert promtool("check", "metrics", said=pod) == ""
    assert 'moorage_registry_trusted{node="node1",registry="my.registry.io"} 1' in pod


def test_rules_dashboard_and_pages_name_metrics_that_exist(folder: Folder, tmp_path: Path) -> None:
    folder.apply()
    text = viewers_look(folder, tmp_path / "out")
    served = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    # What this laid-out node has not got: a registry that answers, and a runtime that pulled.
    served |= {
        "moorage_registry_certificate_end_timestamp_seconds",
        "moorage_registry_last_pull_timestamp_seconds",
        "moorage_registry_last_pull_duration_seconds",
        "moorage_last_pull_seconds",
        "moorage_last_pull_timestamp_seconds",
    }
    served |= set(re.findall(r"^# TYPE (\S+)", scrape.text("/", "n", "full", True), re.MULTILINE))
    served |= set(re.findall(r"^# TYPE (\S+)", UPKEEP, re.MULTILINE))
    asked = " ".join(one.expression for one in (*rules.ALERTS, *dashboard.PANELS))
    assert set(re.findall(r"\bmoorage_[a-z_]+[a-z]\b", asked)) - {"moorage"} <= served
    for page in ("docs", "docs-zh"):
        told = set(
            re.findall(r"`(moorage_[a-z_]+)", (ROOT / page / "how-to/watch-it.md").read_text())
        )
        assert told == served, page


def test_prometheus_scrapes_a_real_agent(folder: Folder, tmp_path: Path) -> None:
    folder.apply()
    out = tmp_path / "out"
    monitoring.setup(folder.settings, out, kubernetes=False, check=True)
    configuration = out / "prometheus.yml"
    text = configuration.read_text().replace(prometheus.INTERVAL, "1s")
    configuration.write_text(text)
    port = free_port()
    log = tmp_path / "prometheus.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [
                program("prometheus"), f"--config.file={configuration}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=said,
        )  # fmt: skip
    try:
        wanted = 'up{job="moorage-nodes"} == 1 and on (node) moorage_registry_trusted == 1'
        wait_for(lambda: ask(port, wanted), log)
        assert ask(port, wanted)[0]["metric"]["node"] == "127.0.0.1"
        folder.agent.stop()
        silent = 'ALERTS{alertname="MoorageAgentSilent",alertstate="firing"}'
        wait_for(lambda: ask(port, silent), log)
    finally:
        process.terminate()
        process.wait(20)


def ask(port: int, query: str) -> list[dict[str, Any]]:
    words = urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{words}") as answer:
            return list(json.loads(answer.read())["data"]["result"])
    except OSError:
        return []


def wait_for(found: Any, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)


# -- what is said ---------------------------------------------------------------------------------


def test_an_agent_of_an_older_build_is_told_with_the_way_to_a_newer(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an agent from before viewers does with the role: it is no operator's.
    monkeypatch.setattr(authorities, "VIEWER", "urn:moorage:onlooker")
    found = monitoring.setup(folder.settings, tmp_path / "out", kubernetes=False, check=True)
    error = found.answers[0].error
    assert error is not None
    assert (found.answers[0].state, error.code) == (scraping.OLDER, "agent-before-viewers")
    assert "inv nodes.upgrade --hosts=127.0.0.1" in error.cure


def test_a_certificate_from_before_viewers_is_renewed_by_the_next_visit(tmp_path: Path) -> None:
    authorities_name, authorities.AGENT_NAME = authorities.AGENT_NAME, "another.name"
    try:
        with adopted(tmp_path) as made:
            authorities.AGENT_NAME = authorities_name
            roster = Roster(made.settings)
            known = roster.residents()["127.0.0.1"]
            roster.put("127.0.0.1", dataclasses.replace(known, address="127.0.0.1"))
            (made.box.root / "usr/bin/openssl").symlink_to("/usr/bin/openssl")
            out = tmp_path / "out"
            before = monitoring.setup(made.settings, out, kubernetes=False, check=True)
            assert before.answers[0].state == scraping.OLDER
            made.apply()  # a visit
            after = monitoring.setup(made.settings, out, kubernetes=False, check=True)
            assert after.answers[0].state == scraping.SCRAPED
    finally:
        authorities.AGENT_NAME = authorities_name


def test_an_agent_that_is_silent_or_has_no_address_is_told_and_nothing_hangs(
    folder: Folder, tmp_path: Path
) -> None:
    folder.agent.stop()
    roster = Roster(folder.settings)
    known = roster.residents()["127.0.0.1"]
    roster.put("far", dataclasses.replace(known, id="3" * 32, address=""))
    began = time.monotonic()
    found = monitoring.setup(folder.settings, tmp_path / "out", kubernetes=False, check=True)
    assert time.monotonic() - began < 15
    assert [one.state for one in found.answers] == [scraping.CLOSED] * 2
    assert {one.error.code for one in found.answers if one.error} == {"not-scrapable"}
    targets = json.loads((tmp_path / "out" / "nodes.json").read_text())
    assert [one["labels"]["node"] for one in targets] == ["127.0.0.1"]


def test_nothing_to_scrape_is_refused_and_no_file_is_written(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="nothing to scrape"):
        monitoring.setup(settings, tmp_path / "out", kubernetes=False, check=True)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "certs").exists()


def test_a_file_in_the_folders_place_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(Refused) as told:
        written(settings, tmp_path)
    assert told.value.code == "not-a-folder"
    assert (tmp_path / "out").read_text() == "mine"


def test_a_second_run_changes_nothing_and_keeps_owner_and_mode(
    settings: Settings, tmp_path: Path
) -> None:
    folder = written(settings, tmp_path)
    key = folder / "viewer.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = monitoring.setup(settings, folder, kubernetes=True, check=False)
    assert again.changed == ()
    key.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(key, 12345, 12346)
    key.write_bytes(b"old")
    assert monitoring.setup(settings, folder, kubernetes=True, check=False).changed == (
        "viewer.key",
    )
    assert stat.S_IMODE(key.stat().st_mode) == 0o640
    if os.geteuid() == 0:
        assert (key.stat().st_uid, key.stat().st_gid) == (12345, 12346)


def test_the_viewers_certificate_is_renewed_in_its_last_45_days(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorities, "VIEWER_DAYS", 44)
    first = Authority.open(settings).viewer()
    assert Authority.open(settings).viewer().renewed
    monkeypatch.undo()
    second = Authority.open(settings).viewer()
    assert second.renewed
    assert second.until > first.until
    assert not Authority.open(settings).viewer().renewed
    assert "PRIVATE" not in repr(second)


def test_the_pods_port_is_one_in_all_three_places(settings: Settings) -> None:
    service = yaml.safe_load((ROOT / "k8s" / "agents" / "service.yaml").read_text())
    assert service["spec"]["ports"][0]["port"] == scrape.PORT == prometheus.POD_PORT
    assert AGENT_NAME in prometheus.document(settings, kubernetes=False)


def test_a_pods_port_tells_metrics_and_nothing_else() -> None:
    server = scrape.serve(lambda: "moorage_agent_settled 1\n", free_port())
    assert server is not None
    port = server.server_address[1]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.read() == b"moorage_agent_settled 1\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/etc/passwd")
        assert scrape.serve(lambda: "", int(port)) is None
    finally:
        server.shutdown()
        server.server_close()


def test_the_dashboard_is_what_grafana_imports() -> None:
    made = json.loads(dashboard.document())
    assert len({one["id"] for one in made["panels"]}) == len(dashboard.PANELS)
    for one in made["panels"]:
        assert one["gridPos"]["x"] + one["gridPos"]["w"] <= 24
        assert one["targets"][0]["datasource"]["uid"] == "${source}"
