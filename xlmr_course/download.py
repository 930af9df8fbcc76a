"""Fetching one large file over a line that may be slow, metered or shaky.

Since version 1.18 huggingface_hub starts an interrupted download from zero. Where two gigabytes take a night that is
no download at all, so the checkpoints' weights are fetched here: what has arrived stays in `<name>.part`, the next
attempt asks for the rest (HTTP `Range`, RFC 9110 section 14), and the finished file is compared with its SHA-256.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm.auto import tqdm

CHUNK = 1 << 20  # bytes


class DownloadError(OSError):
    """A file could not be fetched, or is not what it should be. The message says what happens to what has arrived."""


def fetch(
    url: str, target: Path, sha256: str | None = None, *, timeout: float = 20.0, attempts: int = 5, pause: float = 1.0
) -> Path:
    """Fetch a file, going on where an earlier attempt stopped. `target` is there whole or not at all.

    Args:
        url: http or https; redirects are followed.
        target: where the file shall be; while it is incomplete its bytes are in `<target>.part` beside it.
        sha256: what the file must have, in hexadecimal; None checks its length only.
        timeout: seconds without a single byte after which an attempt has failed.
        attempts: failures in a row, without progress, after which to give up.
        pause: seconds before the second attempt; twice as many before each next.

    Raises:
        DownloadError: the server refuses, the line stays dead, the disk is full, or the hash is wrong.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = size(part)
        try:
            _append(url, part, timeout)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # more bytes than the server has: of another file, or damaged
                part.unlink()
            elif error.code < 500 and error.code != 429:
                raise DownloadError(f"the server answers {error.code} ({error.reason}) when asked for {url}") from None
            reason = f"the server answers {error.code}"
        except DownloadError:
            raise
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts and resets are OSErrors
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if size(part) > before else failures + 1
        if failures >= attempts:
            raise DownloadError(
                f"the download of {target.name} stopped after {size(part) / 1e6:,.0f} MB ({reason}); "
                "what has arrived is kept: run the same command again and it goes on from there"
            )
        time.sleep(pause * 2 ** max(0, failures - 1))
    check(part, sha256, target.name)
    return part.replace(target)


def check(file: Path, sha256: str | None, name: str) -> None:
    """Compare a file with its hash.

    Raises:
        DownloadError: they differ. The file is removed first, because going on from it could never end well.
    """
    if sha256 is None or (found := sha256_of(file)) == sha256:
        return
    bytes_ = size(file)
    file.unlink()
    raise DownloadError(
        f"{name} ({bytes_:,} bytes) has the SHA-256 {found[:12]}… instead of {sha256[:12]}…; it was removed: fetch it "
        "again, and if that happens twice, something between here and the server alters files"
    )


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def size(file: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return file.stat().st_size if file.exists() else 0


def _append(url: str, part: Path, timeout: float) -> None:
    """One attempt: ask for what is missing and write it behind what is there."""
    have = size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        if answer.status != 206:  # the server sends all of it, whatever was asked
            have = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise DownloadError(
                f"{part.stem} needs {(total - have) / 1e6:,.0f} MB more and the disk has {free / 1e6:,.0f} MB free: "
                "make room, or set XLMR_COURSE_CACHE to a folder on a larger disk"
            )
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True) as bar,
        ):
            while chunk := answer.read1(CHUNK):  # not read: a stall would lose what has come of a chunk
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and size(part) < total:  # http.client ends a broken stream like a finished one
        raise ConnectionError("the connection was closed early")
