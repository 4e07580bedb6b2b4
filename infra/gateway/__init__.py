"""The fetch gateway: the one door through which Tapir asks other people's servers for images.

img2dataset is given `http://127.0.0.1:PORT/KEY`; the gateway looks the key up in a table of URLs
and makes the real request itself: http(s) only, to global addresses only (the address that was
checked is the one connected to), as robots.txt and the answer's headers permit, at a rate that a
host can bear, with bounds on bytes and time. What came of each request is on disk before the answer
is given, and a URL whose outcome is final is never asked for again.

    addresses, resolver, connect    which addresses may be reached, and how they are pinned
    robots, optout, hosts           what a site permits, and how much it is asked
    fetch, body                     one URL, from request to bytes or a reason
    table, journal, spool           URLs by key, attempts, bodies
    server, client                  the door on loopback, and the program that starts it
"""
