"""The service as systemd and OpenRC read it. Pure text.

What the sandbox leaves open is what the work needs: /etc (hosts, runtimes, units' drop-ins and the
system's trust store; files there are replaced by rename, so their folders are open), the trust
stores below /usr, our own state, what runtimes declare (a proving pull by Podman writes, snaps have
folders of their own), the folders elsewhere that a runtime of this node reads, and at home the
configuration of users who run an engine of their own. ProtectKernelLogs is left out: it hides
/dev/kmsg, and where that is a link to /dev/null, as in nodes that are containers, no program can be
started any more (measured). Nobody reads it without CAP_SYSLOG.

After an adoption it starts at the lowest priority (start.py), which may take minutes beside others,
and takes the usual one when it serves; LimitNICE lets it, without a capability, and as a number,
for systemd before 231 reads nothing else.

OpenRC's restarts of a runtime are children of who asks for them, so what is taken from the agent
would be taken from the runtime and all its containers: no ``no_new_privs``, no limits there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agent.wire.runtimes.declared import RUNTIMES

_PLAIN = re.compile(r"(?:/[.]?[A-Za-z0-9_][A-Za-z0-9._@-]*)+")

_SYSTEMD = """\
# Written by Moorage (inv nodes.adopt), taken away by inv nodes.release.
[Unit]
Description=Moorage: keeps this node's trust in its registry
After=network-online.target containerd.service docker.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
Restart=always
RestartSec=1
WatchdogSec=60
TimeoutStartSec=300
LimitNICE=20
TimeoutStopSec=90
KillMode=mixed
UMask=0077

MemoryMax=512M
TasksMax=256
OOMPolicy=continue

NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/etc /var/lib/moorage
ReadWritePaths=-/usr/local/share/ca-certificates -/usr/share/ca-certificates
ReadWritePaths=-/var/lib/ca-certificates
{more}PrivateTmp=yes
ProtectHome=read-only
ProtectClock=yes
ProtectKernelModules=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount
SystemCallErrorNumber=EPERM
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID
CapabilityBoundingSet=CAP_SETFCAP CAP_NET_BIND_SERVICE CAP_KILL CAP_SETUID CAP_SETGID
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SYS_PTRACE

[Install]
WantedBy=multi-user.target
"""

_OPENRC = """\
#!/sbin/openrc-run
# Written by Moorage (inv nodes.adopt), taken away by inv nodes.release.
description="Moorage: keeps this node's trust in its registry"
supervisor=supervise-daemon
command="{program}"
command_args="{words}"
respawn_delay=1
respawn_max=0
umask=077
# Said outright: newer OpenRC, as Alpine's, gives a supervised program no RC_ variables.
supervise_daemon_args="--env MOORAGE_SYSLOG=1"
# What the agent cannot log itself; the rest goes to syslog, which older OpenRC cannot be told.
error_log="{folder}/errors.log"
retry="TERM/90/KILL/5"

depend() {{
	use logger
	after net containerd docker
}}
"""


def systemd(command: str, folders: Iterable[str] = ()) -> str:
    """The unit file that starts ``command``, a program's path and words without blanks in them.

    ``folders`` are open to it as well; one with an odd name, which could say more, is not.
    """
    known = [path for declared in RUNTIMES for path in declared.writes]
    more = [path for path in sorted(set(folders)) if _PLAIN.fullmatch(path) and path not in known]
    lines = "".join(f"ReadWritePaths=-{path}\n" for path in [*known, *more])
    return _SYSTEMD.format(command=command, more=lines)


def openrc(command: str) -> str:
    """The same as an init script of OpenRC."""
    program, _, words = command.partition(" ")
    folder = command.rpartition("/")[0].rpartition(" ")[2]
    return _OPENRC.format(program=program, words=words, folder=folder)
