"""One maker for each kind of image: what sets it apart from a plain good one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from PIL import ImageChops

from infra.demo_web import files
from infra.demo_web.drawing import random_scene
from infra.demo_web.items import Item, Maker
from infra.demo_web.kinds import RULES, Expected, Kind, Policy
from infra.demo_web.site import TRAP_PORT, Behaviour, Route
from infra.demo_web.subjects import Subject

# Long enough that a client which closes at the headers has done so: 2 ms on loopback, over 2 s on a
# machine whose cores others have. It costs nobody anything: the wait ends when the client closes.
HOLD_SECONDS = 5.0


def make_items(maker: Maker) -> list[Item]:
    """The items of the maker's kind and number: a group of duplicates, or else one."""
    rule = RULES[maker.kind]
    return [
        replace(item, kind=maker.kind, expected=rule.expected, policy=rule.policy)
        if item.kind is Kind.GOOD
        else item
        for item in _MAKERS[maker.kind](maker)
    ]


def _good(maker: Maker) -> list[Item]:
    subject = maker.subjects.plain(maker.rng, maker.index)
    item = maker.usual(subject)
    rule = RULES[subject.kind]
    return [replace(item, kind=subject.kind, expected=rule.expected)]


def _throttled(maker: Maker) -> list[Item]:
    dated = maker.index % 4 == 3
    behaviour = Behaviour.THROTTLE_DATE if dated else Behaviour.THROTTLE
    busy = maker.dialect.hosts.busy
    return [maker.usual(origin=busy, behaviour=behaviour, amount=1, detail=behaviour.value)]


def _slow(maker: Maker) -> list[Item]:
    seconds = round(maker.rng.uniform(0.5, 2.0), 1)
    busy = maker.dialect.hosts.busy
    return [maker.usual(origin=busy, behaviour=Behaviour.SLOW, amount=seconds)]


def _redirected(maker: Maker) -> list[Item]:
    """One or two redirects, to an absolute address or to one relative to the host."""
    target = maker.usual(origin=maker.rng.choice(_secure(maker)))
    answers = list(target.answers)
    url, host = target.url, answers[0][0].host
    for hop in range(1 + maker.index % 2):
        status = maker.rng.choice((301, 302, 303, 307, 308))
        same = maker.rng.random() < 0.5
        location = url.partition(host)[2] if same else url
        path = f"/go/{maker.number}-{hop}"
        answers.append((Route(host, path, status, (("Location", location),)), b""))
        url = f"{url.partition('://')[0]}://{host}{path}"
    return [replace(target, url=url, answers=tuple(answers))]


def _odd_format(maker: Maker) -> list[Item]:
    way = files.ODD_WAYS[maker.index % len(files.ODD_WAYS)]
    subject = maker.some()
    return [maker.item(subject, files.odd(subject.picture, way), detail=way)]


def _exact_duplicates(maker: Maker) -> list[Item]:
    subject = maker.some()
    file = files.usual(subject.picture, maker.rng)
    return _group(maker, subject, [file] * _group_size(maker))


def _near_duplicates(maker: Maker) -> list[Item]:
    subject = maker.some()
    ways = range(maker.index, maker.index + _group_size(maker) - 1)
    copies = [files.again(subject.picture, maker.rng, way) for way in ways]
    return _group(maker, subject, [files.usual(subject.picture, maker.rng), *copies])


def _group_size(maker: Maker) -> int:
    return maker.rng.choices((2, 3, 4), (75, 20, 5))[0]


def _group(maker: Maker, subject: Subject, found: list[files.File]) -> list[Item]:
    name, items = f"{maker.kind}-{maker.index}", []
    for copy, file in enumerate(found):
        caption = subject.caption
        if copy and maker.rng.random() < 0.6:
            caption = maker.subjects.reworded(maker.rng, subject)
        # Every copy has a folder of its own: their addresses differ whatever their names are.
        prefix = f"/c{maker.number}-{copy}/"
        items.append(maker.item(replace(subject, caption=caption), file, group=name, prefix=prefix))
    return items


def _boilerplate(maker: Maker) -> list[Item]:
    text = maker.dialect.fill(maker.rng, maker.dialect.boilerplate)
    return [replace(maker.usual(), caption=text)]


def _foreign(maker: Maker) -> list[Item]:
    subject = maker.some()
    scene = subject.scene or random_scene(maker.rng)
    language, text = maker.dialect.foreign(maker.rng, scene)
    return [replace(maker.usual(subject), caption=text, language=language, detail=language)]


def _no_caption(maker: Maker) -> list[Item]:
    return [replace(maker.usual(), caption="", place="")]


def _short(maker: Maker) -> list[Item]:
    return [replace(maker.usual(), caption=maker.dialect.fill(maker.rng, maker.dialect.short))]


def _banner(maker: Maker) -> list[Item]:
    size = maker.rng.choice(maker.dialect.banners)
    text = maker.dialect.fill(maker.rng, maker.dialect.advertisement)
    subject = replace(maker.some(), caption=text, scene=None)
    tracker = maker.dialect.hosts.tracker
    file = files.banner(size, maker.rng)
    return [maker.item(subject, file, origin=tracker, detail=f"{size[0]}x{size[1]}")]


