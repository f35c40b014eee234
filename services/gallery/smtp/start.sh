# smtpd takes no key that everybody may read.
install -D -m 600 /run/secrets/tls_server /run/smtpd/server.pem
exec smtpd -d -f /etc/smtpd.conf
