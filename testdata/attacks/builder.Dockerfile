# Descriptors, environment, processes and secrets of the builder.
FROM busybox
RUN for fd in 7 8 9; do (eval "true <&$fd" || eval "true >&$fd") 2> /dev/null && echo "out: open $fd"; done; echo 'out: no descriptor'
RUN for fd in /proc/self/fd/*; do echo "out: $(basename $fd)"; done | sort -u | head -n 20; \
    echo "out: cwd $(pwd)"; \
    grep -c BUILDER_CANARY /proc/*/environ | grep -v ':0$' | grep -v /self/ | sed 's/^/out: env /'; \
    echo "out: processes $(ls -d /proc/[0-9]* | wc -l)"; \
    kill -0 -1 2> /dev/null && echo 'out: others'; \
    ls /run/secrets 2> /dev/null | sed 's/^/out: secret /'; \
    env | grep -i token | sed 's/^/out: variable /'; \
    grep -o 'SECRET-OF-OTHERS' -r /run /etc /root /tmp /dev/shm 2> /dev/null | sed 's/^/out: found /'; \
    ls /proc/1/root/proc/1/root > /dev/null && echo 'out: root'; echo 'out: end'
