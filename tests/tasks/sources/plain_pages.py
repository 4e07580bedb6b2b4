"""Independent and plain: the pairs of a page by Beautiful Soup, of link metadata by json.

Nothing of the code under test is used, and none of its cleverness repeated; speed is no concern.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from urllib.parse import urljoin, urlsplit

from bs4 import BeautifulSoup

LAZY = ["data-src", "data-original", "data-lazy-src", "data-lazy", "data-echo", "data-original-src"]
SETS = ["srcset", "data-srcset", "data-lazy-srcset", "data-original-set"]


def clean(text):
    """Text in one line."""
    text = re.sub("[\u00ad\u200b\u200e\u200f\u2060\ufeff]", "", text or "")
    return unicodedata.normalize("NFC", " ".join(text.split()))[:4096].rstrip()


def pairs_of_page(url, content, parser="html.parser"):
    """(image URL, caption, its source, license) of every image that has a caption."""
    soup = BeautifulSoup(content, parser)
    base = soup.find("base", href=True)
    start = urljoin(url, base["href"]) if base else url
    page_license = _license([a for a in _licensed(soup) if not a.find_parent("figure")], start)
    found = []
    for image in soup.find_all("img"):
        figure = image.find_parent("figure")
        own = _license(_licensed(figure), start) if figure else None
        caption, source = _caption(image, figure)
        address = _address(image)
        if address and caption:
            found.append((_absolute(address, start), caption, source, own or page_license))
    metas = [(m.get("property") or m.get("name") or "", m.get("content") or "")
             for m in soup.find_all("meta")]  # fmt: skip
    for address, caption, source in shared(metas):
        found.append((_absolute(address, start), caption, source, page_license))
    return [one for one in found if one[0].startswith(("http:", "https:"))]


def pairs_of_wat(content):
    """The same of the JSON of a WAT record; its page's URL comes first."""
    envelope = json.loads(content)["Envelope"]
    url = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
    html_metadata = envelope.get("Payload-Metadata", {}).get("HTTP-Response-Metadata", {}).get(
        "HTML-Metadata", {}
    )  # fmt: skip
    head, links = html_metadata.get("Head", {}), html_metadata.get("Links", [])
    start = urljoin(url, head["Base"]) if "Base" in head else url
    licenses = [
        one
        for one in [*head.get("Link", []), *links]
        if "license" in one.get("rel", "").lower().split()
        or re.match(r"https?://creativecommons\.org/(licenses|publicdomain)/.", one["url"])
    ]
    license = "; ".join(dict.fromkeys(_absolute(one["url"], start) for one in licenses)) or None
    found = []
    for link in links:
        if link["path"] == "IMG@/src" and link["url"]:
            alt, title = clean(link.get("alt")), clean(link.get("title"))
            if alt or title:
                found.append((_absolute(link["url"], start), alt or title,
                              "alt" if alt else "title", license))  # fmt: skip
    metas = [(m.get("property") or m.get("name") or "", m.get("content") or "")
             for m in head.get("Metas", [])]  # fmt: skip
    for address, caption, source in shared(metas):
        found.append((_absolute(address, start), caption, source, license))
    return url, [one for one in found if one[0].startswith(("http:", "https:"))]


def shared(metas):
    """Open Graph: (address, caption, source) of every image with a description."""
    page = dict(reversed([one for one in metas if one[0] in ("og:description", "og:title")]))
    for number, (name, content) in enumerate(metas):
        if name != "og:image" or not content.strip():
            continue
        after = [one[0] for one in metas[number + 1 :]]
        end = after.index("og:image") if "og:image" in after else len(after)
        own = [
            value for key, value in metas[number + 1 : number + 1 + end] if key == "og:image:alt"
        ]
        texts = [
            *((one, "og:image:alt") for one in own[:1]),
            *((page[key], key) for key in ("og:description", "og:title") if key in page),
        ]
        for text, source in texts:
            if clean(text):
                yield content, clean(text), source
                break


