"""The gRPC service: `app` wires, `servicer` translates, `service` holds the logic."""
