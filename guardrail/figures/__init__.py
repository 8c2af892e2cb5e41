"""Pictures for people: from results to a PNG file. Readable without colour. Needs the `sim` extra (matplotlib)."""
