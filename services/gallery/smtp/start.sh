# smtpd refuses a key that every user can read.
install -D -m 600 /run/secrets/tls_server /run/smtpd/server.pem
exec smtpd -d -f /etc/smtpd.conf
