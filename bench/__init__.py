"""How fast the move is, and how much memory it takes.  See README.md.

Nothing of the project imports this package; it drives the project from outside, by its
command line, on a server of its own.
"""
