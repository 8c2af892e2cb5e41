"""Who may do what: credentials, roles, limits, and what the service needs to start safely."""
