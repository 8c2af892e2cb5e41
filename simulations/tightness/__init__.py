"""How far the bounds lie above the true harm, and whether they ever lie below it."""