def _pixel(maker: Maker) -> list[Item]:
    subject = replace(maker.some(), scene=None)
    tracker = maker.dialect.hosts.tracker
    return [maker.item(subject, files.pixel(), origin=tracker, prefix="/t/")]


def _strip(maker: Maker) -> list[Item]:
    subject = maker.some()
    return [maker.item(subject, files.strip(subject.picture, maker.rng))]


def _too_small(maker: Maker) -> list[Item]:
    subject = maker.some()
    side = maker.rng.randint(8, 20)
    return [maker.item(subject, files.usual(subject.picture.resize((side, side)), maker.rng))]


def _blank(maker: Maker) -> list[Item]:
    subject = maker.some()
    return [maker.item(subject, files.blank(subject.picture.width, maker.rng))]


def _truncated(maker: Maker) -> list[Item]:
    """A file that was cut before it came to the server, or a connection that breaks off."""
    subject = maker.some()
    file = files.usual(subject.picture, maker.rng)
    if maker.index % 2:
        return [maker.item(subject, file, behaviour=Behaviour.CUT, detail="connection")]
    return [maker.item(subject, files.cut(file, maker.rng), detail="file")]


def _no_image(maker: Maker) -> list[Item]:
    file = files.no_image(maker.rng)
    return [maker.item(maker.some(), file, detail=file.media_type)]


def _bomb(maker: Maker) -> list[Item]:
    return [maker.item(maker.some(), files.bomb(maker.rng))]


def _animated(maker: Maker) -> list[Item]:
    subject = maker.some()
    extension = ("gif", "webp")[maker.index % 2]
    file = files.animated(subject.picture, ImageChops.invert(subject.picture), extension)
    return [maker.item(subject, file, detail=extension)]


def _missing(maker: Maker) -> list[Item]:
    status = maker.rng.choice((404, 404, 404, 410))
    return [_refusal(maker, status)]


def _server_error(maker: Maker) -> list[Item]:
    return [_refusal(maker, maker.rng.choice((500, 502, 503)))]


def _refusal(maker: Maker, status: int) -> Item:
    page = files.File(f"<h1>{status}</h1>".encode(), "jpg", "text/html")
    return maker.item(maker.some(), page, status=status, detail=str(status))


def _stalled(maker: Maker) -> list[Item]:
    return [maker.usual(behaviour=Behaviour.STALL)]


def _endless(maker: Maker) -> list[Item]:
    return [maker.usual(behaviour=Behaviour.ENDLESS)]


# Where a redirect must not lead. The trap is a port of this machine on which the server listens
# for nothing but to log who comes.
_REFUSED_TARGETS = (
    f"http://127.0.0.1:{TRAP_PORT}/admin",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.7/picture.png",
    f"http://localhost:{TRAP_PORT}/picture.png",
    "http://192.168.1.1/status.jpg",
    f"http://[::1]:{TRAP_PORT}/",
    f"http://2130706433:{TRAP_PORT}/picture.png",
    "https://172.16.4.4/",
    "file:///etc/hostname",
    f"http://[::ffff:127.0.0.1]:{TRAP_PORT}/",
    f"http://0.0.0.0:{TRAP_PORT}/",
)


def _refused_redirect(maker: Maker) -> list[Item]:
    target = _REFUSED_TARGETS[maker.index % len(_REFUSED_TARGETS)]
    hosts = maker.dialect.hosts
    # From https such a redirect would be refused for leading to http, whatever the address is.
    origins = [one for one in (*hosts.pages, *hosts.images) if one.startswith("http:")]
    nothing = files.File(b"", "png", "text/html")
    return [
        maker.item(
            maker.some(),
            nothing,
            origin=maker.rng.choice(origins),
            status=302,
            headers=(("Location", target),),
            detail=target,
        )
    ]


def _redirect_loop(maker: Maker) -> list[Item]:
    origin = maker.rng.choice(_secure(maker))
    host = origin.partition("://")[2]
    paths = [f"/round/{maker.number}/{step}" for step in range(1 + maker.index % 3)]
    answers = [
        (Route(host, path, 302, (("Location", origin + after),)), b"")
        for path, after in zip(paths, paths[1:] + paths[:1], strict=True)
    ]
    return [replace(maker.usual(), url=origin + paths[0], answers=tuple(answers))]


_REFUSED_ADDRESSES = (
    "http://127.0.0.1:8080/{}.png",
    "http://169.254.169.254/latest/{}.png",
    "http://10.1.2.3/pictures/{}.jpg",
    "http://192.168.0.10/{}.jpg",
    "http://[::1]/{}.jpg",
    "http://localhost/{}.png",
)


def _refused_address(maker: Maker) -> list[Item]:
    template = _REFUSED_ADDRESSES[maker.index % len(_REFUSED_ADDRESSES)]
    return [replace(maker.usual(), url=template.format(maker.number), answers=(), detail=template)]


_REFUSED_SCHEMES = (
    "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==#{}",
    "ftp://ftp.pictures.test/pub/{}.jpg",
    "file:///home/me/pictures/{}.png",
    "javascript:show({})",
    "blob:https://app.test/{}",
)


