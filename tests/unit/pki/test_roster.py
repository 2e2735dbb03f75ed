"""The roster: many threads change it at once, and each finds its change on the disk."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from moorage.errors import Refused
from moorage.files import write_atomically
from moorage.pki.roster import Resident, Roster
from moorage.settings import CertsSettings, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(certs=CertsSettings(dir=str(tmp_path)))


def resident(number: int) -> Resident:
    return Resident(f"{number:032x}", 7443, f"{number:x}", 2_000_000_000)


def test_changes_of_many_threads_are_all_kept_and_few_writes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, writes, together = 24, list[int](), Barrier(24)

    def counted(path: Path, content: bytes) -> None:
        writes.append(len(content))
        write_atomically(path, content)

    monkeypatch.setattr("moorage.pki.roster.write_atomically", counted)
    roster = Roster(settings)

    def put(number: int) -> None:
        together.wait(20)
        roster.put(f"n{number}", resident(number))
        assert f"n{number}" in Roster(settings).residents()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(put, range(count)))
    assert len(Roster(settings).residents()) == count
    assert len(writes) < count


def test_what_another_command_wrote_meanwhile_is_seen_and_kept(settings: Settings) -> None:
    roster, path = Roster(settings), Path(settings.certs.dir, "fleet", "nodes.json")
    roster.put("a", resident(1))
    document = json.loads(path.read_bytes())
    document["nodes"]["b"] = dict(document["nodes"]["a"], id="2" * 32)
    path.write_text(json.dumps(document))
    assert roster.residents().keys() == {"a", "b"}
    roster.put("c", resident(3))
    assert Roster(settings).residents().keys() == {"a", "b", "c"}


def test_a_spoilt_file_is_refused_to_each_who_would_change_it(settings: Settings) -> None:
    path = Path(settings.certs.dir, "fleet", "nodes.json")
    path.parent.mkdir()
    path.write_text("{")
    for name in ("a", "b"):
        with pytest.raises(Refused, match="cannot be read"):
            Roster(settings).put(name, resident(1))
    assert path.read_text() == "{"


def test_a_node_is_a_line(settings: Settings) -> None:
    roster = Roster(settings)
    for number in range(3):
        roster.put(f'n"{number}', resident(number))
    roster.obey("ca")
    lines = Path(settings.certs.dir, "fleet", "nodes.json").read_text().splitlines()
    assert [line.count('"id"') for line in lines] == [0, 1, 1, 1, 0]
