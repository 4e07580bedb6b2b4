"""Votes of people on pictures: a page on this machine, a file of votes, and what they say."""
