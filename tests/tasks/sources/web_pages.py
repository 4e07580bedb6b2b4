"""Pages as the web has them, drawn from a seed: blogs, shops, news, encyclopedias, galleries."""

from __future__ import annotations

import random

WORDS = (
    "red small harbour evening fishing boat café Zürich naïve stone bridge over river summer train"
    " old library window light blue mountain lake snow market flowers 東京 タワー круг street"
).split()


def page(seed: int) -> tuple[str, str]:
    """(URL, HTML) of a page."""
    rng = random.Random(seed)
    kind = (blog, shop, news, encyclopedia, gallery)[seed % 5]
    url = f"https://site{seed % 7}.test/{kind.__name__}/{seed}/"
    return url, f"<!doctype html>\n<html lang=en><head><meta charset=utf-8>{kind(rng)}</html>"


def text(rng, low=2, high=9):
    """Words, some with characters that HTML escapes."""
    said = " ".join(rng.choices(WORDS, k=rng.randrange(low, high)))
    return said + rng.choice(
        ("", "", " &amp; more", " &eacute;t&eacute;", " &#8211; &quot;so&quot;")
    )


def _body(rng, kilobytes=6):
    return "".join(f"<p>{text(rng, 20, 60)} <a href='/t/{n}'>{text(rng)}</a></p>"
                   for n in range(kilobytes * 3))  # fmt: skip


def blog(rng):
    """Lazy loading with a noscript twin, and responsive pictures."""
    posts = "".join(
        f'<article><h2>{text(rng)}</h2><img class="lazy" src="data:image/gif;base64,R0lGOD" '
        f'data-lazy-src="/wp/{n}-300x200.jpg" data-lazy-srcset="/wp/{n}-300x200.jpg 300w, '
        f'/wp/{n}.jpg 1200w" alt="{text(rng)}" width=300>'
        f'<noscript><img src="/wp/{n}-300x200.jpg" srcset="/wp/{n}-300x200.jpg 300w, /wp/{n}.jpg'
        f' 1200w" alt="{text(rng)}"></noscript></article>'
        for n in range(rng.randrange(1, 5))
    )
    licensed = rng.choice(("", '<a rel="license nofollow" href="/terms">terms</a>'))
    return (f'<meta property="og:title" content="{text(rng)}">'
            f'<meta property="og:image" content="/wp/cover.jpg"></head>'
            f"<body>{posts}{_body(rng)}{licensed}</body>")  # fmt: skip


def shop(rng):
    """Densities, templates, titles only."""
    goods = "".join(
        f"<div class=card><a href=/g/{n}><img src=//cdn.test/g/{n}.png "
        f'srcset="//cdn.test/g/{n}.png 1x, //cdn.test/g/{n}@2x.png 2x" title="{text(rng)}"></a>'
        f'<img data-src="{{{{ item.url }}}}" src="../x/{n}.png" alt="{text(rng)}"></div>'
        for n in range(rng.randrange(1, 8))
    )
    return f"</head><body>{goods}{_body(rng)}</body>"


def news(rng):
    """Pictures with sources, figures, Open Graph with alternative text."""
    figures = "".join(
        f"<figure><picture><source type=image/webp srcset='p{n}-64.webp 64w, p{n}-128.webp 128w'>"
        f"<source media='(min-width: 1px)' srcset='p{n}-64.jpg 64w'><img src=p{n}.jpg></picture>"
        f"<figcaption>{text(rng)} <em>{text(rng)}</em><br>Photo: {text(rng)}</figcaption></figure>"
        for n in range(rng.randrange(1, 5))
    )
    return (f'<base href="/media/"><meta property="og:description" content="{text(rng)}">'
            f'<meta property="og:image" content="https://cdn.test/og.jpg">'
            f'<meta property="og:image:alt" content="{text(rng)}">'
            f'<meta property="og:image" content="second.jpg"></head>'
            f"<body>{figures}{_body(rng)}</body>")  # fmt: skip


def encyclopedia(rng):
    """Plain images, each figure under its own license."""
    figures = "".join(
        f"<figure><a href=/f/{n}><img src='//up.test/{n}/220px-K%C3%A4fer.jpg' alt='{text(rng)}' "
        f"srcset='//up.test/{n}/330px.jpg 1.5x, //up.test/{n}/440px.jpg 2x'></a><figcaption>"
        f"{text(rng)} <a href='https://creativecommons.org/licenses/by/4.0/'>CC</a></figcaption>"
        f"</figure>" for n in range(rng.randrange(1, 4))
    )  # fmt: skip
    return (f"<link rel=license href='https://creativecommons.org/licenses/by-sa/4.0/'></head><body>"
            f"{figures}<img src=/static/logo.svg alt=''><img src=/i.png alt='{text(rng)}'>"
            f"{_body(rng, 12)}</body>")  # fmt: skip


def gallery(rng):
    """Many images, few words."""
    images = "".join(f'<a href="big/{n}.jpg"><img src="thumb/{n}.jpg" alt="{text(rng)}"></a>\n'
                     for n in range(rng.randrange(5, 40)))  # fmt: skip
    return f"<title>{text(rng)}</title></head><body>{images}</body>"
