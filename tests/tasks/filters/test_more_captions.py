"""The filters of captions that are declared on demand: what each drops, masks and keeps."""

import math
from collections import Counter

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from infra.errors import PermanentError
from infra.tables import write_table
from infra.work import Work
from schemas.artifact import Unit
from schemas.records import PAIR_SCHEMA, DropReason
from tasks.filters import Change, Objection, build_filter, check_specs, filter_sources
from tasks.filters.caption_entropy import entropy
from tasks.filters.repeated_caption import Params, prepare
from tasks.lexicon.letters import letters
from tests.tasks.pair_rows import pair_row


def judged(spec, caption, prepared=None, **columns):
    return build_filter(spec, prepared).judge(pair_row(caption, **columns))


def reason(spec, caption, **columns):
    found = judged(spec, caption, **columns)
    return found.reason if isinstance(found, Objection) else None


@pytest.mark.parametrize("text", ["a red circle", "aaaa", "ab", "x", "日本の朝", ""])
def test_entropy_is_shannons(text):
    shares = [count / len(text) for count in Counter(text).values()]

    assert entropy(text) == pytest.approx(-sum(p * math.log2(p) for p in shares), abs=1e-12)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a large red circle on a white background", None),
        ("a cat", None),
        ("aaaaaaa aaa aaaaaa", DropReason.LOW_ENTROPY),
        ("haha haha haha haha haha", DropReason.LOW_ENTROPY),
        ("sale now sale now sale now sale now", DropReason.LOW_ENTROPY),
        ("", DropReason.LOW_ENTROPY),
    ],
)
def test_entropy(caption, expected):
    assert reason({"caption_entropy": {}}, caption) is expected


def test_the_bound_of_entropy_is_allowed():
    assert reason({"caption_entropy": {"bits": 2.0}}, "abcd") is None
    assert reason({"caption_entropy": {"bits": 2.001}}, "abcd") is DropReason.LOW_ENTROPY
    half = {"bits": 0, "distinct_words": 0.5}
    assert reason({"caption_entropy": half}, "red red blue blue") is None
    assert reason({"caption_entropy": half}, "red red blue blue red") is DropReason.LOW_ENTROPY


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a red circle, 1998", None),
        ("दो लाल वृत्त", None),  # vowel signs are marks, and belong to the letters
        ("东京塔的夜景", None),
        ("12 34 56 78 ab", "letters"),
        ("ab 1234567", "letters"),
        ("abcdefg 123456", "46% digits"),
        ("→→ ★ abc ★ ←←", "letters"),
        ("noooooooo way", "8 characters in a row"),
        ("   ", "no characters"),
    ],
)
def test_character_classes(caption, words):
    found = judged({"character_classes": {}}, caption)

    assert found is None if words is None else words in found.detail
    assert words is None or found.reason is DropReason.ODD_CHARACTERS


def test_bounds_of_character_classes_are_allowed_and_shouting_only_if_declared():
    assert judged({"character_classes": {"letters": 0.6, "digits": 0.4}}, "abc 12") is None
    assert judged({"character_classes": {"run": 3}}, "aaa bbb") is None
    assert judged({"character_classes": {}}, "A RED CIRCLE") is None
    shouting = judged({"character_classes": {"capitals": 0.5}}, "A RED CIRCLE")
    assert shouting.detail == "100% capitals"
    assert judged({"character_classes": {"capitals": 0.5}}, "AB cd") is None


EMAILS = [
    "write to jane.doe+web@mail.example.com now", "jane@example.co.uk", "info (at) example.org",
    "Kontakt: müller@beispiel.de",
]  # fmt: skip
PHONES = [
    "call +44 20 7946 0018 today", "+1 (555) 010-9999", "(555) 234-5678", "555-234-5678",
    "Tel. 030 123456", "phone: 01234 567890", "whatsapp 0151 2345678", "0049 30 1234567",
    "1-800-555-0199", "Fax no. 12 34 56 78",
]  # fmt: skip
NEITHER = [
    "a red circle on 2019-03-12", "12/03/2019", "1914-1918", "Boeing 747-400 at gate 12",
    "$1,299.00", "1920x1080 pixels", "ISBN 978-3-16-148410-0", "M 31 in 2011", "IMG_20190312_1234",
    "flight at 12:30 from 2 cities", "call of the wild", "@home with a cat", "a mobile of 12 birds",
    "population 1 234 567", "10 000 000 bees", "24-70mm f/2.8 lens", "route 66, 1955 and 1956",
]  # fmt: skip


