"""Names and files as they come from Moodle, Canvas, git and folders; nothing is lost or guessed silently."""

import os
import zipfile

import pytest

from xlmr_course.classroom.chapters import CourseError
from xlmr_course.classroom.submissions import collect


@pytest.fixture
def hand_in(tmp_path):
    """Write files by relative name; each one's time is a minute after the one before."""

    def write(*names, folder=tmp_path / "in"):
        for number, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name}", encoding="utf-8")
            os.utime(path, (1_700_000_000 + 60 * number,) * 2)
        return folder

    return write


def found(folder, chapter="04_attention"):
    return {s.student: s.file.relative_to(folder).as_posix() if s.file else None for s in collect(folder, chapter)}


def test_moodle_s_folders_and_flat_names(hand_in):
    folder = hand_in(
        "Anna Ito_48213_assignsubmission_file_/04_attention.ipynb",
        "Bo Å Ek_48214_assignsubmission_file_my work.ipynb",
    )
    assert list(found(folder)) == ["Anna Ito", "Bo Å Ek"]


def test_two_of_one_name_stay_two(hand_in):
    folder = hand_in(
        "Anna Ito_1_assignsubmission_file_/a.ipynb",
        "Anna Ito_2_assignsubmission_file_/a.ipynb",
    )
    assert list(found(folder)) == ["Anna Ito (1)", "Anna Ito (2)"]


def test_canvas_names_late_and_handed_in_again(hand_in):
    folder = hand_in(
        "itoanna_48213_990121_04_attention-1.ipynb",
        "itoanna_48213_990121_04_attention.ipynb",
        "ekbo_LATE_48214_990122_work.ipynb",
    )
    ek, ito = collect(folder, "04_attention")
    assert (ek.student, ek.remarks) == ("ekbo", ("handed in late",))
    assert ito.file.name == "itoanna_48213_990121_04_attention-1.ipynb", "the number counts, not the file's time"
    assert "2 notebooks: graded itoanna_48213_990121_04_attention-1.ipynb" in ito.remarks[0]
    assert not ito.look


def test_a_folder_for_each_student_and_clones_with_every_chapter(hand_in):
    folder = hand_in(
        "anna/notebooks/04_attention.ipynb",
        "anna/notebooks/05_the_encoder.ipynb",
        "anna/.ipynb_checkpoints/04_attention-checkpoint.ipynb",
        "anna/.git/x.ipynb",
        "bo/Untitled.ipynb",
        "__MACOSX/bo/._Untitled.ipynb",
    )
    assert found(folder) == {"anna": "anna/notebooks/04_attention.ipynb", "bo": "bo/Untitled.ipynb"}


def test_names_in_the_file_names(hand_in):
    folder = hand_in(
        "04_attention_anna-ito.ipynb", "bo.ipynb", "04_attention.ipynb", "04_attention (1).ipynb", "readme"
    )
    assert list(found(folder)) == ["04_attention", "04_attention (1)", "anna-ito", "bo"]


def test_a_browser_s_txt_is_a_notebook(hand_in):
    assert found(hand_in("anna.ipynb.txt", "bo.IPYNB")) == {"anna": "anna.ipynb.txt", "bo": "bo.IPYNB"}


def test_of_two_notebooks_the_newest_is_graded_and_a_person_must_look(hand_in):
    folder = hand_in("anna/old.ipynb", "anna/new.ipynb")
    anna = collect(_with_bo(folder), "04_attention")[0]
    assert anna.file.name == "new.ipynb"
    assert anna.look
    assert anna.remarks == ("2 notebooks: graded new.ipynb (the newest), not old.ipynb",)


def _with_bo(folder):
    (folder / "bo").mkdir()
    (folder / "bo" / "x.ipynb").write_text("x")
    return folder


def test_notebooks_of_one_time_are_said_to_be(hand_in):
    folder = _with_bo(hand_in("anna/a.ipynb", "anna/b.ipynb"))
    for file in (folder / "anna").iterdir():
        os.utime(file, (1_700_000_000,) * 2)
    anna = collect(folder)[0]
    assert "all of one time" in anna.remarks[0]
    assert anna.look


def test_the_same_file_twice_is_no_choice(hand_in):
    folder = _with_bo(hand_in("anna/a.ipynb", "anna/b.ipynb"))
    (folder / "anna" / "b.ipynb").write_bytes((folder / "anna" / "a.ipynb").read_bytes())
    assert not collect(folder)[0].remarks


def test_a_student_without_a_notebook_is_not_forgotten(hand_in):
    folder = hand_in("Anna Ito_1_assignsubmission_file_/essay.docx", "Bo_2_assignsubmission_file_/a.ipynb")
    anna = collect(folder)[0]
    assert (anna.student, anna.file, anna.look) == ("Anna Ito", None, True)
    assert anna.remarks == ("handed in no notebook, but essay.docx",)
    assert anna.digest == ""


def test_links_and_pipes_are_not_read(hand_in):
    folder = hand_in("anna.ipynb", "bo.ipynb")
    (folder / "eve.ipynb").symlink_to(folder / "anna.ipynb")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "fred.ipynb")  # to read it would wait for ever
    assert list(found(folder)) == ["anna", "bo"]


def test_a_zip_keeps_times_and_stays_in_its_folder(hand_in, tmp_path):
    folder = hand_in("class/anna/old.ipynb", "class/anna/new.ipynb", "class/bo.ipynb")
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        for file in sorted(folder.rglob("*.ipynb"), reverse=True):
            archive.write(file, file.relative_to(folder))
        archive.writestr("../../outside.ipynb", "x")
    anna = collect(tmp_path / "class.zip", unpack=tmp_path / "unpacked" / "here")
    assert not list(tmp_path.glob("outside.ipynb"))
    assert {s.student for s in anna} == {"class", "outside"}, "with a file outside it, the one folder is a student's"


def test_one_folder_around_everything_is_no_student(hand_in, tmp_path):
    folder = hand_in("class/anna/old.ipynb", "class/anna/new.ipynb", "class/bo.ipynb")
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        for file in sorted(folder.rglob("*.ipynb"), reverse=True):
            archive.write(file, file.relative_to(folder))
    anna, bo = collect(tmp_path / "class.zip", unpack=tmp_path / "unpacked")
    assert (anna.student, anna.file.name, bo.student) == ("anna", "new.ipynb", "bo")


def test_what_is_no_class_is_one_sentence(tmp_path, hand_in):
    with pytest.raises(CourseError, match="neither a folder of notebooks nor a zip"):
        collect(tmp_path / "nowhere")
    with pytest.raises(CourseError, match="holds no notebook"):
        collect(hand_in("a.txt"))
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("anna.ipynb", "x" * 1000)
    content = bytearray(broken.read_bytes())
    content[40:60] = bytes(20)
    broken.write_bytes(content)
    with pytest.raises(CourseError, match=r"broken\.zip can't be unpacked"):
        collect(broken, unpack=tmp_path / "unpacked")
