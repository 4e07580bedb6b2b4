"""Checkers, one file each: read from a picture's pixels whether it shows what was asked for."""