def _refused_scheme(maker: Maker) -> list[Item]:
    template = _REFUSED_SCHEMES[maker.index % len(_REFUSED_SCHEMES)]
    scheme = template.partition(":")[0]
    return [replace(maker.usual(), url=template.format(maker.number), answers=(), detail=scheme)]


def _robots_txt(maker: Maker) -> list[Item]:
    """A closed host, a closed folder, or a redirect from an open one into a closed one."""
    hosts, way = maker.dialect.hosts, maker.index % 4
    if way == 0:
        scheme = maker.rng.choice(("http", "https"))
        return [
            maker.usual(
                origin=f"{scheme}://{hosts.closed}", detail="host", policy=Policy.NEVER_REQUESTED
            )
        ]
    origin, prefix = maker.rng.choice(hosts.forbidding)
    item = maker.usual(origin=origin, prefix=prefix, detail="folder", policy=Policy.NEVER_REQUESTED)
    if way != 3:
        return [item]
    path = f"/moved/{maker.number}"
    location = (("Location", item.url),)
    hop = (Route(origin.partition("://")[2], path, 301, location), b"")
    # The first hop is permitted; the route that it leads to carries the policy.
    return [
        replace(
            item,
            url=origin + path,
            detail="redirect",
            kind=Kind.ROBOTS_TXT,
            expected=Expected.DROPPED,
            answers=(hop, *item.answers),
        )
    ]


def _robots_unavailable(maker: Maker) -> list[Item]:
    origin = f"http://{maker.dialect.hosts.broken}"
    return [maker.usual(origin=origin, policy=Policy.NEVER_REQUESTED)]


_NOAI = ("noai", "noai, noimageai", "noimageai", "NoAI", "all, noai")


def _noai_header(maker: Maker) -> list[Item]:
    return [_held(maker, ("X-Robots-Tag", maker.rng.choice(_NOAI)))]


def _tdm_header(maker: Maker) -> list[Item]:
    return [_held(maker, (maker.rng.choice(("tdm-reservation", "TDM-Reservation")), "1"))]


def _held(maker: Maker, header: tuple[str, str]) -> Item:
    item = maker.usual(
        behaviour=Behaviour.HOLD,
        amount=HOLD_SECONDS,
        policy=Policy.NEVER_READ,
        detail=f"{header[0]}: {header[1]}",
    )
    route, body = item.answers[0]
    return replace(item, answers=((replace(route, headers=(*route.headers, header)), body),))


_PAGE_OPT_OUTS = ("noai_header", "noai_meta", "tdm_header", "tdm_meta")


def _page_opt_out(maker: Maker) -> list[Item]:
    # Fives share a page, so the way changes with every fifth.
    way = _PAGE_OPT_OUTS[maker.index // 5 % len(_PAGE_OPT_OUTS)]
    item = maker.usual(policy=Policy.NEVER_REQUESTED, detail=way)
    return [replace(item, opt_out=way)]


def _secure(maker: Maker) -> tuple[str, ...]:
    """The image origins on https, or all where there is none: a redirect stays on its scheme."""
    images = maker.dialect.hosts.images
    return tuple(origin for origin in images if origin.startswith("https:")) or images


_MAKERS: dict[Kind, Callable[[Maker], list[Item]]] = {
    Kind.GOOD: _good,
    Kind.THROTTLED: _throttled,
    Kind.SLOW: _slow,
    Kind.REDIRECTED: _redirected,
    Kind.ODD_FORMAT: _odd_format,
    Kind.EXACT_DUPLICATE: _exact_duplicates,
    Kind.NEAR_DUPLICATE: _near_duplicates,
    Kind.BOILERPLATE: _boilerplate,
    Kind.FOREIGN_LANGUAGE: _foreign,
    Kind.NO_CAPTION: _no_caption,
    Kind.SHORT_CAPTION: _short,
    Kind.BANNER: _banner,
    Kind.TRACKING_PIXEL: _pixel,
    Kind.WRONG_ASPECT: _strip,
    Kind.TOO_SMALL: _too_small,
    Kind.BLANK: _blank,
    Kind.TRUNCATED: _truncated,
    Kind.NOT_AN_IMAGE: _no_image,
    Kind.BOMB: _bomb,
    Kind.ANIMATED: _animated,
    Kind.MISSING: _missing,
    Kind.SERVER_ERROR: _server_error,
    Kind.STALLED: _stalled,
    Kind.ENDLESS: _endless,
    Kind.REFUSED_REDIRECT: _refused_redirect,
    Kind.REDIRECT_LOOP: _redirect_loop,
    Kind.REFUSED_ADDRESS: _refused_address,
    Kind.REFUSED_SCHEME: _refused_scheme,
    Kind.ROBOTS_TXT: _robots_txt,
    Kind.ROBOTS_UNAVAILABLE: _robots_unavailable,
    Kind.NOAI_HEADER: _noai_header,
    Kind.TDM_HEADER: _tdm_header,
    Kind.PAGE_OPT_OUT: _page_opt_out,
}
