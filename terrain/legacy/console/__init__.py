"""One page for the move: how far it is, what was checked, what waits for a person."""
