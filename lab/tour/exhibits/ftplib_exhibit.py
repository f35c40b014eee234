"""Files over FTP: upload, list, download, resume an interrupted transfer, rename, delete.

Python 2: ftplib
Python 3: ftplib
Gone since: -
Use instead: still ftplib, with FTP_TLS; SFTP (paramiko, asyncssh) or HTTP if the server offers them
Servers: gallery_ftp
"""

import contextlib
import io
import ssl
from ftplib import FTP, FTP_TLS
from urllib.request import urlopen

from lab.tour.accounts import ANN, WRONG_PASSWORD
from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

HOST, NAME, CA = "gallery_ftp", "pub/poem.txt", "/run/secrets/tls_ca"
POEM = b"".join(b"line %d of a poem\r\n" % number for number in range(1, 101))


def visit() -> None:
    with FTP(HOST, ANN.user, ANN.password, timeout=10) as ftp:
        print(ftp.getwelcome())
        print("current folder:", ftp.pwd(), ftp.nlst())
        ftp.storbinary(f"STOR {NAME}", io.BytesIO(POEM))
        print("uploaded:", ftp.size(NAME), "bytes")
        for name, facts in ftp.mlsd("pub", facts=["type", "size"]):
            print(" ", name, facts)

        poem = bytearray()
        with ftp.transfercmd(f"RETR {NAME}") as data:  # a low-level call, to interrupt the transfer
            while len(poem) < 500:
                poem += data.recv(500 - len(poem))
        with contextlib.suppress(Exception):
            ftp.voidresp()  # a server may report the interruption, or success
        ftp.retrbinary(f"RETR {NAME}", poem.extend, rest=len(poem))
        print("resumed from byte 500, complete:", bytes(poem) == POEM)

        ftp.set_pasv(False)  # active mode: the server connects to the client
        lines: list[str] = []
        ftp.retrlines(f"RETR {NAME}", lines.append)
        print("active mode, as text:", lines[0])
        ftp.storlines("STOR pub/draft.txt", io.BytesIO(POEM))
        ftp.rename("pub/draft.txt", "pub/old.txt")
        ftp.delete("pub/old.txt")
        print("published at http://gallery_web/pub/:", ftp.nlst("pub"))

    with FTP_TLS(HOST, context=ssl.create_default_context(cafile=CA), timeout=10) as ftp:
        ftp.login(ANN.user, ANN.password)
        ftp.prot_p()  # encrypts the data connections too
        print("over TLS:", ftp.nlst())


def login() -> FTP:
    return FTP(HOST, ANN.user, ANN.password, timeout=10)


def failures() -> Failures:
    yield "wrong password", lambda: FTP(HOST, ANN.user, WRONG_PASSWORD)
    yield "unknown host", lambda: FTP(UNKNOWN_HOST)
    yield "closed port", lambda: FTP().connect(HOST, 9999)
    yield "missing file", lambda: login().retrbinary("RETR missing.txt", print)
    yield "missing folder", lambda: login().storbinary("STOR /etc/motd", io.BytesIO())
    yield "missing file, urllib", lambda: urlopen(f"ftp://{ANN.user}:{ANN.password}@{HOST}/missing.txt")
    yield "untrusted certificate", lambda: FTP_TLS(HOST, "ann", context=ssl.create_default_context())
    with breaking_off(b"half of it") as data:
        opening = b"227 (127,0,0,1,%d,%d)\r\n" % divmod(data, 256)
        with breaking_off(b"220 ready\r\n", b"200 binary\r\n", opening, b"150 coming\r\n") as port:
            ftp = FTP()
            ftp.connect("127.0.0.1", port)
            yield "server closes in mid-transfer", lambda: ftp.retrbinary("RETR poem.txt", len)
    with silent() as port:
        yield "no reply before the timeout", lambda: FTP().connect("127.0.0.1", port, timeout=SHORT)
