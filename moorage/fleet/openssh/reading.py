"""Our own reading of an OpenSSH configuration, for machines that have no ``ssh`` to ask. Pure.

It answers as ``ssh -G`` does or not at all: a line that it does not understand, and a condition
that it cannot decide, is refused by file and line. Source: readconf.c of OpenSSH.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moorage.fleet.openssh import words
from moorage.fleet.openssh.files import Block, ConfigFile, ConfigLine, unreadable

# What is found: a keyword in small letters -> its values.
Options = Mapping[str, tuple[str, ...]]

_CURE = (
    "install OpenSSH's ssh (apt-get install openssh-client), which is asked if it is there; "
    "or take the line out, or name another file in nodes.ssh_config"
)
# Every keyword of OpenSSH 10.2's ssh_config(5), and those that older ones had.
_KNOWN = frozenset(
    re.findall(
        r"\w+",
        """
    addkeystoagent addressfamily batchmode bindaddress bindinterface canonicaldomains
    canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames
    casignaturealgorithms certificatefile challengeresponseauthentication channeltimeout
    checkhostip cipher ciphers clearallforwardings compression compressionlevel
    connectionattempts connecttimeout controlmaster controlpath controlpersist
    dsaauthentication dynamicforward enableescapecommandline enablesshkeysign escapechar
    exitonforwardfailure fingerprinthash forkafterauthentication forwardagent forwardx11
    forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile
    gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikeyexchange
    gssapikexalgorithms gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns
    hashknownhosts host hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes
    hostkeyalgorithms hostkeyalias hostname identitiesonly identityagent identityfile
    identityfile2 ignoreunknown ipqos kbdinteractiveauthentication kbdinteractivedevices
    kexalgorithms keepalive knownhostscommand localcommand localforward loglevel logverbose macs
    nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming
    passwordauthentication permitlocalcommand permitremoteopen pkcs11provider port
    preferredauthentications protocol proxycommand proxyjump proxyusefdpass
    pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication refuseconnection
    rekeylimit remotecommand remoteforward requesttty requiredrsasize revokedhostkeys
    rhostsrsaauthentication rsaauthentication securitykeyprovider sendenv serveralivecountmax
    serveraliveinterval sessiontype setenv skeyauthentication smartcarddevice stdinnull
    streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility tag tcpkeepalive
    tisauthentication tunnel tunneldevice updatehostkeys useprivilegedport user
    userknownhostsfile verifyhostkeydns versionaddendum visualhostkey warnweakcrypto
    xauthlocation""",
    )
)
_MANY = frozenset(("identityfile", "certificatefile"))
_ALIASES = {"identityfile2": "identityfile"}
_COMMANDS = frozenset(("proxycommand", "proxyjump"))
_LISTS = frozenset(("userknownhostsfile", "globalknownhostsfile"))
# Those of one value that we go by; of all others only the keyword is looked at.
_ONE = frozenset(
    re.findall(
        r"\w+",
        """
        addressfamily bindaddress canonicalizehostname connecttimeout hashknownhosts hostkeyalias
        hostname identitiesonly identityagent port proxyusefdpass tag user
        """,
    )
)
_FLAGS = frozenset(("hashknownhosts", "identitiesonly", "proxyusefdpass"))
_YES, _NO = ("yes", "true"), ("no", "false")


@dataclass
class _Pass:
    """One way through the files. ``host``: what Host lines are about, and Match as long as no
    HostName was found; ``original``: what was typed."""

    host: str
    original: str
    local_user: str
    found: dict[str, tuple[str, ...]]
    final: bool = False

    def through(self, files: Sequence[ConfigFile]) -> None:
        for file in files:
            self._file(file)

    def _file(self, file: ConfigFile) -> None:
        for block in file.about(self.host):
            active = self._met(block)
            for item in block.body:
                if not isinstance(item, ConfigFile):
                    self.line(item, active=active)
                elif active:
                    self._file(item)

    def line(self, line: ConfigLine, *, active: bool = True) -> None:
        """Keeps what the line says, if nothing said it before."""
        key = _ALIASES.get(line.keyword, line.keyword)
        if key in _COMMANDS:
            value = line.rest.lstrip(" \t=")
            if active and key == "proxycommand" and value.lower() != "none":
                self._require_clear(line)
            if active and not any(one in self.found for one in _COMMANDS):
                self.found[key] = (value,)
        elif key in _MANY:
            value = _only(line)
            if active and value not in self.found.get(key, ()):
                self.found[key] = (*self.found.get(key, ()), value)
        elif key in _LISTS:
            if active:
                self.found.setdefault(key, line.words)
        elif key in _ONE:
            value = _checked(line, key)
            if active and key == "canonicalizehostname" and value.lower() not in _NO:
                raise unreadable(
                    line.place,
                    "it has names looked up again, which only OpenSSH does, and no ssh is here",
                    cure=_CURE,
                )
            if active:
                self.found.setdefault(key, (value,))

    def _require_clear(self, line: ConfigLine) -> None:
        # Measured: with 9.2p1 the host is reached directly, with 10.0p2 by the command.
        if _first(self.found, "proxyjump").lower() == "none":
            raise unreadable(
                line.place,
                "ProxyCommand after ProxyJump none: OpenSSH's releases differ in which one applies",
                cure=_CURE,
            )

    def _met(self, block: Block) -> bool:
        head = block.head
        if head is None:
            return True
        if head.keyword == "host":
            return _host_line(head, self.host)
        return self._match_line(head)

    def _match_line(self, head: ConfigLine) -> bool:
        """Whether every condition is met. Raises Refused if one of them decides and cannot be."""
        met, undecided = True, ""
        for name, negated, patterns in _conditions(head):
            answer = self._condition(name, patterns)
            if answer is None:
                undecided = undecided or name
            elif answer == negated:
                met = False
        if met and undecided:
            raise unreadable(
                head.place,
                f"Match {undecided} is decided by OpenSSH alone, and there is no ssh here",
                cure=_CURE,
            )
        return met

    def _condition(self, name: str, patterns: str) -> bool | None:
        """None for what cannot be decided here."""
        if name == "all":
            return True
        if name in ("final", "canonical"):
            return self.final
        decide: dict[str, Callable[[], bool]] = {
            "host": lambda: words.fits_hosts(self._host_now(), patterns),
            "originalhost": lambda: words.fits_hosts(self.original, patterns),
            "user": lambda: words.fits_list(self._user_now(), patterns),
            "localuser": lambda: words.fits_list(self.local_user, patterns),
            "tagged": lambda: words.fits_list(_first(self.found, "tag"), patterns),
        }
        return decide[name]() if name in decide else None

    def _host_now(self) -> str:
        if self.final:
            return self.host
        given = _first(self.found, "hostname")
        return host_name(given, self.host) if given else self.host

    def _user_now(self) -> str:
        return _first(self.found, "user") or self.local_user


def check(files: Sequence[ConfigFile]) -> bool:
    """Refuses a line that OpenSSH would not take either, whichever host it is about.

    Returns whether some Match line asks for a second pass by ``final``, met or not.
    """
    final = False
    ignored, nobody = "", _Pass("", "", "", {})
    for line in (line for file in files for line in file.lines()):
        if line.keyword == "ignoreunknown":
            ignored = ignored or ",".join(line.words).lower()
        elif line.keyword == "match":
            final = any(name == "final" for name, _, _ in list(_conditions(line))) or final
        elif line.keyword not in _KNOWN and not words.fits_list(line.keyword, ignored):
            raise unreadable(line.place, f"{line.keyword} is not a keyword of OpenSSH")
        else:
            nobody.line(line, active=False)
    return final


_DECIDED = ("host", "originalhost", "user", "localuser", "tagged")
_CONDITIONS = frozenset((*_DECIDED, "exec", "localnetwork", "version", "sessiontype", "command"))


def _conditions(head: ConfigLine) -> Iterator[tuple[str, bool, str]]:
    """``(name, negated, patterns)`` each. Raises Refused for a line that OpenSSH refuses too."""
    rest, count = head.rest, 0
    try:
        while rest and not rest.startswith("#"):
            word, rest = words.delimited(rest)
            name, negated = word.removeprefix("!").lower(), word.startswith("!")
            if name == "all" and (count > 1 or (rest and not rest.startswith("#"))):
                raise words.Malformed("'all' must be alone in a Match line")
            patterns = ""
            if name in _CONDITIONS:
                if not rest or rest.startswith("#"):
                    raise words.Malformed(f"nothing follows {name}")
                patterns, rest = words.delimited(rest)
            elif name not in ("all", "final", "canonical"):
                raise words.Malformed(f"{word!r} is not a condition that is known here")
            count += 1
            yield name, negated, patterns
        if not count:
            raise words.Malformed("Match has no condition")
    except words.Malformed as problem:
        raise unreadable(head.place, str(problem)) from None


def _host_line(head: ConfigLine, host: str) -> bool:
    met = False
    for pattern in head.words:
        if pattern.startswith("!"):
            if words.fits(host, pattern[1:]):
                return False
        else:
            met = met or words.fits(host, pattern)
    return met


def _only(line: ConfigLine) -> str:
    if not line.words or not line.words[0]:
        raise unreadable(line.place, f"nothing follows {line.keyword}")
    if len(line.words) > 1:
        raise unreadable(line.place, f"{line.keyword} takes one value, and there are more")
    return line.words[0]


def _checked(line: ConfigLine, key: str) -> str:
    value = _only(line)
    if key == "port" and not (value.isdecimal() and 1 <= int(value) <= 65535):
        raise unreadable(line.place, f"a port is a number from 1 to 65535, not {value!r}")
    if key in _FLAGS and value.lower() not in (*_YES, *_NO):
        raise unreadable(line.place, f"{line.keyword} is yes or no, not {value!r}")
    return value


def _first(found: Options, key: str) -> str:
    return found.get(key, ("",))[0]


def host_name(pattern: str, host: str) -> str:
    """HostName with ``%h`` and ``%%`` in it. Raises Malformed for any other token."""
    if bad := re.search(r"%(?!h|%)(.?)", pattern.replace("%%", "")):
        raise words.Malformed(f"HostName {pattern}: %{bad[1]} means nothing there")
    return re.sub("%([h%])", lambda found: host if found[1] == "h" else "%", pattern)


class Reading:
    """The files, checked. Raises Refused (``bad-ssh-config``) for what is not understood."""

    def __init__(self, files: Sequence[ConfigFile], local_user: str) -> None:
        self._files = files
        self._local_user = local_user
        self._wants_final = check(files)

    def options(self, host: str, given: Sequence[ConfigLine]) -> Options:
        """What the files say of ``host``. ``given``: what the command line says before them."""
        first = _Pass(host, host, self._local_user, {})
        for line in given:
            if line.keyword not in _KNOWN - {"host"}:
                raise unreadable(line.place, f"{line.keyword} is not an option of OpenSSH")
            first.line(line)
        first.through(self._files)
        found = first.found
        try:
            name = host_name(_first(found, "hostname") or "%h", host)
        except words.Malformed as problem:
            raise unreadable(str(self._files[0].path), str(problem)) from None
        name = name if _is_address(name) else name.lower()
        if self._wants_final:
            again = _Pass(name, host, self._local_user, found | {"hostname": (name,)}, final=True)
            again.through(self._files)
            found = again.found
        small = {key: (found[key][0].lower(),) for key in ("hostkeyalias",) if key in found}
        return found | small | {"hostname": (name,)}


def _is_address(name: str) -> bool:
    return ":" in name or re.fullmatch(r"[0-9.]+", name) is not None
