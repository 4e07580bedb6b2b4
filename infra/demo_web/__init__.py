"""The demo web: a generated, dirty web site with a known truth, and the server that shows it.

drawing, emoji, subjects            the pictures
dialect, languages, *_words         captions, boilerplate, other languages, in two dialects
kinds, truth                        what is there, what should become of it, how a pipeline did
files                               images as bytes, sound and broken
items, varieties, robots            each image, and how the server answers for it
pages, warc, prompts, make          pages around them, WARC files, the whole site on disk
site, server, certificates          a site as the server has it; http and https on loopback
process, access_log                 the server as a process, and its own log
"""
