# A lab node with the containerd of one Debian suite, as its package ships it.
ARG NODE
FROM ${NODE}
ARG SUITE
# A later suite is there only while its package is fetched, so nothing else is upgraded to it. Its
# containerd wants glibc 2.34, which bookworm has; its runc wants 2.38, so bookworm's stays. A
# mirror's snapshot of sid may be past its date; it is still signed.
RUN set -eu; \
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
    export DEBIAN_FRONTEND=noninteractive; \
    if [ "$SUITE" = bookworm ]; then \
        apt-get -q update; \
        apt-get -qy --no-install-recommends install containerd; \
    else \
        mirror=$(apt-get update --print-uris | sed -n "s,^'\(.*\)/dists/.*,\1,p" | head -n 1); \
        mkdir /tmp/suite; cd /tmp/suite; \
        echo "deb $mirror $SUITE main" >sources.list; \
        later() { apt-get -q -o Dir::Etc::SourceList=/tmp/suite/sources.list \
            -o Dir::Etc::SourceParts=- -o Acquire::Languages=none \
            -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root "$@"; }; \
        later update; \
        later download containerd; \
        rm -rf /var/lib/apt/lists/*; \
        apt-get -qy --no-install-recommends install ./containerd_*.deb; \
        cd /; rm -rf /tmp/suite; \
    fi; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/sbin/policy-rc.d; \
    containerd --version
