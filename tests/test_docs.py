"""The teaching guide says what is so: its links, exercises, hints, minutes and commands."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from xlmr_course import cli
from xlmr_course.classroom import teaching
from xlmr_course.classroom.chapters import ROOT, CourseError, all_chapters

CHAPTERS = all_chapters()
PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMMANDS = typer.main.get_command(cli.app).commands
TARGETS = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(text: str) -> list[str]:
    """Every line of code in a page: spans and blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    joined = [block.replace("\\\n", " ") for block in blocks]
    return [line.split("#")[0].strip() for block in joined for line in block.splitlines()] + spans


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Each `xlmr-course …` (or `python -m xlmr_course …`) in the code of a page: the command and its options."""
    found = []
    for line in code(text):
        for called in re.findall(r"(?:\bxlmr-course|-m xlmr_course)((?: +[^|;&]+)?)", line):
            words = shlex.split(called.replace("…", ""))
            options = [word.split("=")[0] for word in words if word.startswith("--")]
            if words and not words[0].startswith("-"):
                found.append((words[0], options))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_link_leads_nowhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:|mailto:", target):
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(file), f"{name(page)} links to #{anchor} of {name(file)}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name)
def test_the_commands_exist_with_their_options(page):
    text = page.read_text(encoding="utf-8")
    for command, options in commands(text):
        assert command in COMMANDS, f"{name(page)} speaks of xlmr-course {command}"
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        known |= {option for parameter in COMMANDS[command].params for option in parameter.secondary_opts}
        for option in options:
            assert option in known, f"{name(page)} gives {option} to xlmr-course {command}, which has {sorted(known)}"
    for line in code(text):
        for target in re.findall(r"^make (\w+)", line):
            assert target in TARGETS, f"{name(page)} speaks of make {target}"


def test_a_command_that_is_not_there_would_be_found():
    assert commands("Run `xlmr-course frobnicate 04 --fast=1`.") == [("frobnicate", ["--fast"])]
    assert commands("```bash\nxlmr-course grade x \\\n  --out y\n```") == [("grade", ["--out"])]
    assert "frobnicate" not in COMMANDS
    assert {"doctor", "run"} < set(COMMANDS)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
def test_a_chapter_s_page_quotes_its_exercises_hints_rubrics_and_minutes(chapter):
    page = teaching.page(chapter)
    assert page.is_file(), f"write docs/chapters/{page.name}; docs/README.md says what stands in one"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {chapter.number} · {chapter.title}\n")
    assert teaching.filled(chapter, text) == text, "run python -m xlmr_course.classroom.teaching"


def test_the_map_of_the_pages_is_up_to_date():
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    fresh = teaching.between(text, "map", teaching.course_map(), "docs/README.md")
    assert fresh == text, "run python -m xlmr_course.classroom.teaching"


def test_a_page_that_lacks_an_exercise_or_has_one_too_many_is_refused():
    chapter = CHAPTERS[0]
    text = teaching.page(chapter).read_text(encoding="utf-8")
    with pytest.raises(CourseError, match=r"00\.md: put the marks <!-- exercise longest -->"):
        teaching.filled(chapter, text.replace("exercise longest", "something else"))
    with pytest.raises(CourseError, match="has no exercise shortest"):
        teaching.filled(chapter, text + "\n<!-- exercise shortest -->\n<!-- /exercise shortest -->\n")
