import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris, the fuzzer, has wheels for Linux only")

FUZZER = Path(__file__).with_name("fuzz_frames.py")
# A child's peak of memory begins at that of the process that started it, and libFuzzer looks at the
# peak: a shell of a few MB is put between this process and the fuzzer.
SHELL = ("sh", "-c", '"$@"; exit $?', "sh")


def fuzz(directory: Path, *flags: str) -> int:
    """Run the fuzzer in ``directory``; return how many inputs it tried."""
    done = subprocess.run(
        [*SHELL, sys.executable, str(FUZZER), *flags],
        cwd=directory,
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith(("#", '"'))]
    found = {path.name: path.read_bytes().hex() for path in directory.iterdir()}
    assert (done.returncode, found) == (0, {}), "\n".join(said)
    tried = re.search(r"Done (\d+) runs", done.stderr)
    assert tried, "\n".join(said)
    return int(tried[1])


def test_hostile_streams(tmp_path: Path) -> None:
    assert fuzz(tmp_path, "-runs=20000", "-seed=1") >= 20_000


@pytest.mark.soak
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_hostile_streams_for_long(tmp_path: Path, seed: int) -> None:
    assert fuzz(tmp_path, "-runs=2000000", f"-seed={seed}") >= 2_000_000
