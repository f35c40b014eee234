#!/bin/sh
# Starts the server that LAB_MODEL names, with the settings that its documentation recommends for production. Where it
# recommends a number for each core or for each machine, the number is there; LAB_WORKERS sets another one.
set -eu
cores=$(nproc)
wsgi=services.apps.wsgi:application
asgi=services.apps.asgi:application
echo "$LAB_MODEL: $cores cores" >&2
# Those that listen on a Unix socket too: on the volume, each in a folder of its own, in which an earlier run may have left it.
mkdir -p "/run/lab/$LAB_MODEL" && rm -f "/run/lab/$LAB_MODEL/http.sock"

# docs.gunicorn.org, "Design": (2 x cores) + 1 workers; "FAQ": heartbeat files on a tmpfs.
gunicorn() {
    exec python3 -m gunicorn --bind 0.0.0.0:8080 --workers "${LAB_WORKERS:-$((2 * cores + 1))}" \
        --worker-tmp-dir /dev/shm --keep-alive 75 --no-control-socket "$@" "$wsgi"
}

case $LAB_MODEL in
    peer_gunicorn_sync) gunicorn --worker-class sync ;;
    peer_gunicorn_gthread) gunicorn --worker-class gthread --threads 4 ;;
    peer_gunicorn_gevent) gunicorn --worker-class gevent ;;
    # uvicorn.org, "Deployment" and "Docker": one process in a container; what scales is the number of containers.
    peer_uvicorn)
        exec python3 -m uvicorn --host 0.0.0.0 --port 8080 --workers "${LAB_WORKERS:-1}" --loop uvloop --http httptools \
            --timeout-keep-alive 75 --no-access-log "$asgi" ;;
    peer_hypercorn)
        exec python3 -m hypercorn --bind 0.0.0.0:8080 \
            --workers "${LAB_WORKERS:-1}" --worker-class uvloop --keep-alive 75 "$asgi" ;;
    # granian's README: one worker in a container; for WSGI a thread for each core ("blocking threads").
    peer_granian_asgi)
        exec python3 -m granian --interface asgi --host 0.0.0.0 --port 8080 --workers "${LAB_WORKERS:-1}" --loop uvloop \
            --no-access-log "$asgi" ;;
    peer_granian_wsgi)
        exec python3 -m granian --interface wsgi --host 0.0.0.0 --port 8080 --workers "${LAB_WORKERS:-1}" \
            --no-access-log "$wsgi" ;;
    # Waitress and cheroot: their own defaults, 4 and 10 threads.
    peer_waitress) exec python3 -m waitress --listen 0.0.0.0:8080 "$wsgi" ;;
    peer_cheroot) exec python3 -m cheroot --bind 0.0.0.0:8080 "$wsgi" ;;
    peer_twisted_web) exec python3 -m twisted web --listen tcp:8080 --wsgi services.apps.wsgi.application ;;
    peer_http_server) exec python3 -m services.apps.threading_http_server ;;
    peer_wsgiref) exec python3 -m services.apps.wsgiref_server ;;
    peer_nginx) exec nginx -c /srv/nginx.conf -e stderr ;;
    *)
        echo "$0: no server is called '$LAB_MODEL'" >&2
        exit 2 ;;
esac
