"""Set two cookies: `visits` counts, `flavour` keeps its first value."""

import os
from http.cookies import CookieError, SimpleCookie

sent = SimpleCookie()
try:
    sent.load(os.environ.get("HTTP_COOKIE", ""))
    visits = int(sent["visits"].value) if "visits" in sent else 0
except (CookieError, ValueError):
    visits = 0

given = SimpleCookie()
given["visits"] = str(visits + 1)
given["visits"]["path"] = "/cgi-bin/"
given["visits"]["max-age"] = 3600
given["flavour"] = sent["flavour"].value if "flavour" in sent else "chocolate chip"
given["flavour"]["httponly"] = True

print("Content-Type: text/plain; charset=utf-8")
print(given)
print()
print(f"visits {visits + 1}")
