# A lab node's system with a runtime out of a Debian suite. From another suite than the node's own,
# apt brings the C library along that it was built against.
ARG NODE
FROM ${NODE}
ARG SUITE
ARG PACKAGES
RUN set -eu; \
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
    export DEBIAN_FRONTEND=noninteractive; \
    mirror=$(apt-get update --print-uris | sed -n "s,^'\(.*\)/dists/.*,\1,p" | head -n 1); \
    if [ "$SUITE" != bookworm ]; then \
        echo "deb $mirror $SUITE main" >/etc/apt/sources.list.d/suite.list; \
        echo "APT::Default-Release \"bookworm\";" >/etc/apt/apt.conf.d/99suite; \
    fi; \
    apt-get -q -o Acquire::Check-Valid-Until=false update; \
    apt-get -qy --no-install-recommends -t "$SUITE" install $PACKAGES; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/sbin/policy-rc.d
