# Creates a descriptor without close-on-exec by the C library, as extension
# modules do, in a place that only Python can name.
import ctypes
import subprocess

libc = ctypes.CDLL(None)


class Keeper:
    def __init__(self, path):
        self.fd = libc.open(path, 0)


def keep(paths):
    kept = []
    for path in paths:
        kept.append(Keeper(path))
    return kept


kept = keep([b"/etc/hosts", b"/etc/passwd"])
subprocess.run(["true"], close_fds=False, check=True)
