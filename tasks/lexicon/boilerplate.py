"""Words of templates, shops, agencies and programs: what alternative texts say besides the picture.

Words are lower-case runs of letters and digits. STRONG ones say nothing about a picture wherever
they stand. WEAK ones are boilerplate beside strong ones ("view larger image") and content beside
content ("logo of the university"). PARTICLES count for neither. Phrases are boilerplate made of
ordinary words; `*` stands for any one word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tasks.lexicon import words

STRONG: Final = words(
    """
    click tap hover swipe zoom enlarge enlarged magnify magnified lightbox thumbnail thumbnails
    thumb slideshow fullscreen clickable preview previews loading buffering placeholder placeholders
    spacer divider dividers separator sprite favicon breadcrumb breadcrumbs navigation navbar
    navigate dropdown toggle submenu sidebar footer homepage website websites webpage sitemap url
    hyperlink hyperlinks login logout signin signup username password captcha javascript html css
    wordpress joomla drupal shopify plugin widget cookies gdpr privacy disclaimer imprint subscribe
    unsubscribe subscription subscriptions newsletter newsletters rss podcast hashtag retweet tweet
    tweets repost permalink trackback pingback uncategorized uncategorised facebook twitter
    instagram pinterest linkedin youtube whatsapp tiktok snapchat reddit tumblr vimeo flickr
    telegram gravatar avatar avatars userpic emoticon advertisement advertisements advertising
    advert adverts advertiser advertise sponsored sponsors sponsor affiliate affiliates promo promos
    promotional promotion promotions adchoices leaderboard clickbait stock royalty copyrighted
    copyright trademark licensed licensing watermark watermarked clipart cliparts vector vectors
    vectorial eps psd svg png jpg jpeg gif webp webm mp4 wallpaper wallpapers mockup mockups
    download downloads downloadable downloading editorial istock istockphoto shutterstock alamy
    dreamstime depositphotos fotolia freepik pixabay unsplash pexels gettyimages getty vectorstock
    vecteezy envato photobucket deviantart redbubble zazzle etsy ebay aliexpress hd uhd 4k hires
    resolution dpi buy checkout wishlist favourites favorites ecommerce sales clearance discount
    discounts discounted bargain bargains coupon coupons voucher vouchers deal deals offer offers
    price prices priced pricing rrp msrp cheap cheapest affordable refund refunds deliveries
    dispatch dispatched postage warranty guarantee guaranteed wholesale retail retailer supplier
    suppliers manufacturer dropshipping sku upc ean qty quantity availability bestseller bestsellers
    bestselling restock preorder paypal mastercard klarna testimonial testimonials reviews ratings
    online giveaway freebie sitewide instock photographed uploaded uploader digitized digitised
    screengrab screencap timestamp exif filename untitled unnamed undefined null nan lorem ipsum
    dummy todo tbd filler img dsc alt courtesy handout photocredit posted comments comment reply
    replies webmaster admin blog blogger blogspot unavailable faq faqs icon icons banner banners
    menu menus ad ads account accounts gallery galleries fullsize fullsizerender consent checkmark
    mailing payment payments enquire donate asdf qwerty retina lazyload webshop readme subscribers
    followers promoted paywall wix squarespace adobe opt cta logo logos pinch tagged reproduced
    autoplay wishlists
    """
)

WEAK: Final = words(
    """
    image images photo photos picture pictures pic pics photograph photographs photography graphic
    graphics illustration illustrations figure fig artwork button buttons symbol header heading
    title titles caption captions description text tag tags name names file files document documents
    page pages pg post posts article articles story stories news item items product products album
    albums collection collections catalogue catalog category categories archive archives section
    list listing content contents media video videos audio clip view views viewing version versions
    size sizes full fullsize large larger largest big bigger original actual small medium high low
    quality width height app tab popup search filter sort options option home main top bottom next
    previous prev first last back forward up down left right less other others related similar
    recommended popular latest recent new older newer featured trending read see show hide pause
    start learn find discover browse visit get follow share shared like likes printed save saved add
    added select choose compare order orders booking rent free premium special exclusive limited
    best hot great amazing perfect today now here soon available only just this that our your my us
    we you it info information detail details about contact help support service services team
    company partner partners brand official store stores seller vendor profile user users member
    members author authors editor by via credit credits source sources rights reserved license terms
    conditions policy use usage used accept agree allow preferences experience email call tel fax
    link links external internal blank empty default sample example test testing temp generic random
    unknown none no not yes ok missing found error failed broken removed deleted pending background
    cover hero intro overview summary index slide slides slider number no. nr id code ref date time
    year digital scan scanned scanner copy final edit edited draft part step rating review rated
    votes vote viewed visitor visitors log register registration feature features event events
    update updates updated upload uploads taken made created published pixel pixels tracking counter
    beacon decorative decoration delivery shipping ships shipped shop shopping sale cart customer
    customers licence feed amazon photographer returns screenshot screenshots site sites fast
    worldwide directions continue fees transparent google lazy load loaded loads awaiting anonymous
    guest required notice manage methods secure clear enter describe insert min mins minute minutes
    hour hours print prints printable headshot lens true false request requested lifestyle trusted
    uk eu online address export exported import imported pointing form forms front side rear
    alternate
    """
)

PARTICLES: Final = words(
    """
    a an the of on in at to for from with and or as is are was were be been has have had do does did
    it its this that these those there here by via per into onto over out off s t re some any please
    before after if when while all more most very so but
    """
)

_PHRASES = """
    all rights reserved | some rights reserved | used by permission | used with permission |
    public domain | creative commons | fair use | file photo | file picture | press photo |
    press release | in stock | out of stock | sold out | on sale | for sale | on offer |
    best seller | best sellers | top rated | new arrival | new arrivals | just arrived |
    back in stock | while supplies last | while stocks last | limited time | money back |
    next day | add to * | added to * | quick view | quick look | quick shop | size guide |
    size chart | gift card | gift cards | made to order | order now | order today | order online
    | book now | call now | call us | call today | contact us | about us | find us | visit us |
    follow us | follow me | like us | join us | meet the team | our team | our services |
    our clients | our partners | our products | our story | get started | get in touch |
    get yours | get the app | get a quote | learn more | read more | read on | see more |
    see all | see also | see details | see below | view all | view more | view details |
    view larger | view full | view product | view gallery | view image | show more | load more |
    find out more | find out how | more info | more information | more details | more from |
    more like this | full size | full screen | full story | full resolution | high resolution |
    low resolution | high quality | high res | actual size | original size | larger view |
    larger version | larger image | alternate view | back to top | go back | skip to * |
    scroll to * | next page | previous page | next image | previous image | next slide |
    previous slide | home page | main page | landing page | front page | page not found |
    not found | not available | no longer available | currently unavailable | coming soon |
    under construction | no image | no photo | no picture | no preview | no thumbnail | no title
    | no caption | no description | no name | no alt | no text | image missing | missing image |
    broken image | default image | default photo | please wait | please enable | your browser |
    sign in | sign up | sign out | log in | log on | log out | my account | create account |
    forgot password | privacy policy | cookie policy | cookie settings | cookie notice |
    cookie consent | cookie banner | cookie preferences | accept cookie | use cookies |
    uses cookies | terms of use | terms of service | terms and conditions | terms conditions |
    legal notice | site map | opening hours | customer service | customer support | social media
    | share this | share on | share via | pin it | pin this | tell a friend | email this |
    print this | save this | leave a comment | leave a reply | write a review | be the first |
    you may also like | you might also like | people also * | customers also * | related posts |
    related articles | related products | recent posts | latest news | latest posts |
    older posts | newer posts | most popular | most read | editors pick | editor's choice |
    posted in | posted on | filed under | tagged with | powered by | designed by | hosted by |
    built with | created with | made with | ad space | your ad | banner ad | ad banner |
    ads by * | advertise here | paid content | partner content | tracking pixel | web beacon |
    hit counter | visitor counter | page counter | link to * | new window | new tab |
    external link | image of product | product image | product photo | product picture |
    product shot | product view | main image | main photo | featured image | featured photo |
    feature image | cover image | cover photo | header image | hero image | background image |
    profile image | profile photo | profile picture | profile pic | user image | user photo |
    author image | author photo | article image | post image | blog image | page image |
    stock image | stock photo | gallery image | gallery photo | slider image | banner image |
    category image | listing image | team member | staff photo | alt text | alternative text |
    alternate text | insert * here | enter * here | text here | your text | your image |
    your caption | your logo here | goes here | caption here | add caption | add description |
    add title | image description | image caption | image title | image text | image name |
    image may contain | may be an image of | this image | this picture is | this photo is |
    new image | new document | new project | pasted image | pasted graphic | sample text |
    sample image | test image | test photo | example image | example text | hello world |
    for personal use | for commercial use | commercial use | personal use | search results |
    search for | watch now | watch video | watch the video | play video | play button |
    video thumbnail | video player | thank you for * | thanks for * | welcome to our * |
    welcome to my * | we use | we value | happy customers | days ago | hours ago | all products
    | shop now | hot deal | special offer | special price | lowest price | lower prices |
    opt out | cookies | image credit | photo credit | photo by | picture by | image by |
    image from | photo from | picture from | photo via | image via | image for * | photo for * |
    picture for * | photo of the day | image of the day | picture of the day | photo of the week
    | image of the week | picture of the week | photo of the month | image of the month |
    ships within | ships in * days | to a friend | royalty free | pre order | hi res | n a |
    arrow icon | menu icon | search icon | close icon | play icon | mail icon | email icon |
    phone icon | print icon | share icon | star rating | scroll down | scroll up | scroll for *
    | cart icon | view cart | your cart | my cart | read this | free trial | close button |
    menu button | search button | back button | next button | submit button | download button |
    keep reading | continue reading | reading time | min read | minute read | minutes read |
    print friendly | horizontal rule | decorative line | decorative border | request a * |
    office hours | business hours | rights managed | clip art | press to * | press here |
    mouse over | hold to * | order yours | learn how | black friday | cyber monday |
    bought together | frequently bought | left in stock | new in | view basket | add this |
    failed to * | could not * | cannot be * | is loading | not loaded | not supported |
    as seen on | as featured in | sneak peek | step by step | image source | photo source |
    image rights | image number | photo number | image size | photo size | file name | file size
    | image preview | photo preview | open menu | close menu | magnifying glass icon |
    breaking news | read time | related to this | only at | hamburger menu | image carousel |
    photo carousel | with permission | flash sale | ends soon | ready to ship | invisible pixel
    | close this * | search form | arrow pointing | sale ends | ends today | hurry up | act now
    | last chance | final hours | trusted by | terms apply | conditions apply | results may vary
    | actual product may * | sizes available | colors available | colours available |
    set of * pcs | drag and drop | choose file | select file | no file chosen | image upload |
    photo upload | go to page | go to slide | go to top | go to home | go to next |
    go to gallery | go to site | go to website | go to the next | return to top | return to home
    | return to gallery | return to list | return to shop | back to home | back to page |
    back to gallery | back to list | back to shop | back to results | back to menu |
    back to main | jump to navigation | jump to content | jump to top | jump to main |
    send to friend | send to a friend | view in gallery | view in browser | view in store |
    view in room | view in full | opens in new | opens in a | opens an external |
    image may be subject | be interested in | shot on location | add your comment |
    add your review | upload your photo | upload your image | roll over to | roll over image |
    tap to expand | tap to unmute | google play badge | app store badge | get it on google play |
    color swatch | colour swatch | scan the qr code | scan this qr code | qr code | open media |
    in modal | shop the look | pin for later | social share image | accusoft corp
