"""Lines of files and of standard input."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from connectors.lines import Line, LinesSource
from connectors.testing import check_source


def read(path: Path, **rest: int) -> list[Line]:
    out: list[Line] = []
    flow = Dataflow("lines")
    op.output("out", op.input("in", flow, LinesSource(path, **rest)), TestingSink(out))  # type: ignore[arg-type]
    run_main(flow, epoch_interval=timedelta(0))
    return out


def test_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\r\n\ntwo\xff\nlast")
    assert read(path) == [Line(1, b"one"), Line(2, b""), Line(3, b"two\xff"), Line(4, b"last")]
    path.write_bytes(b"")
    assert read(path) == []


def test_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(2500)))
    check_source(lambda: LinesSource(path))


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"12345\n123456\n")
    assert read(path, longest=6) == [Line(1, b"12345"), Line(2, b"123456")]
    with pytest.raises(Exception) as error:
        read(path, longest=5)
    causes = [error.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)  # type: ignore[arg-type]
    assert str(causes[-1]) == f"{path}, line 2: more than 5 bytes"


STDIN = """
from datetime import timedelta
import bytewax.operators as op
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from connectors.lines import LinesSource
flow = Dataflow("lines")
lines = op.input("in", flow, LinesSource(None, longest=10))
text = op.map("text", lines, lambda line: f"{line.number} {line.data.decode()}")
op.output("out", text, StdOutSink())
run_main(flow)
"""


def test_standard_input_comes_line_by_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STDIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number, word in enumerate([b"one", b"two"], 1):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"%d %s\n" % (number, word)
        process.stdin.write(b"half")
        process.stdin.close()
        assert process.stdout.read() == b"3 half\n"


def test_endless_standard_input() -> None:
    done = subprocess.run([sys.executable, "-c", STDIN], input=bytes(1000), capture_output=True)
    assert done.returncode != 0
    assert b"standard input, line 1: more than 10 bytes" in done.stderr


def test_a_longest_line_whose_end_comes_in_two_parts() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STDIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n1234567890\r")
        process.stdin.flush()
        assert process.stdout.readline() == b"1 one\n"
        process.stdin.write(b"\nlast\n")
        process.stdin.close()
        assert process.stdout.read() == b"2 1234567890\n3 last\n"
