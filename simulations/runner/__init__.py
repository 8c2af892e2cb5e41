"""How a suite of simulations is run: split into chunks, on this machine or on Ray, resumable."""
