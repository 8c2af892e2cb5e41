"""Prints the `kernels` of policy.yaml from Gymnasium's own table of the cliff without slipping."""

import sys

import gymnasium

MOVES = ("up", "right", "down", "left")
TURNS = {"intended": 0, "clockwise": 1, "anticlockwise": -1}  # moves are numbered clockwise
FALL, FALL_REWARD = 48, -100

table = gymnasium.make("CliffWalking-v1", is_slippery=False).unwrapped.P
for name, turn in TURNS.items():
    sys.stdout.write(f"      {name}:\n")
    for state, moves in sorted(table.items()):
        steps = [moves[(move + turn) % len(MOVES)][0] for move in range(len(MOVES))]
        # Gymnasium puts who falls back to the start at once; here the fall is a state of its own.
        reached = [FALL if reward == FALL_REWARD else int(after) for _, after, reward, _ in steps]
        sys.stdout.write(f"        - {reached}".ljust(29) + f"# {state}\n")
    sys.stdout.write(f"        - {[FALL] * len(MOVES)}".ljust(29) + f"# {FALL}\n")
