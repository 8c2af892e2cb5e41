"""Guarded versions of what agents of other frameworks act through; each module needs its framework."""
