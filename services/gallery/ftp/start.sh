# proftpd refuses a key that every user can read.
install -m 600 /run/secrets/tls_server /run/proftpd/server.pem
install -d /srv/ftp/pub
exec proftpd --nodaemon --quiet
