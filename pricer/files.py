"""Files as wholes: their hash, writing them so that a kill leaves the old one or the new one, and one writer at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from pricer.errors import InputError

_LARGE = 2**24  # bytes from which on a hash is remembered: a gigabyte takes half a second
_remembered: dict[tuple, str] = {}


def file_sha256(path: Path) -> str:
    """The file's hash, in hexadecimal. A large file is hashed once in a process, as long as it does not change."""
    about = path.stat()
    state = (str(path.resolve()), about.st_ino, about.st_size, about.st_mtime_ns)
    if state in _remembered:
        return _remembered[state]
    with path.open("rb") as file:
        digest = hashlib.sha256()  # hashlib.file_digest is not there on Python 3.10
        while block := file.read(2**20):
            digest.update(block)
    found = digest.hexdigest()
    if about.st_size >= _LARGE:
        _remembered[state] = found
    return found


def write_whole(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` write a file beside `path`, and move it into place when it is whole: readers, and a kill in the
    middle, see the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".new-{uuid4().hex[:8]}-{path.name}")  # two may write at once
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Hold the output `folder` by a lock in it. Raises InputError, with what the other process is `doing`, where one
    holds it. A folder that was not there and stays empty goes again."""
    is_new = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"Another process is {doing} {folder}: let it finish, or name another output."
        ) from None
    except (OSError, NotImplementedError):
        pass  # a file system without locks; what else is wrong, who writes there is told
    try:
        yield
    finally:
        with suppress(OSError):  # a system on which an open file stays
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # it is no longer empty
            if is_new:
                folder.rmdir()
