# inetd, with the small services that are built into it: a process for each stream.
# -R: it would take more than 1000 clients a minute for a loop, and close the service for ten minutes.
# -d keeps it in the foreground; what it then says about each client is thrown away.
printf '%s\n' \
    'echo    stream tcp nowait lab internal' \
    'discard stream tcp nowait lab internal' \
    'chargen stream tcp nowait lab internal' \
    'echo    dgram  udp wait   lab internal' \
    'discard dgram  udp wait   lab internal' > /run/lab/inetd.conf
exec inetutils-inetd -d -R 1000000 /run/lab/inetd.conf 2> /dev/null
