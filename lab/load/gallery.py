"""Load the gallery's servers with users of FTP, mail, the web, XML-RPC and news, at moderate load."""

from collections.abc import Iterable, Mapping

from lab.base.errors import LabError

# By kind of user: its class in loadtests/galleryfile.py, and the servers that it needs.
USERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ftp": ("FtpUser", ("gallery_ftp",)),
    "mail": ("MailUser", ("gallery_smtp", "gallery_mail")),
    "web": ("WebUser", ("gallery_web",)),
    "web-churn": ("WebChurnUser", ("gallery_web",)),
    "xmlrpc": ("XmlRpcUser", ("gallery_xmlrpc",)),
    "news": ("NewsUser", ("gallery_news",)),
}
FILE = "loadtests/galleryfile.py"


def choose_users(kinds: Iterable[str], running: Iterable[str]) -> list[str]:
    """Return the Locust classes of these kinds of users; default: all whose servers run.

    Raises:
        LabError: a kind needs a server that does not run, or no kind is left.
    """
    named, servers = list(kinds), set(running)
    absent = {kind: [name for name in needed if name not in servers] for kind, (_, needed) in USERS.items()}
    for kind in named:
        if absent[kind]:
            raise LabError(
                f"{kind} needs {', '.join(absent[kind])}: start what is missing with `lab up {' '.join(absent[kind])}`"
            )
    chosen = named or [kind for kind in USERS if not absent[kind]]
    if not chosen:
        raise LabError("no server of the gallery is running: start them with `lab up --profile gallery`")
    return [USERS[kind][0] for kind in dict.fromkeys(chosen)]
