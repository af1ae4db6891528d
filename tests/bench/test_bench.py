"""The benchmarks run. Their figures need a quiet machine."""

import sys

import pytest

from support.daemon import run


@pytest.mark.parametrize(
    ("module", "options", "lines"),
    [
        ("reception", ("--rows", "small 14 kB, 1 assoc. | storescp"), 3),
        ("reception", ("--rows", "small 14 kB, 4 assoc. | pynetdicom"), 3),
        ("growth", (), 29),
        ("memory", (), 5),
        ("currency", (), 4),
        ("publishing", (), 5),
        ("maintenance", (), 9),
        ("window", (), 5),
        ("retrieve", (), 11),
        pytest.param("scale", (), 21, marks=pytest.mark.long),
        pytest.param("dicomweb", (), 17, marks=pytest.mark.long),
    ],
)
def test_a_benchmark_prints_its_table(module: str, options: tuple[str, ...], lines: int) -> None:
    done = run(sys.executable, "-m", f"tests.bench.{module}", "--quick", *options)
    assert (0, lines) == (done.returncode, len(done.stdout.splitlines())), done.stderr
