"""The gallery's SMTP server in Python: smtpd, as it was in the standard library until 3.11. One loop for all clients.

Its only public hook is called with a complete message. So it refuses mail for another domain after DATA; other servers
refuse it after RCPT.
"""

import signal
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.11 is the last with these modules, and warns
    import asyncore
    import smtpd

PORT = 2525
DOMAIN = "gallery.test"
LARGEST = 1024 * 1024  # largest message, in bytes


class Server(smtpd.SMTPServer):
    """Accept mail for DOMAIN, log it, and store nothing."""

    def process_message(
        self, peer: tuple[str, int], mailfrom: str, rcpttos: list[str], data: bytes | str, **options: object
    ) -> str:
        """Log a complete message, or refuse it.

        Returns:
            The reply to the end of DATA.
        """
        others = [address for address in rcpttos if address.rpartition("@")[2].lower() != DOMAIN]
        if others:
            print(f"refused: {mailfrom} -> {', '.join(others)}", flush=True)
            return f"550 5.7.1 mail for {DOMAIN} only, not for {', '.join(others)}"
        print(f"accepted: {mailfrom} -> {', '.join(rcpttos)}: {len(data)} bytes", flush=True)
        return f"250 2.0.0 accepted: {len(data)} bytes for {', '.join(rcpttos)}"


def main() -> None:
    """Serve until SIGTERM."""
    Server(("0.0.0.0", PORT), None, data_size_limit=LARGEST)  # type: ignore[arg-type]  # noqa: S104 - None: no relay; the lab's network is internal
    signal.signal(signal.SIGTERM, lambda *_: exit())
    print(f"SMTP at port {PORT}, for {DOMAIN}", flush=True)
    # A signal just before the wait is handled after it, and the library's own 30 s are longer than `docker stop` waits.
    asyncore.loop(timeout=1.0, use_poll=True)


if __name__ == "__main__":
    main()
