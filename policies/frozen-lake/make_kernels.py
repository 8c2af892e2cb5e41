"""Prints the `kernels` of policy.yaml from Gymnasium's own table of the lake without slipping."""

import sys

import gymnasium

MOVES = ("left", "down", "right", "up")
TURNS = {"intended": 0, "clockwise": -1, "anticlockwise": 1}  # moves are numbered anticlockwise

table = gymnasium.make("FrozenLake-v1", is_slippery=False).unwrapped.P
for name, turn in TURNS.items():
    sys.stdout.write(f"      {name}:\n")
    for state, moves in sorted(table.items()):
        reached = [moves[(move + turn) % len(MOVES)][0][1] for move in range(len(MOVES))]
        sys.stdout.write(f"        - {reached}".ljust(29) + f"# {state}\n")
