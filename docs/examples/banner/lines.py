"""Lines that end in CR LF: a module beside the codec, which imports it as any module."""

END = b"\r\n"


def find_line(data: bytes) -> int | None:
    """Return the size of the line at the beginning of `data` with its end; None if it is not all there."""
    size = data.find(END) + len(END)
    return size if size >= len(END) else None
