"""Benchmarks, run by hand from the repository's root on a quiet machine: python -m tests.bench.reception."""

import sys
from pathlib import Path

# What pytest does by its setting `pythonpath`.
sys.path.insert(0, str(Path(__file__).parents[1]))
