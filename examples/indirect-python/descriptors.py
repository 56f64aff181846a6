#!/usr/bin/env python3
"""Creates descriptors through indirect(2), from a language without the header.

Python's own functions make close-on-exec descriptors; this shows how any
language with a foreign function interface calls indirect(2), and what it does
where the kernel has none: native flag, indirect(2), fcntl, in this order.

    ./descriptors.py
    indirect run --add none -- ./descriptors.py

It prints by which way each descriptor got its properties, and exits with
status 1 if one lacks them.
"""
import ctypes
import errno
import fcntl
import os
import platform
import sys

INDIRECT = 2007
O_NONSEQFD = 0x40000000

# arm64 never had those calls that others with a flag have replaced.
NUMBERS = {
    "x86_64": {"dup": 32, "socket": 41, "pipe": 22, "pipe2": 293, "eventfd": 284, "eventfd2": 290, "fcntl": 72},
    "aarch64": {"dup": 23, "socket": 198, "pipe2": 59, "eventfd2": 19, "fcntl": 25},
}[platform.machine()]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Registers(ctypes.Structure):
    """struct indirect_registers: the call's number and its six arguments."""

    _fields_ = [("nr", ctypes.c_ulong), ("arg", ctypes.c_ulong * 6)]


class FileFlags(ctypes.Structure):
    """The member file_flags of union indirect_params."""

    _fields_ = [("flags", ctypes.c_int)]


def syscall(number, *args):
    result = libc.syscall(*(ctypes.c_long(a) for a in (number, *args)))
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def indirect(flags, number, *args):
    """Make a call, and give flags to the descriptors that it creates."""
    registers = Registers(number, (ctypes.c_ulong * 6)(*(a & 2**64 - 1 for a in args)))
    params = FileFlags(flags)
    return syscall(INDIRECT, ctypes.addressof(registers), ctypes.addressof(params), ctypes.sizeof(params), 0)


def available():
    """One call, which does nothing: without registers it fails, where it exists, with EFAULT."""
    try:
        syscall(INDIRECT, 0, 0, 0, 0)
    except OSError as e:
        return e.errno == errno.EFAULT
    return False


AVAILABLE = available()


def give(fd, flags):
    """The slow path: another thread can fork and execute in between."""
    if flags & os.O_NONBLOCK:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
    if flags & O_NONSEQFD:
        least = 3 + int.from_bytes(os.urandom(4), "little") % 500
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC if flags & os.O_CLOEXEC else fcntl.F_DUPFD, least)
        os.close(fd)
        return moved
    if flags & os.O_CLOEXEC:
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    return fd


def create(flags, native, plain, pair=None):
    """Returns descriptors, and the way by which they got their properties."""

    def results(result):
        return list(pair) if pair is not None else [result]

    if flags & O_NONSEQFD == 0:
        try:
            return results(syscall(*native)), "native"
        except OSError as e:
            if e.errno not in (errno.ENOSYS, errno.EINVAL):
                raise
    if AVAILABLE:
        return results(indirect(flags, *plain)), "indirect"
    return [give(fd, flags) for fd in results(syscall(*plain))], "fcntl"


def kinds(flags):
    """The calls to make: with flags of their own, and without."""
    af_unix, sock_stream = 1, 1
    pair = (ctypes.c_int * 2)()
    at = ctypes.addressof(pair)
    n = NUMBERS
    yield "socket", (n["socket"], af_unix, sock_stream | flags, 0), (n["socket"], af_unix, sock_stream, 0), None
    yield "eventfd", (n["eventfd2"], 0, flags), (n["eventfd"], 0) if "eventfd" in n else (n["eventfd2"], 0, 0), None
    yield "pipe", (n["pipe2"], at, flags), (n["pipe"], at) if "pipe" in n else (n["pipe2"], at, 0), pair
    if flags & os.O_NONBLOCK == 0:  # shared with the original
        yield "dup", (n["fcntl"], 1, fcntl.F_DUPFD_CLOEXEC, 0), (n["dup"], 1), None


def main():
    print("indirect(2):", "yes" if AVAILABLE else "no")
    status = 0
    for names in (["cloexec"], ["cloexec", "nonblock"], ["cloexec", "nonseq"], ["cloexec", "nonblock", "nonseq"]):
        bits = {"cloexec": os.O_CLOEXEC, "nonblock": os.O_NONBLOCK, "nonseq": O_NONSEQFD}
        flags = sum(bits[name] for name in names)
        for kind, native, plain, pair in kinds(flags):
            lowest = os.dup(1)
            os.close(lowest)
            fds, way = create(flags, native, plain, pair)
            print(f"{kind} {' '.join(names)}: {way}")
            for fd in fds:
                lacks = {
                    "cloexec": not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC,
                    "nonblock": not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK,
                    "nonseq": fd == lowest,
                }
                for name in names:
                    if lacks[name]:
                        print(f"{kind}: descriptor {fd} lacks {name}")
                        status = 1
                os.close(fd)
    return status


if __name__ == "__main__":
    sys.exit(main())