@pytest.mark.parametrize("caption", [*EMAILS, *PHONES])
def test_personal_data_is_masked_or_drops_the_caption(caption):
    found = judged({"personal_data": {}}, caption)
    what = "email" if caption in EMAILS else "phone"

    assert isinstance(found, Change)
    assert f"[{what}]" in found.caption
    assert not any(sign in found.caption for sign in ("@", "example", "45", "55", "46"))
    assert found.detail.startswith("masked ") and "1" in found.detail
    pair = pair_row(caption)
    dropped = build_filter({"personal_data": {f"{what}s": "drop"}}).judge(pair)
    assert dropped.reason is DropReason.PERSONAL_DATA
    assert pair["caption"] == found.caption, "the table of drops must not repeat it"
    assert judged({"personal_data": {f"{what}s": "keep"}}, caption) is None


@pytest.mark.parametrize("caption", NEITHER)
def test_numbers_that_are_nobodys_stay(caption):
    assert judged({"personal_data": {}}, caption) is None


def test_several_are_all_masked():
    found = judged({"personal_data": {}}, "a@b.org, c@d.org or +44 20 7946 0018")

    assert found.caption == "[email], [email] or [phone]"
    assert found.detail == "masked e-mail addresses: 2, phone numbers: 1"


@pytest.mark.parametrize(
    ("domain", "image", "expected"),
    [
        ("bad.test", "http://img.test/1", "bad.test"),
        ("www.bad.test", "http://img.test/1", "bad.test"),
        ("page.test", "http://cdn.bad.test:8080/1", "bad.test"),
        ("notbad.test", "http://bad.test.other/1", None),
        ("xn--bcher-kva.test", "http://img.test/1", "xn--bcher-kva.test"),
        ("page.test", "http://[::1/1", None),
    ],
)
def test_blocked_domains(domain, image, expected):
    spec = {"blocked_domains": {"domains": ["Bad.test.", "bücher.test"]}}
    found = judged(spec, "a red circle", domain=domain, image_url=image)

    assert (found and found.detail) == expected
    assert found is None or found.reason is DropReason.BLOCKED_DOMAIN


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a casino at night", "casino"),
        ("CASINO!", "casino"),
        ("two casinos", None),
        ("adult content here", "adult content"),
        ("adult cat, content here", None),
        ("content for an adult", None),
        ("an adult's adult-content", "adult content"),
    ],
)
def test_blocked_words_are_whole_words_and_phrases(caption, expected):
    found = judged({"blocked_words": {"words": ["Casino", "adult  content"]}}, caption)

    assert (found and found.detail) == expected


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"blocked_words": {}}, "give words, or files"),
        ({"blocked_words": {"words": ["?!"]}}, "no letter or digit"),
        ({"blocked_domains": {}}, "give domains, or files"),
        ({"personal_data": {"emails": "hide"}}, "'drop', 'mask' or 'keep'"),
        ({"repeated_caption": {"images": 0}}, "greater than or equal to 1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(spec, words):
    with pytest.raises(ValueError, match=words):
        check_specs((spec,), "caption")


def prepared_list(spec, work):
    from tasks.filters import prepare_filters

    (units,) = prepare_filters([spec], (Unit(name="p", sha256="0" * 64, size=1),), work).values()
    return work.fetch(units[0])


def test_lists_are_read_from_files(tmp_path):
    words, domains = tmp_path / "words.txt", tmp_path / "domains.txt"
    words.write_text("# of ours\n\nCasino  # and the like\nlucky number\n")
    domains.write_text("\ufeffBad.test\nwww.worse.test.\n", encoding="utf-8")
    work = Work.local(tmp_path / "home")
    spec = {"blocked_words": {"words": ["dice"], "files": [str(words)]}}
    other = {"blocked_domains": {"files": [str(tmp_path / "dom*.txt")]}}

    by_words = build_filter(spec, prepared_list(spec, work))
    assert [bool(by_words.judge(pair_row(c))) for c in ("a casino", "my Lucky number", "dice")]
    assert by_words.judge(pair_row("of ours and the like")) is None
    by_domain = build_filter(other, prepared_list(other, work))
    assert by_domain.judge(pair_row("x", domain="bad.test"))
    assert by_domain.judge(pair_row("x", domain="worse.test")) is None
    assert filter_sources([spec, other]) == (str(words), str(tmp_path / "dom*.txt"))


def test_a_list_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(b"caf\xe9\n")

    with pytest.raises(PermanentError, match="is not UTF-8 text"):
        prepared_list({"blocked_words": {"files": [str(path)]}}, Work.local(tmp_path / "home"))


def test_letters_are_weighed_as_the_library_weighs_them():
    """Also where there are none, and beside texts of other lengths."""
    texts = ["a red circle", "", "123", "cercle rouge, fond blanc", "ein Kreis " * 40, "đỏ", "ſ K"]
    languages = frozenset(["en", "fr", "de", "vi", "es"])
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(sorted(languages))
    scorer = letters(languages)
    found = scorer.scores(texts)

    for text, row in zip(texts, found, strict=True):
        assert dict(zip(scorer.languages, row.tolist(), strict=True)) == pytest.approx(
            dict(identifier.rank(text)), rel=1e-5
        )
    assert (scorer.scores(texts[:1])[0] == found[0]).all()
    assert scorer.scores(["x" * 10**6]).shape == (1, 5)


@pytest.mark.parametrize(
    ("margin", "expected"), [(12, None), (-1, None), (-1000, DropReason.WRONG_LANGUAGE)]
)
def test_a_margin_below_zero_asks_for_a_wanted_language_to_lead(margin, expected):
    spec = {"language": {"languages": ["en", "de"], "margin": margin}}

    assert reason(spec, "a large red circle on a white background") is expected
    assert reason(spec, "un grand cercle rouge sur fond blanc") is DropReason.WRONG_LANGUAGE


def parts_of(work, *parts):
    units = []
    for number, rows in enumerate(parts):
        path = work.scratch / f"p{number}.parquet"
        units.append(work.add(path, path.name, write_table(path, rows, PAIR_SCHEMA)))
    return tuple(units)


def on(domain, caption, image):
    return pair_row(caption, domain=domain, image_url=f"http://img.test/{image}")


def test_repeated_captions_are_counted_over_all_parts(tmp_path):
    """Against a plain count with sets, on captions that repeat at, below and above the bound."""
    rows = [on("a.test", f"photo {n} of the day", n) for n in range(4)]  # numbers are alike
    rows += [on("a.test", "A  red circle", 50 + n) for n in range(3)]  # the very bound
    rows += [on("b.test", "a red circle", 60 + n) for n in range(4)]
    rows += [on("c.test", "the same image", 99) for _ in range(9)]
    rows += [on(f"{n}.test", "on many domains", 100 + n) for n in range(9)]
    work = Work.local(tmp_path)
    parts = parts_of(work, rows[::3], rows[1::3], rows[2::3], [])
    prepared = [work.fetch(unit) for unit in prepare(Params(images=3), parts, work)]

    dropped = set()
    for number in range(3):
        one = build_filter({"repeated_caption": {"images": 3}}, prepared[number])
        found = [(row, one.judge(row)) for row in rows[number::3]]
        dropped |= {(row["domain"], row["caption"]) for row, objection in found if objection}
    photos = {("a.test", f"photo {n} of the day") for n in range(4)}
    assert dropped == photos | {("b.test", "a red circle")}


def test_a_part_without_newly_repeated_captions_is_as_it_was(tmp_path):
    work = Work.local(tmp_path)
    old = [on("a.test", f"picture number {name}", name) for name in ("one", "two", "three")]
    new = [on("b.test", "menu", n) for n in range(5)]
    first = prepare(Params(images=3), parts_of(work, old), work)
    second = prepare(Params(images=3), parts_of(work, old, new), work)

    assert second[0] == first[0]
    assert second[1].records == 1
