# Alpine's own system, with Python, containerd and OpenSSH of a lab node: programs of another C
# library, so that library and all others they load come along, in places that Alpine does not use.
ARG NODE
ARG ALPINE
FROM ${NODE} AS lab
RUN set -eu; \
    programs="/usr/bin/python3.11 /usr/bin/openssl /usr/bin/ssh-keygen /usr/sbin/sshd \
        /usr/bin/containerd /usr/bin/ctr /usr/sbin/runc"; \
    mkdir -p /out/usr/lib/ssl /out/usr/lib/x86_64-linux-gnu /out/lib64 /out/etc; \
    cp -a --parents $programs /usr/bin/python3 /usr/bin/containerd-shim* /usr/lib/python3 \
        /usr/lib/python3.11 /etc/containerd /out; \
    cp -L /etc/ssl/openssl.cnf /out/usr/lib/ssl; cp -L /lib64/ld-linux-x86-64.so.2 /out/lib64; \
    for file in $programs /usr/lib/python3.11/lib-dynload/*.so; do \
        ldd "$file" 2>/dev/null | sed -n 's,.*=> \(/[^ ]*\).*,\1,p'; \
    done | sort -u | xargs -I {} cp -L {} /out/usr/lib/x86_64-linux-gnu; \
    cp -L /usr/lib/x86_64-linux-gnu/libnss_*.so.2 /usr/lib/x86_64-linux-gnu/libgcc_s.so.1 \
        /out/usr/lib/x86_64-linux-gnu
FROM ${ALPINE}
COPY --from=lab /out/ /
COPY containerd syslog ssh /etc/init.d/
RUN set -eu; \
    chmod 755 /etc/init.d/containerd /etc/init.d/syslog /etc/init.d/ssh; \
    mkdir -p /etc/ssh; ssh-keygen -A; \
    printf 'PermitRootLogin prohibit-password\nUsePAM no\n' >/etc/ssh/sshd_config; \
    sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow; sed -i '/tty/d' /etc/inittab; \
    rm -f /etc/runlevels/boot/* /etc/runlevels/sysinit/* /etc/runlevels/default/*; \
    rc-update add containerd default; rc-update add syslog default
CMD ["/sbin/init"]
