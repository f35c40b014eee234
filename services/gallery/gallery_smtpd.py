"""The gallery's SMTP server in Python: smtpd, as it was in the standard library until 3.11. One loop for all clients.

Its one public hook comes when a message is whole. So whom a message may be for is said after DATA, where other servers
say it after RCPT; here too, mail for another domain is refused.
"""

import signal
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its last version says that it is the last
    import asyncore
    import smtpd

PORT = 2525
DOMAIN = "gallery.test"
LARGEST = 1024 * 1024  # bytes of a message


class Server(smtpd.SMTPServer):
    """Takes mail for DOMAIN, writes down what came, and keeps nothing."""

    def process_message(
        self,
        peer: tuple[str, int],
        mailfrom: str,
        rcpttos: list[str],
        data: bytes | str,
        **options: object,
    ) -> str:
        """Called by smtpd with a whole message.

        Returns:
            The reply to the end of DATA.
        """
        foreign = [address for address in rcpttos if address.rpartition("@")[2].lower() != DOMAIN]
        if foreign:
            print(f"refused: {mailfrom} -> {', '.join(foreign)}", flush=True)
            return f"550 5.7.1 mail for {DOMAIN} only, not for {', '.join(foreign)}"
        print(f"taken: {mailfrom} -> {', '.join(rcpttos)}: {len(data)} bytes", flush=True)
        return f"250 2.0.0 taken: {len(data)} bytes for {', '.join(rcpttos)}"


def main() -> None:
    """Serve until SIGTERM."""
    Server(("0.0.0.0", PORT), None, data_size_limit=LARGEST)  # type: ignore[arg-type]  # noqa: S104 - None: it forwards to nobody; the lab's network is internal
    signal.signal(signal.SIGTERM, lambda *_: exit())
    print(f"SMTP at port {PORT}, for {DOMAIN}", flush=True)
    asyncore.loop(use_poll=True)


if __name__ == "__main__":
    main()
