"""HTML pages around the images of a site: galleries, tables, odd markup, many encodings."""

from __future__ import annotations

import html
import posixpath
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from infra.demo_web.dialect import Dialect
from infra.demo_web.items import Item

_OPT_OUT_HEADERS = {
    "noai_header": ("X-Robots-Tag", "noai, noimageai"),
    "tdm_header": ("tdm-reservation", "1"),
}
_OPT_OUT_METAS = {
    "noai_meta": '<meta name="robots" content="noai, noimageai">',
    "tdm_meta": '<meta name="tdm-reservation" content="1">',
}

# (codec, name on the page, where it is said); a codec of a language is used on pages that have it.
_ENCODINGS = (
    ("utf-8", "utf-8", "header"),
    ("utf-8", "UTF-8", "header"),
    ("utf-8", "utf-8", "meta"),
    ("utf-8-sig", "", "bom"),
    ("cp1252", "windows-1252", "meta"),
    ("latin-1", "ISO-8859-1", "header"),
    ("utf-16", "", "bom"),
    ("ascii", "", "nowhere"),
)
_LANGUAGE_ENCODINGS = {
    "ru": (("cp1251", "windows-1251", "header"), ("koi8-r", "koi8-r", "meta")),
    "ja": (("shift_jis", "Shift_JIS", "meta"), ("euc-jp", "euc-jp", "header")),
    "zh": (("gb18030", "gb18030", "header"),),
    "pl": (("iso8859-2", "iso-8859-2", "meta"),),
    "el": (("iso8859-7", "iso-8859-7", "header"),),
    "tr": (("cp1254", "windows-1254", "meta"),),
    "ko": (("euc-kr", "euc-kr", "header"),),
    "ar": (("cp1256", "windows-1256", "meta"),),
}


