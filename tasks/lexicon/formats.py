r"""Pieces of text that are told by their form: dates, credits, file names, cameras, prices.

Patterns are read with `re.VERBOSE` (a space is written `\s`) and match either case, except credits,
where names are told by their capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from tasks.lexicon import words
from tasks.lexicon.ascii_words import WORD_CHARACTERS


def _any(alternatives: str) -> str:
    """A group that matches one of the patterns that stand in a text with spaces between them."""
    return f"(?:{'|'.join(alternatives.split())})"


_YEAR = r"(?:(?:1[89]|20)\d\d)"
_ANY_YEAR = rf"(?:(?:{_YEAR}|['’]?\d\d)\b)"
_DAY = r"(?:\b\d{1,2}(?:st|nd|rd|th)?\b)"
_WEEKDAY = rf"(?:{_any('mon tues? wed(?:nes)? thur?s? fri sat(?:ur)? sun')}(?:day)?\b[.,]*\s*)"
_MONTH = (
    _any(
        "jan(?:uary)? feb(?:ruary)? mar(?:ch)? apr(?:il)? may june? july? aug(?:ust)?"
        " sept?(?:ember)? oct(?:ober)? nov(?:ember)? dec(?:ember)?"
    )
    + r"\b\.?"
)
_TIME = r"""(?:
    (?<!\d)\d{1,2}(?:[:.]\d\d){1,2}(?:\s*[ap]\.?m\b\.?|\s*(?:h|hrs|utc|gmt|z)\b)?
  | (?<!\d)\d{1,2}\s*[ap]\.?m\b\.?
)"""
_DATE = rf"""(?:
    (?:\b{_WEEKDAY})?(?:the\s+)?{_DAY}\s*(?:of\s+)?[-/.]?\s*{_MONTH}       # 3rd of May 2011
        [\s,./'’-]*{_ANY_YEAR}?
  | (?:\b{_WEEKDAY})?\b{_MONTH}[\s-]*{_DAY}[\s,/-]*{_ANY_YEAR}?                # May 3rd, 2011
  | \b{_MONTH}[\s,'’-]*{_ANY_YEAR}                                            # May '11
  | \b{_YEAR}\s?[-/.:_]\s?\d{{1,2}}\s?[-/.:_]\s?\d{{1,2}}(?!\d)                # 2011-05-03
  | \b\d{{1,2}}\s?[-/.\s]\s?\d{{1,2}}\s?[-/.\s]\s?(?:{_YEAR}|\d\d)\b           # 3/5/2011
  | \b{_YEAR}[01]\d[0-3]\d\b                                                  # 20110503
  | \b{_any("early mid late spring summer autumn fall winter christmas easter")}
        (?:\s+of)?[\s-]+{_YEAR}\b
)"""
_MADE = _any(
    "photographed photo(?:graph|s)? pictured? pictures images? snapped snapshot shot taken captured"
    " filmed recorded scanned uploaded posted published created modified updated edited added"
    " submitted printed dated? released digiti[sz]ed exposed saved generated viewed accessed"
    " retrieved time originally last was is"
)
_DATES = rf"""
    (?:\b{_MADE}\s+)*(?:\b{_MADE}\b)?[\s:,-]*
        (?:\b{_any("on at in by from during since of around circa")}\b\s*)*
        {_DATE}(?:[\s,t_-]*(?:\b(?:at|around)\b|@)?\s*{_TIME})?
  | \b{_MADE}\s+(?:{_any("on at in during around circa")}\s+)?(?:
        {_TIME} | {_YEAR}\b
        | (?:an?\s+|the\s+)?{_WEEKDAY}(?:{_any("morning afternoon evening night")}\b)?
            (?:\s*(?:in|of)\s+{_YEAR}\b)?
    )
  | {_TIME}
  | \b(?:{_MADE}\s+)?(?:\d+|{_any("an? one two three few several")})\s+
        {_any("second minute min hour day week month year")}s?\s+ago\b
"""

_NAMES = r"(?:(?:(?:[A-Z][\w.'’-]*|de|von|van|der|la|le|and|&|/|\|)[\s,]*){1,6})"
_WORKS = _any("photo(?:graph|graphy|s)? images? pictures? pics? artwork illustration video source")
_OWNERS = _any(
    r"courtesy(?:\s+of)? photographer credits? source via copyright photos? images? author artist"
    " creator owner"
)
_GIVEN = _any(
    "posted uploaded submitted published written contributed shared supplied provided photographed"
    " shot edited"
)
_CREDITS = rf"""
    (?i:\b{_WORKS}\s*(?:{_any("credits? courtesy copyright by source")}\b|©)
        (?:\s+(?:to|of|by))?[\s:©-]*)(?:{_NAMES}|\S+(?:\s\S+)?$)?
  | (?i:\b{_OWNERS}\s*[:©])\s*(?:{_NAMES}$)?
  | (?i:\b(?:courtesy|photo|image)\s+of\s+the\s+{_any("artist author owner photographer")}\b)
  | (?i:\(c\)|©|\bcopyright\b)[\s©]*(?:{_YEAR}(?:\s*[-–]\s*\d+)?)?[\s,]*(?i:by\s+)?{_NAMES}?
  | (?i:\b{_GIVEN}\s+by\s+)(?:{_NAMES}|\S+)
  | \b{_any("AP AFP EPA PA REUTERS Reuters Getty")}(?=[\s/]|$)
        (?:\s?(?:[Pp]hotos?|[Ii]mages?|Wire))?(?:\s*/\s*{_NAMES})?
"""

_EXTENSION = _any(
    "jpe?g jfif png gif webp avif bmp tiff? svgz? ico psd xcf hei[cf] raw cr[23] nef arw dng orf"
    " pdf eps docx? pptx? xlsx? zip mp4 mov avi webm html? php\\d? aspx? jsp"
)
_STEM = _any(
    "_?img imag images? photos? foto bild pict? pictures? pics? dsc[fnop]? _?mg mvi vid video clip"
    " cimg imgp hpim sdc sam pano panorama dji gopr gp gh pxl mvimg scan scanned doc document page"
    " capture screen[\\s_-]?(?:shot|cap|grab) snapshot snap shot frame still slide figure fig plate"
    " item file asset layer artboard object media untitled unnamed unknown noname new downloads?"
    " export output render result sample test temp tmp copy final thumb(?:nail)? preview banner"
    " header slider background bg icon logo sprite avatar attachment upload product prod sku"
    " gallery album cover poster wallpaper whatsapp[\\s_-](?:image|video) part step view"
)
_VARIANT = _any("no nr num number at copy v ver final edit edited new wa crop scaled large small")
_FILES = rf"""
    [\w%~(),+@\\/-]+(?:\.[\w%~(),+@-]+)*\.{_EXTENSION}\b(?:\?\S*)?
  | \b{_STEM}(?:[\s_-]*{_VARIANT})*[\s._\#:-]*\(?\d[\w.:-]*\)?(?:\s*(?:of|/)\s*\d+)?
  | \b(?:p|s|r|l|m|dcp|sp|kif|wp)_?\d{{5,}}\w*
  | \b(?:[0-9a-f]{{4,}}-){{2,}}[0-9a-f]{{4,}}\b
  | \b(?=[a-z]*\d)(?=\d*[a-z])[0-9a-z]{{12,}}\b          # a hash, an identifier
  | \b\d[\d_-]{{4,}}[a-z]?\b
  | [^\W_]+(?:_+[^\W_]+){{2,}}\b | \b\w+_v?\d+\b | _+\w+  # words_tied_together
  | ^[^\W_]+(?:[_+.-][^\W_]+){{3,}}$                      # or-tied-like-this
  | ^\W*(?:\w+[-_])+\d+\W*$
  | \bcopy\s+of\b | \s-\s*copy\b | \(\d{{1,4}}\)
  | \b\d+\s*[x×]\s*\d+\b | \b\d+(?:\.\d+)?\s*(?:px|pixels?|dpi|[kmg]b|megapixels?)\b
  | ^\W*\d+\s*(?:of|/)\s*\d+\W*$                          # 3 of 12
  | ^\W*{_any("fig(?:ure)? plate exhibit photo image")}\.?\s+(?:[ivxlc]+|[a-z])\W*$
"""

_MAKER = _any(
    "canon nikon sony fuji(?:film)? olympus pentax panasonic lumix leica kodak minolta konica ricoh"
    " sigma hasselblad samsung casio polaroid huawei xiaomi oneplus motorola nokia htc gopro dji"
    " epson apple google"
)
_MODEL = _any(
    "coolpix cyber-?shot powershot easyshare finepix ixus eos rebel stylus exilim optio galaxy"
    " pixel mavic iphone ipad lumix alpha hero dsc perfection"
)
_SUFFIX = r"(?:[\s-]+(?:[a-z]{0,4}-?\d[\w-]*|mark|[iv]+|pro|max|plus|mini|ultra)\b)*"
_PROGRAM = _any(
    "vsco snapseed lightroom photoshop gimp canva inkscape picasa instagram camscanner camera phone"
    " dslr smartphone scanner webcam drone lens"
)
_USED = _any(
    "processed edited created made generated exported scanned taken shot captured photographed"
)
_CAMERAS = rf"""
    \b{_MAKER}\b(?:\s+{_any("corporation digital still video")})*\s+
        (?:cameras?(?:\s+pictures)?|{_MODEL}|[a-z]{{0,5}}-?[a-z]?\d[\w-]*)(?:[\s-]+{_MODEL})*{_SUFFIX}
  | \b{_any("iphone ipad galaxy coolpix powershot lumix finepix eos")}\s*
        (?:[a-z]?-?\d[\w-]*|x[sr]?|se)\b{_SUFFIX}
  | \bf\s?/\s?\d+(?:\.\d+)? | \b1/\d{{1,5}}\s*(?:s|secs?|seconds?)\b
  | \biso[\s-]?\d{{2,6}}\b | \b\d{{2,3}}(?:-\d{{2,3}})?\s?mm\b
  | \b{_USED}
        \s+{_any("with on by using in from")}\s+(?:(?:an?|my|the|adobe)\s+)*(?:\w+\s+)?
        (?:{_PROGRAM}|{_MODEL}|{_MAKER})\b.*
  | \b{_any("olympus kodak minolta sony samsung digital")}\s+(?:digital\s+)?(?:still\s+)?camera\b
  | \bgd-jpeg.* | \bijg\s+jpeg\b.*
"""

_DOMAIN = _any(
    "com net org edu gov info biz io co app dev shop store online site blog tv us uk de fr nl it es"
    " eu ru cn jp in au ca test example invalid local"
)
_ADDRESSES = rf"""
    \b{_any("https? ftp file data javascript mailto")}:\S+ | \bwww\.\S+
  | [\w.+-]+@[\w-]+(?:\.[\w-]+)+ | (?<!\w)[@\#]\w+
  | \b(?:[\w-]+\.)+{_DOMAIN}\b(?:[:/?]\S*)?
  | (?<!\w)/?[\w.%-]+(?:/[\w.%-]+){{2,}}/? | (?<!\w)/\w[\w%.-]*/\S* | \?\w+=\S*
  | (?:\b(?:tel(?:ephone)?|phone|call)\b\.?)?[\s:]*
        (?<!\w)\+?\(?\d{{2,4}}\)?[\s-]\d{{3,4}}[\s-]\d{{3,5}}\b
"""

_NUMBERED = _any(
    "sku upc ean gtin isbn asin mpn item model part product catalog(?:ue)? style order serial lot"
    " article art ref(?:erence)? id code image photo stock"
)
_COUNTED = _any("view like comment share follower download vote review rating result item")
_PRICES = rf"""
    (?:\b{_any("rrp msrp price cost was now only from save just")}\b\s*:?\s*)*
        (?:us)?[$€£¥₹]\s?\d[\d.,]*(?:\s*(?:each|only|per\s+\w+))?
  | \b\d[\d.,]*\s?(?:[$€£¥₹]|{_any("usd eur euros? gbp dollars? pounds?")}\b)
  | \b(?:up\s+to\s+|save\s+|extra\s+|now\s+)*\d{{1,3}}\s?%\s*{_any("off discount sale cheaper")}?
  | \b(?:rated\s+)?\d(?:[.,]\d+)?\s*(?:out\s+of|/)\s*(?:5|10|five|ten)\b(?:\s+stars?)?
  | \b\d(?:[.,]\d)?[\s-]stars?\s+(?:rating|reviews?)\b
  | \b{_NUMBERED}\.?\s*(?:{_any("no nr num(?:ber)? code id")}\b)?\.?\s*[:\#]?\s*
        [a-z]{{0,5}}[-_/]?\d[\w./-]*
  | \b{_any("sku item model part product article stock image photo asset")}\.?\s*
        {_any("no nr number code id")}\b\.?
  | \b\d[\d.,]*\s*(?:k\s+)?{_COUNTED}s?\b
"""

_TEMPLATES = r"""
    \{\{.*?\}\} | \{%.*?%\} | \$\{.*?\} | %[\w-]+% | \[[a-z_\ -]+\] | <[^>]*> | \{[\w.\ -]*\}
  | &(?:[a-z]+|\#\d+); | \b\w+=["'].*?["'] | \blorem\s+ipsum\b.* | \bdolor\s+sit\b.*
"""

_FLAGS = re.VERBOSE | re.IGNORECASE


class Form(NamedTuple):
    """A pattern as it stands, and one that finds the same in an ASCII text in lower case.

    Without `IGNORECASE` the expression's engine sees at a glance where none of its many words can
    begin, which takes a third of the time.
    """

    pattern: re.Pattern[str]
    small: re.Pattern[str] | None = None

    @classmethod
    def in_either_case(cls, text: str) -> Form:
        """The form whose pattern, written in lower case, does not care for case."""
        return cls(re.compile(text, _FLAGS), re.compile(text, re.VERBOSE))

    def cut(self, caption: str, mark: str) -> tuple[str, int]:
        """The caption with a mark, one without case, in place of each match, and their number."""
        if self.small is None or not caption.replace(mark, "").isascii():
            return self.pattern.subn(mark, caption)
        matches = [match.span() for match in self.small.finditer(caption.lower())]
        if not matches:
            return caption, 0
        ends = [0, *(end for _, end in matches)]
        starts = [*(start for start, _ in matches), len(caption)]
        kept = [caption[end:start] for end, start in zip(ends, starts, strict=True)]
        return mark.join(kept), len(matches)


FORMATS: Final[dict[str, Form]] = {
    "template": Form.in_either_case(_TEMPLATES),
    "address": Form.in_either_case(_ADDRESSES),
    "credit": Form(re.compile(_CREDITS, re.VERBOSE)),
    "camera": Form.in_either_case(_CAMERAS),
    "price": Form.in_either_case(_PRICES),
    "date": Form.in_either_case(_DATES),
    "file name": Form.in_either_case(_FILES),
}


class Sign(NamedTuple):
    """Without one of these words, and without a match of the pattern, a form is not there."""

    words: frozenset[str]
    pattern: re.Pattern[str]

    def is_in(self, caption: str, runs: set[str]) -> bool:
        """Whether the form may be in a caption with these `runs_of` it."""
        return not runs.isdisjoint(self.words) or bool(self.pattern.search(caption))


def _joined(first: str, second: str) -> str:
    """Every word of a list with every word of another, written as one."""
    return " ".join(one + other for one in first.split() for other in second.split())


_MONTHS = (
    "jan january feb february mar march apr april may jun june jul july aug august sep sept"
    " september oct october nov november dec december"
)
_DAYS = "mon tue tues wed wednes thu thus thur thurs fri sat satur sun"
_WORKS_OF = (
    "photo photos photograph photography image images picture pictures pic pics artwork"
    " illustration video source"
)
_CREDITED = "credit credits courtesy copyright by source"
_ITEMS = "sku item model part product article stock image photo asset"
_CODES = "no nr number code id"
_MAKERS = (
    "canon nikon sony fuji fujifilm olympus pentax panasonic lumix leica kodak minolta konica ricoh"
    " sigma hasselblad samsung casio polaroid huawei xiaomi oneplus motorola nokia htc gopro dji"
    " epson apple google"
)
_DEVICES = "iphone ipad galaxy coolpix powershot lumix finepix eos"

# To look for a form that is not there takes most of the time: the patterns above begin with what is
# optional and are tried at every place of a caption. These are quick, and miss no match.
SIGNS: Final[dict[str, Sign]] = {
    "template": Sign(words("lorem dolor"), re.compile(r"[{%$\[<&=]")),
    "address": Sign(frozenset(), re.compile(r"[:@#/?\d]|\.\S")),
    "credit": Sign(
        words(f"{_CREDITED} {_joined(_WORKS_OF, _CREDITED)} artist author owner photographer")
        | words("ap afp epa pa reuters getty"),
        re.compile(r"[:©]|\(c\)", _FLAGS),
    ),
    "camera": Sign(
        words(f"{_MAKERS} {_DEVICES} {_joined(_DEVICES, 'x xs xr se')} camera gd ijg")
        | words("processed edited created made generated exported scanned taken shot captured")
        | words("photographed"),
        re.compile(r"\d"),
    ),
    "price": Sign(words(f"{_CODES} {_joined(_ITEMS, _CODES)}"), re.compile(r"\d")),
    "date": Sign(
        words(f"ago {_MONTHS} {_DAYS} {_joined(_DAYS, 'day')}"),
        re.compile(r"\d{4}|\d\s?[-/.:_\s]\s?\d|\d\s*[ap]\.?m", re.IGNORECASE),
    ),
    "file name": Sign(
        words("copy"),
        re.compile(
            r"[\d_]|\.\w|[0-9a-f]-[0-9a-f]{4,}-|^\S*[+.-]\S*$"
            r"|^\W*(?:fig(?:ure)?|plate|exhibit|photo|image)\.?\s+\w+\W*$",
            re.IGNORECASE,
        ),
    ),
}
_RUN = re.compile(r"\w+")


def runs_of(caption: str) -> set[str]:
    """The words of a caption as the patterns' `\\b` tells them, in one case."""
    if caption.isascii():
        return set(WORD_CHARACTERS(caption))
    return set(_RUN.findall(caption.casefold()))


# A form needs a digit, a sign, or one of these words: without any, none is tried, which spares good
# captions most of the cost.
_SIGN = re.compile(r"[\d@#_/\\%{}\[\]<>$€£¥₹©=&?:]|\.\w|\w[-+.]\w+[-+.]\w")
_IN_SIGN = re.compile(r"[\d@#_/\\%{}\[\]<>$€£¥₹©=&?:.+-]")  # a fifth of the cost
OPENING: Final = words(
    """
    by courtesy credit credits copyright source artist author owner photographer copy ago fig figure
    plate exhibit monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur
    thurs fri sat sun ap afp epa pa reuters getty lorem dolor jpeg sku item model part product
    article stock asset iphone ipad galaxy coolpix powershot easyshare finepix cybershot ixus eos
    lumix rebel mavic camera phone dslr smartphone scanner webcam drone lens vsco snapseed lightroom
    photoshop gimp canva inkscape picasa instagram camscanner canon nikon sony fuji fujifilm olympus
    pentax panasonic leica kodak minolta konica ricoh sigma hasselblad samsung casio polaroid huawei
    xiaomi oneplus motorola nokia htc gopro dji epson apple google
    """
)


def may_hold_forms(caption: str, words: Iterable[str]) -> bool:
    """False only if no form is in a caption with these words."""
    signs = _IN_SIGN.search(caption) is not None and _SIGN.search(caption) is not None
    return signs or not OPENING.isdisjoint(words)
