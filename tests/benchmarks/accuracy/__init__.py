"""Accuracy at equal minutes, of segkit and of others: `python -m tests.benchmarks.accuracy`.

Every contestant is trained on the same patients with the same threads for the same minutes, and its last weights are
evaluated on whole images at native resolution by segkit's metrics, on the same masks. `--list` names the contestants,
docs/accuracy.md describes the comparison.
"""
