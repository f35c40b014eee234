# Each start begins with the group as it was made. innd by itself does not end on SIGTERM while it is idle.
cp -R /srv/news/lib/. /var/lib/news/
cp -R /srv/news/spool/. /var/spool/news/
install -m 600 /run/secrets/tls_server /run/news/server.pem
innd -f &
server=$!
trap 'ctlinnd -s -t 5 shutdown stop' TERM INT
wait $server
wait $server
