"""``ssh -G`` is the judge of our own reading: Hypothesis writes configurations, both read them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moorage.errors import Refused
from moorage.fleet.openssh import answers, files, program
from moorage.fleet.openssh.program import Query

pytestmark = pytest.mark.skipif(not shutil.which("ssh"), reason="needs OpenSSH's ssh")

NAMES = ["web1", "web2", "Web1", "db1", "web1.lan", "real1.lan", "198.51.100.7"]
PATTERNS = [*NAMES, "web*", "*", "!web1", "!Web*", "?eb1", "*.lan", "w[e]b1", "WEB1", "web1,db*"]
USERS = ["root", "ops", "no*", "!root", "*", "ops,root"]
SEPARATORS = [" ", "=", " = ", "\t", "= ", "   "]
# What both are compared by; keys of ours are absent if nothing says them.
COMPARED = {
    "hostname": "",
    "port": "22",
    "user": "",
    "identityfile": None,
    "certificatefile": None,
    "proxyjump": "none",
    "proxycommand": "none",
    "hostkeyalias": None,
    "identitiesonly": "no",
    "hashknownhosts": "no",
    "connecttimeout": "none",
    "bindaddress": None,
    "addressfamily": "any",
}


def quoted(words: list[str]) -> st.SearchStrategy[str]:
    plain = st.sampled_from(words)
    return st.one_of(plain, plain, plain.map(lambda w: f'"{w}"'), plain.map(lambda w: f"'{w}'"))


def cased(*words: str) -> st.SearchStrategy[str]:
    ways = (str, str.lower, str.upper)
    return st.builds(lambda word, way: way(word), st.sampled_from(words), st.sampled_from(ways))


def line(keyword: st.SearchStrategy[str], value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    parts = st.tuples(
        st.sampled_from(["", "  ", "\t"]), keyword, st.sampled_from(SEPARATORS), value
    )
    return parts.map("".join)


def condition() -> st.SearchStrategy[str]:
    gap = st.sampled_from([" ", "=", "  "])
    # In a Match line a quote of the other kind is a sign like others.
    hosts = st.sampled_from([*PATTERNS, '"web1"', '"web*,!web2"'])
    about = st.one_of(
        st.tuples(cased("host", "OriginalHost"), gap, hosts),
        st.tuples(cased("User", "LocalUser"), gap, st.sampled_from(USERS)),
        st.tuples(cased("final", "Canonical", "All")),
    )
    return st.builds(lambda no, words: no + "".join(words), st.sampled_from(["", "", "!"]), about)


HOST = line(cased("Host"), st.lists(quoted(PATTERNS), min_size=1, max_size=3).map(" ".join))
MATCH = st.lists(condition(), min_size=1, max_size=3).map(lambda words: "Match " + " ".join(words))
COMMENT = st.sampled_from(["", "", " # words"])
HEAD = st.builds(str.__add__, st.one_of(HOST, MATCH), COMMENT)
OPTION = st.one_of(
    line(cased("HostName"), quoted(["%h.lan", "10.0.0.1", "Real1.lan", "web2", "%%h", "a%h"])),
    line(cased("Port"), st.sampled_from(["22", "2222", "2200", "x"])),
    line(cased("User"), quoted(["ops", "root", "joe", "a b"])),
    line(cased("IdentityFile"), quoted(["~/a", "/b", "none", "%d/k"])),
    line(cased("CertificateFile"), quoted(["~/a-cert.pub"])),
    line(cased("ProxyJump"), st.sampled_from(["none", "j1", "ops@j2:2200,j1"])),
    line(cased("ProxyCommand"), st.sampled_from(["none", "nc %h %p", "ssh -W %h:%p 'a b' # x"])),
    line(cased("HostKeyAlias"), st.sampled_from(["rack", "Rack2"])),
    line(cased("IdentitiesOnly", "HashKnownHosts"), st.sampled_from(["yes", "no", "TRUE", "1"])),
    line(cased("ConnectTimeout"), st.sampled_from(["3", "7"])),
    line(cased("BindAddress"), st.just("127.0.0.1")),
    line(cased("AddressFamily"), st.sampled_from(["inet", "inet6"])),
    line(cased("Include"), st.sampled_from(["DIR/inc1", "DIR/inc*", "DIR/none", '"DIR/inc2"'])),
    st.sampled_from(["# words", "", "  ", "\t# words", "ForwardAgent yes", "SendEnv LANG LC_*"]),
)
TEXT = st.lists(st.one_of(HEAD, OPTION, OPTION), max_size=9).map("\n".join)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=150)
@given(
    TEXT,
    TEXT.map(lambda text: text.replace("DIR/inc", "DIR/none")),
    st.sampled_from(NAMES),
    st.sampled_from(["", "ops"]),
    st.sampled_from([0, 2022]),
)
@example("Match originalhost web1 Host db*\nHostName 10.0.0.1", "", "web1", "", 0)
@example("Match canonical\nInclude DIR/inc1\nPort 2222", "Match FINAL canonical", "Web1", "", 0)
@example("ProxyJump none\nProxyCommand nc %h %p", "", "web1", "", 0)
@example("Host x\nInclude DIR/inc1\nHost *\nPort 2222", "Host *\nPort 1", "web1", "", 0)
def test_our_own_reading_is_openssh(
    folder: Path, text: str, included: str, host: str, user: str, port: int
) -> None:
    for name, content in (("config", text), ("inc1", included), ("inc2", "Host web2\nPort 7\n")):
        (folder / name).write_text(content.replace("DIR", str(folder)))
        (folder / name).chmod(0o600)
    config = folder / "config"
    query = Query(host, user, port, (), str(config))
    ssh = program.find()
    assert ssh is not None
    try:
        theirs = ssh.options(query)
    except Refused:
        with pytest.raises(Refused):
            answers._Ours(config).options(query)
        return
    try:
        ours = answers._Ours(config).options(query)
    except Refused as refusal:
        assert "OpenSSH's releases differ" in refusal.cause
        return
    for key, usual in COMPARED.items():
        assert _said(ours, key, usual) == _said(theirs, key, usual), key


def _said(options: answers.Options, key: str, usual: str | None) -> object:
    default = (files.me() if key == "user" else usual,)
    return tuple(
        {"true": "yes", "false": "no"}.get(str(value).lower(), value)
        if key in ("identitiesonly", "hashknownhosts")
        else value
        for value in options.get(key, default)
    )
