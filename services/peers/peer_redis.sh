# redis-server on the lab's ports: a store that keeps nothing, for anyone on the lab's network.
mkdir -p /run/lab/peer_redis
exec redis-server --bind 0.0.0.0 --protected-mode no --databases 1 --save '' --appendonly no --dir /run/lab/peer_redis \
    --port 6379 --unixsocket /run/lab/peer_redis/command.sock --unixsocketperm 777 \
    --tls-port 6380 --tls-cert-file "$LAB_TLS_CERT" --tls-key-file "$LAB_TLS_CERT" \
    --tls-ca-cert-file /run/secrets/tls_ca --tls-auth-clients optional
