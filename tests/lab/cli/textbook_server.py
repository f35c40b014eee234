"""The first server of most textbooks, as they print it; but its address is told, and the greeting is bytes."""

import socket
import sys

s = socket.socket()
host = sys.argv[1]
port = int(sys.argv[2])
s.bind((host, port))

s.listen(5)
print(s.getsockname()[1], flush=True)
while True:
    c, addr = s.accept()
    print("Got connection from", addr)
    c.send(b"Thank you for connecting")
    c.close()
