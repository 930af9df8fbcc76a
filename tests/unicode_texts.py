"""Hypothesis strategies for text that is hard on a tokenizer: all planes of Unicode, marks, emoji, controls."""

from __future__ import annotations

from hypothesis import strategies as st

SPECIAL = ("<s>", "</s>", "<pad>", "<unk>", "<mask>")

ANY = st.characters(exclude_categories=["Cs"])  # all planes, unassigned and private use too; Cs: lone surrogates
MARKS = st.characters(categories=["Mn", "Mc", "Me"])
RANGES = st.sampled_from(
    [
        (0x0000, 0x001F), (0x007F, 0x009F),  # control characters
        (0x0300, 0x036F), (0x0590, 0x08FF), (0x0900, 0x0DFF), (0x0E00, 0x0EFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
        (0x2000, 0x206F),  # spaces, joiners, right-to-left and left-to-right controls
        (0x2070, 0x2BFF), (0x2E80, 0x33FF), (0x4E00, 0x4FFF), (0xAC00, 0xAFFF),
        (0xE000, 0xE0FF), (0xF900, 0xFDFF), (0xFE00, 0xFEFF), (0xFF00, 0xFFFF),  # private use, compatibility forms
        (0x10000, 0x103FF), (0x1D400, 0x1D7FF), (0x1F1E6, 0x1F6FF), (0x20000, 0x200FF), (0xE0000, 0xE01EF),
        (0xF0000, 0xF00FF), (0x10FF00, 0x10FFFF),
    ]
).flatmap(lambda ends: st.integers(*ends)).map(chr)  # fmt: skip
SPACES = st.sampled_from(" \t\n\r\u00a0\u1680\u2003\u2028\u3000\u200b\ufeff▁")
EMOJI = st.sampled_from(["👩‍👩‍👧‍👦", "🏳️‍🌈", "👋🏽", "🇹🇷", "☺️", "1️⃣", "🧑🏿‍🚀"])
SCRIPTS = st.text(st.sampled_from("abcxyzéßñαβγабвابتคนไทयहन世界吗かナカﾞｶﾞ한국"), max_size=6)
REPEATED = st.tuples(st.text(ANY, min_size=1, max_size=3), st.integers(1, 40)).map(lambda pair: pair[0] * pair[1])


def texts(pieces: list[str]) -> st.SearchStrategy[str]:
    """Texts of up to some hundred characters, mixed from all of the above and from pieces of a vocabulary."""
    known = st.sampled_from(pieces).map(lambda piece: piece.replace("▁", " "))
    part = st.one_of(ANY, RANGES, MARKS, SPACES, EMOJI, SCRIPTS, REPEATED, known, known, st.text(ANY, max_size=8))
    return st.lists(part, max_size=14).map("".join).filter(lambda text: not any(name in text for name in SPECIAL))
