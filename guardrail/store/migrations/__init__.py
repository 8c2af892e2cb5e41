"""Every step from an empty database to the present schema, run by `guardrail.store.schema`."""
