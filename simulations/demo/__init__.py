"""Two agents, checked by a real service: the Challenger launch and the exploding bandit."""
