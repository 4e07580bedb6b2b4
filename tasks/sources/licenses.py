"""The license that a page declares: links with `rel=license`, and links to Creative Commons.

What the page says is kept, not judged: such a link may mean the text, the pictures or both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.sources.urls import UnusableAddress, absolute_url

MOST = 4  # licenses of one page or figure; some pages list every license that there is
_COMMONS = re.compile(
    r"https?://(?:[a-z]+\.)?creativecommons\.org/(?:licen[sc]es|publicdomain)/\S", re.IGNORECASE
)


def license_of(links: Iterable[tuple[str, str]], base: str) -> str | None:
    """URLs of licenses among (rel, href) of links, each once, `; ` between them.

    Args:
        base: absolute URL that the links are relative to.
    """
    found: dict[str, None] = {}
    for rel, href in links:
        if len(found) == MOST:
            break
        declared = "license" in rel.lower().split()
        if not declared and "creativecommons" not in href.lower():
            continue
        try:
            url = absolute_url(href, base)
        except UnusableAddress:
            continue
        if declared or _COMMONS.match(url):
            found[url] = None
    return "; ".join(found) or None
