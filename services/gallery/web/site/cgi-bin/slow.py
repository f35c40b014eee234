"""Reply after `?seconds=N`, at most 30. lighttpd rewrites `/slow` to this script."""

import os
import time
from urllib.parse import parse_qs

LONGEST = 30.0

try:
    seconds = float(parse_qs(os.environ.get("QUERY_STRING", "")).get("seconds", ["1"])[0])
except ValueError:
    seconds = -1.0
print("Content-Type: text/plain; charset=utf-8")
if 0 <= seconds <= LONGEST:
    time.sleep(seconds)
    print()
    print(f"waited {seconds:g} s")
else:
    print("Status: 400 Bad Request")
    print()
    print(f"seconds is a number from 0 to {LONGEST:g}")