"""


Phrase = tuple[str, ...]
_ANY = "*"


class Continued(NamedTuple):
    """Phrases that begin with one word, longest first: by their second word, and for any other."""

    by_second: dict[str, list[Phrase]]
    otherwise: list[Phrase]


def _phrases() -> list[Phrase]:
    return [tuple(phrase.replace("'", "").split()) for phrase in _PHRASES.split("|")]


def _by_first_words() -> dict[str, Continued]:
    found: dict[str, list[Phrase]] = {}
    for phrase in _phrases():
        found.setdefault(phrase[0], []).append(phrase)
    return {first: _by_second(phrases) for first, phrases in found.items()}


def _by_second(phrases: list[Phrase]) -> Continued:
    ordered = sorted(phrases, key=len, reverse=True)
    seconds = {phrase[1] for phrase in ordered if len(phrase) > 1} - {_ANY}
    otherwise = [phrase for phrase in ordered if len(phrase) == 1 or phrase[1] == _ANY]
    fitting = {
        second: [phrase for phrase in ordered if phrase in otherwise or phrase[1] == second]
        for second in seconds
    }
    return Continued(fitting, otherwise)


def _needed(phrase: Phrase) -> str:
    """The longest word of a phrase that may be rare."""
    return max(
        (word for word in phrase if word != _ANY), key=lambda one: (one not in PARTICLES, len(one))
    )


PHRASES: Final = _by_first_words()
# Of each phrase one word: a text with none of them has no phrase.
IN_PHRASES: Final = frozenset(map(_needed, _phrases()))


def phrase_at(text: Sequence[str], start: int) -> int:
    """How many words of a text from `start` on are a phrase; 0 if none is."""
    continued = PHRASES.get(text[start])
    if continued is None:
        return 0
    second = text[start + 1] if start + 1 < len(text) else ""
    for phrase in continued.by_second.get(second, continued.otherwise):
        there = text[start : start + len(phrase)]
        if len(there) == len(phrase) and all(
            wanted in (_ANY, word) for wanted, word in zip(phrase, there, strict=True)
        ):
            return len(phrase)
    return 0