def _caption(image, figure):
    below = figure.find("figcaption") if figure else None
    texts = [(image.get("alt"), "alt"), (below.get_text(" ") if below else "", "figcaption"),
             (image.get("title"), "title")]  # fmt: skip
    return next(((clean(text), source) for text, source in texts if clean(text)), ("", ""))


def _address(image):
    """The widest of a set, the densest, the lazy one, or `src`."""
    sets = [image.get(name) for name in SETS]
    above = image.parent
    while above is not None and above.name == "source":  # lxml does not know that these are empty
        above = above.parent
    if above is not None and above.name == "picture":
        for source in above.find_all("source"):
            if source.get("type") != "image/svg+xml":
                sets += [source.get(name) for name in SETS]
    wide, dense = [], []
    for text in filter(None, sets):
        for candidate in re.split(r",\s+", text.strip()):
            address, _, size = candidate.strip().rstrip(",").partition(" ")
            if size.strip().endswith("w"):
                wide.append((int(size.strip()[:-1]), address))
            elif size.strip().endswith("x") and float(size.strip()[:-1]) > 1:
                dense.append((float(size.strip()[:-1]), address))
    best = [max(some, key=lambda one: one[0])[1] for some in (wide or dense,) if some]
    lazy = [image[name] for name in LAZY if image.get(name)]
    ordered = [*best, *lazy, *([image["src"]] if image.get("src") else [])]
    usable = [one for one in ordered if not one.startswith("data:") and "{{" not in one]
    return (usable or [""])[0]


def _licensed(element):
    if element is None:
        return []
    links = element.find_all(["a", "link"], href=True)
    return [
        one
        for one in links
        if "license" in [rel.lower() for rel in one.get("rel") or []]
        or re.match(r"https?://creativecommons\.org/(licenses|publicdomain)/.", one["href"])
    ]


def _license(links, start):
    return (
        "; ".join(list(dict.fromkeys(_absolute(one["href"], start) for one in links))[:4]) or None
    )


def _absolute(address, start):
    url = urljoin(start, address.strip()).split("#")[0]
    return url + "/" if url.count("/") == 2 and urlsplit(url).netloc else url


def wat_of_page(url, content, headers=()):
    """What ia-web-commons would write of a page: the payload of its WAT record, as a mapping.

    Source of the form: ExtractingParseObserver and its neighbours in that library.
    """
    soup = BeautifulSoup(content, "html.parser")
    links, head = [], {}
    for element in soup.find_all(["a", "img", "link", "meta", "base"]):
        given = {key: " ".join(value) if isinstance(value, list) else value
                 for key, value in element.attrs.items()}  # fmt: skip
        if element.name == "a" and "href" in given:
            kept = {key: given[key] for key in ("title", "rel") if key in given}
            links.append({"path": "A@/href", "url": given["href"], **kept,
                          "text": clean(element.get_text())[:128]})  # fmt: skip
        elif element.name == "img" and "src" in given:
            kept = {key: given[key] for key in ("alt", "title") if key in given}
            links.append({"path": "IMG@/src", "url": given["src"], **kept})
        elif element.name == "link" and "href" in given:
            kept = {key: given[key] for key in ("rel", "type") if key in given}
            head.setdefault("Link", []).append({"path": "LINK@/href", "url": given["href"], **kept})
        elif element.name == "meta":
            wanted = ("name", "content", "property", "http-equiv")
            head.setdefault("Metas", []).append({k: given[k] for k in wanted if k in given})
        elif element.name == "base" and "href" in given:
            head["Base"] = given["href"]
    if soup.title:
        head["Title"] = html.unescape(soup.title.get_text())
    response = {
        "Response-Message": {"Status": "200", "Version": "HTTP/1.1", "Reason": "OK"},
        "Headers": dict(headers), "HTML-Metadata": {"Head": head, "Links": links},
    }  # fmt: skip
    return {
        "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": "0"},
        "Envelope": {
            "Format": "WARC",
            "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": url},
            "Payload-Metadata": {"HTTP-Response-Metadata": response},
        },
    }  # fmt: skip
