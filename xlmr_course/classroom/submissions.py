"""What a class handed in: a folder or a zip → one notebook for each student, nothing lost and nothing guessed silently.

Names come from where they stand:

    Anna Ito_48213_assignsubmission_file_/04_attention.ipynb    Moodle
    itoanna_LATE_48213_990121_04_attention-1.ipynb              Canvas, handed in again (-1)
    anna-ito/04_attention.ipynb                                 a folder for each student, or a clone of a repository
    04_attention_anna-ito.ipynb, anna-ito.ipynb                 one folder, the name in the file's name

Files are only ever read. A zip is unpacked into a folder that the caller gives.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from xlmr_course.classroom.chapters import CourseError

MOODLE = re.compile(r"^(?P<name>.+?)_(?P<key>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<rest>.*)$")
CANVAS = re.compile(r"^(?P<name>[^_]+)_(?P<late>LATE_)?(?P<key>\d+)_(?P<number>\d+)_(?P<rest>.+)$")
CANVAS_VERSION = re.compile(r"-(\d+)(?=\.[^.]+$|$)")
# Browsers and mail programs save a notebook as text when they don't know it.
NOTEBOOK = re.compile(r"\.ipynb(?:\.(?:txt|json))?$", re.IGNORECASE)
NOISE = re.compile(r"^(?:\.|__|Thumbs\.db$|desktop\.ini$)")  # .git, .ipynb_checkpoints, __MACOSX, __pycache__
LARGEST = 200_000_000  # bytes of one file in a zip, and ten times that in all


@dataclass(frozen=True)
class Submission:
    """One student's work: `file` is the notebook to grade, None if there is none; `remarks` say what was decided.

    With `look` a person must look whether the right file was taken.
    """

    student: str
    file: Path | None
    remarks: tuple[str, ...] = ()
    look: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of the file, `""` if there is none or it can't be read."""
        return digest(self.file) if self.file else ""


def digest(file: Path) -> str:
    """SHA-256 of a file, `""` if it can't be read."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return ""


@dataclass
class _Student:
    name: str
    key: str = ""
    files: list[tuple[Path, int, bool]] = field(default_factory=list)  # path, version, late


def collect(source: Path, chapter: str = "", unpack: Path | None = None) -> list[Submission]:
    """The submissions in a folder or zip, by name.

    Args:
        chapter: the chapter's name, such as `04_attention`: of several notebooks, those named so come first.
        unpack: an empty folder for the content of a zip.

    Raises:
        CourseError: nothing there, no notebooks in it, or a zip that can't be read.
    """
    if source.is_file() and zipfile.is_zipfile(source):
        if unpack is None:
            raise CourseError(f"{source.name} is a zip; give a folder to unpack it into")
        folder = _unzip(source, unpack)
    elif source.is_dir():
        folder = source
    elif NOTEBOOK.search(source.name) and source.is_file():
        return [Submission(_flat_name(source, chapter), source)]
    else:
        raise CourseError(f"{source} is neither a folder of notebooks nor a zip")
    files = _files(folder)
    while files and len(tops := {file.relative_to(folder).parts[0] for file in files}) == 1:
        only = folder / next(iter(tops))
        if not only.is_dir() or MOODLE.match(only.name):
            break
        folder = only  # one folder around everything is no student
    if not any(NOTEBOOK.search(file.name) for file in files):
        raise CourseError(f"{source} holds no notebook (.ipynb)")
    students: dict[tuple[str, str], _Student] = {}
    for file in files:
        _sort_in(students, file, file.relative_to(folder), chapter)
    names = Counter(student.name for student in students.values())
    chosen = []
    for student in students.values():
        name = f"{student.name} ({student.key})" if names[student.name] > 1 else student.name
        chosen.append(_choose(student, name, chapter))
    return sorted(chosen, key=lambda submission: (submission.student.casefold(), submission.student))


def _files(folder: Path) -> list[Path]:
    """Plain files below `folder`, without what systems and editors leave; links are not followed."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not NOISE.match(name))
        paths = [Path(parent, name) for name in sorted(names) if not NOISE.match(name)]
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def _sort_in(students: dict[tuple[str, str], _Student], file: Path, place: PurePosixPath | Path, chapter: str) -> None:
    """Put a file to its student; in a flat folder, what is no notebook and bears no name is nobody's."""
    top, flat = place.parts[0], len(place.parts) == 1
    version, late = 0, False
    if match := MOODLE.match(top):
        name, key = match["name"], match["key"]
    elif flat and (match := CANVAS.match(top)):
        name, key, late = match["name"], match["key"], bool(match["late"])
        version = int(found[1]) if (found := CANVAS_VERSION.search(match["rest"])) else 0
    elif flat:
        if not NOTEBOOK.search(top):
            return
        name, key = _flat_name(file, chapter), top
    else:
        name, key = top, ""
    student = students.setdefault((name, key), _Student(name, key))
    student.files.append((file, version, late))


def _flat_name(file: Path, chapter: str) -> str:
    """`04_attention_anna.ipynb` → `anna`; a name that is nothing but the chapter's stays as it is."""
    stem = NOTEBOOK.sub("", file.name)
    rest = re.sub(re.escape(chapter), "", stem, flags=re.IGNORECASE).strip(" _-") if chapter else stem
    return rest if re.search(r"[^\W\d_]", rest) else stem


def _choose(student: _Student, name: str, chapter: str) -> Submission:
    notebooks = [entry for entry in student.files if NOTEBOOK.search(entry[0].name)]
    if not notebooks:
        others = ", ".join(sorted(file.name for file, _, _ in student.files))
        return Submission(name, None, (f"handed in no notebook, but {others}",), look=True)
    named = [entry for entry in notebooks if chapter and chapter.casefold() in entry[0].name.casefold()]
    candidates = named or notebooks
    if len({digest(file) for file, _, _ in candidates}) == 1:
        candidates = candidates[:1]
    candidates.sort(key=lambda entry: (entry[1], entry[0].stat().st_mtime, str(entry[0])))
    file, version, late = candidates[-1]
    remarks = ["handed in late"] if late else []
    look = False
    if len(candidates) > 1:
        others = ", ".join(str(other.name) for other, _, _ in candidates[:-1])
        same_time = version == candidates[-2][1] and file.stat().st_mtime == candidates[-2][0].stat().st_mtime
        why = "all of one time, so this one by its name" if same_time else "the newest"
        remarks.append(f"{len(candidates)} notebooks: graded {file.name} ({why}), not {others}")
        look = version == candidates[-2][1]  # Canvas numbers what is handed in again; anything else is a guess
    return Submission(name, file, tuple(remarks), look)


def _unzip(source: Path, folder: Path) -> Path:
    """Unpack files of usual size, keep their times, never leave `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(source) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if any(entry.file_size > LARGEST for entry in entries) or sum(e.file_size for e in entries) > 10 * LARGEST:
                raise CourseError(f"{source.name} holds a file above 200 MB, or 2 GB in all; unpack it yourself")
            for entry in entries:
                # extract() takes out drive letters, leading slashes and "..".
                path = Path(archive.extract(entry, folder))
                os.utime(path, (time.mktime((*entry.date_time, 0, 0, -1)),) * 2)
    except (zipfile.BadZipFile, RuntimeError, OverflowError, ValueError) as error:
        if isinstance(error, CourseError):
            raise
        raise CourseError(f"{source.name} can't be unpacked: {error}") from None
    return folder
