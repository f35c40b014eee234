# socat: a process for each address, and one more for each client. `PIPE` gives back what it is given; with more than
# PIPE_BUF bytes (4096) at a time, a client that sends faster than it reads brings both ends of the pipe to a halt.
mkdir -p /run/lab/peer_socat
options=reuseaddr,fork,backlog=1024,nodelay
socat -b 4096 -t 5 TCP-LISTEN:7,$options PIPE &
socat -b 4096 -t 5 "OPENSSL-LISTEN:7007,reuseaddr,fork,backlog=1024,cert=$LAB_TLS_CERT,cafile=/run/secrets/tls_ca,verify=0" PIPE &
socat -b 4096 -t 5 UNIX-LISTEN:/run/lab/peer_socat/echo.sock,unlink-early,fork,backlog=1024 PIPE &
socat -u TCP-LISTEN:9,$options OPEN:/dev/null &
socat -u UNIX-LISTEN:/run/lab/peer_socat/discard.sock,unlink-early,fork,backlog=1024 OPEN:/dev/null &
# Whichever of them ends first ends the container: a peer that has half of its services is none.
trap 'kill $(jobs -p); exit 0' TERM INT
wait -n 2> /dev/null || wait
kill $(jobs -p)