@dataclass(frozen=True)
class WebPage:
    """A page as a crawler would have stored it."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    items: tuple[Item, ...] = field(repr=False)


def lay_out(items: Sequence[Item], seed: str) -> list[list[Item]]:
    """The items in groups of one to six, a page each, in random order.

    Images of pages that forbid AI are among themselves, a way of forbidding to a page.
    """
    rng = random.Random(f"{seed}/layout")
    open_items = [item for item in items if not item.opt_out]
    rng.shuffle(open_items)
    groups: list[list[Item]] = []
    while open_items:
        size = rng.choices((1, 2, 3, 4, 5, 6), (20, 25, 25, 15, 10, 5))[0]
        groups.append(open_items[:size])
        del open_items[:size]
    for way in (*_OPT_OUT_HEADERS, *_OPT_OUT_METAS):
        forbidden = [item for item in items if item.opt_out == way]
        groups += [forbidden[start : start + 5] for start in range(0, len(forbidden), 5)]
    rng.shuffle(groups)
    return groups


def make_page(items: Sequence[Item], number: int, dialect: Dialect, seed: str) -> WebPage:
    """The page number `number`, with these images."""
    rng = random.Random(f"{seed}/page/{number}")
    path = rng.choice(("/page/{}.html", "/{}/", "/album/{}/index.html", "/show?page={}"))
    url = rng.choice(dialect.hosts.pages) + path.format(number)
    codec, name, said = _encoding(items, rng)
    writer = _Writer(url, rng, dialect, base=_base(items, url, rng))
    text = writer.page(items, number, _head(items, name, said))
    content_type = f"text/html; charset={name}" if said == "header" else "text/html"
    headers = [("Content-Type", content_type)]
    headers += [_OPT_OUT_HEADERS[way] for way in _ways(items) if way in _OPT_OUT_HEADERS]
    return WebPage(url, tuple(headers), text.encode(codec, "xmlcharrefreplace"), tuple(items))


def _ways(items: Sequence[Item]) -> list[str]:
    return sorted({item.opt_out for item in items if item.opt_out})


def _encoding(items: Sequence[Item], rng: random.Random) -> tuple[str, str, str]:
    for item in items:
        if item.language in _LANGUAGE_ENCODINGS and rng.random() < 0.6:
            return rng.choice(_LANGUAGE_ENCODINGS[item.language])
    return rng.choices(_ENCODINGS, (40, 10, 20, 4, 10, 8, 3, 5))[0]


def _head(items: Sequence[Item], name: str, said: str) -> str:
    metas = [_OPT_OUT_METAS[way] for way in _ways(items) if way in _OPT_OUT_METAS]
    if said == "meta":
        metas.insert(0, f'<meta charset="{name}">')
    return "\n".join(metas)


def _base(items: Sequence[Item], url: str, rng: random.Random) -> str:
    """The href of a <base> element, or nothing."""
    if rng.random() > 0.12:
        return ""
    found = urlsplit(rng.choice(list(items)).url)
    if found.scheme not in ("http", "https"):
        return ""
    folder = posixpath.dirname(found.path).rstrip("/") + "/"
    # A base may itself be relative to the page.
    same = (found.scheme, found.netloc) == urlsplit(url)[:2]
    return folder if same else f"{found.scheme}://{found.netloc}{folder}"


@dataclass
class _Writer:
    url: str
    rng: random.Random
    dialect: Dialect
    base: str

    def page(self, items: Sequence[Item], number: int, head: str) -> str:
        """The whole document."""
        rng = self.rng
        base = f'<base href="{self.base}">\n' if self.base else ""
        blocks = [self._block(item) for item in items]
        gallery = rng.choice(
            (
                "<div class='gallery'>\n{}\n</div>",
                "<section>\n{}\n</section>",
                "<table><tr>\n{}\n</tr></table>",
                "<ul>\n{}\n</ul>",
            )
        )
        joint = {"<t": "\n</tr><tr>\n", "<u": "\n"}.get(gallery[:2], "\n")
        wrap = {"<t": "<td>{}</td>", "<u": "<li>{}</li>"}.get(gallery[:2], "{}")
        body = gallery.format(joint.join(wrap.format(block) for block in blocks))
        return (
            f"<!DOCTYPE html>\n<html>\n<head>\n{head}\n{base}"
            f"<title>{self.dialect.title}, page {number}</title>\n</head>\n<body>\n"
            f"<nav><a href='/'>Home</a> <a href='/page/{number + 1}.html'>Next</a></nav>\n"
            f"<p>{html.escape(self._prose())}</p>\n{body}\n{self._noise()}"
            f"<p>{html.escape(self._prose())}</p>\n</body>\n</html>\n"
        )

    def _prose(self) -> str:
        return self.dialect.fill(self.rng, self.dialect.prose)

    def _noise(self) -> str:
        """Images that are none: in comments and scripts."""
        if self.rng.random() > 0.15:
            return ""
        return self.rng.choice(
            (
                '<!-- <img src="/old/removed.png" alt="a large red circle on white"> -->\n',
                "<script>var x = '<img src=/scripted.png alt=\"a blue cross\">';</script>\n",
                "<style>.old { background: url(/styled.png) }</style>\n",
            )
        )

    def _block(self, item: Item) -> str:
        source = html.escape(self._reference(item.url))
        if item.place == "figcaption":
            return self._figure(source, item.caption)
        if item.place == "title":
            return f'<img src="{source}" title="{self._attribute(item.caption)}">'
        if not item.place:
            empty = self.rng.choice(("", ' alt=""', ' alt="  "', ' width="64"'))
            return f'<img src="{source}"{empty}>'
        return self._image(source, self._attribute(item.caption))

    def _image(self, source: str, alt: str) -> str:
        """An image with its caption in `alt`, in one of the ways in which people write it."""
        ways = [
            f'<img src="{source}" alt="{alt}">',
            f'<img alt="{alt}" class="pic" src="{source}" width="64" height="64" />',
            f'<a href="/view?p={self.rng.randrange(999)}"><img src="{source}" alt="{alt}"></a>',
            f'<picture><source type="image/avif"><img src="{source}" alt="{alt}"></picture>',
            f'<IMG BORDER=0 SRC="{source}" ALT="{alt}">',
            f'<p><img\n  src="{source}"\n  alt="{alt.replace(" ", chr(10) + "  ", 1)}"\n></p>',
        ]
        if "'" not in alt:
            ways.append(f"<img src='{source}' alt='{alt}'>")
        return self.rng.choice(ways)

    def _figure(self, source: str, caption: str) -> str:
        text = self._text(caption)
        first, _, rest = text.partition(" ")
        marked = self.rng.choice((text, f"<b>{first}</b> {rest}", f"\n  {text}\n"))
        return f'<figure><img src="{source}"><figcaption>{marked}</figcaption></figure>'

    def _attribute(self, text: str) -> str:
        return self._text(text).replace('"', "&quot;")

    def _text(self, text: str) -> str:
        """Escaped text, with entities for other characters on some pages."""
        escaped = html.escape(text, quote=False)
        if self.rng.random() < 0.3:
            escaped = escaped.replace("–", "&ndash;").replace("©", "&copy;").replace("é", "&#xe9;")
        return escaped

    def _reference(self, url: str) -> str:
        """The URL as the page writes it: absolute, or relative to page or base."""
        target = urlsplit(url)
        page = urlsplit(self.url)
        if target.scheme not in ("http", "https"):
            return url
        base = (
            urlsplit(self.base)
            if "://" in self.base
            else page._replace(path=self.base or page.path)
        )
        rest = target._replace(scheme="", netloc="").geturl()
        if target.scheme != base.scheme or self.rng.random() < 0.15:
            return url
        if target.netloc != base.netloc:
            return f"//{target.netloc}{rest}" if self.rng.random() < 0.3 else url
        if self.rng.random() < 0.4:
            return rest
        start = base.path if base.path.endswith("/") else posixpath.dirname(base.path) + "/"
        relative = posixpath.relpath(target.path, start)
        return relative + (f"?{target.query}" if target.query else "")
