"""Build the wheel, install it into an empty environment, and run it there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def call(*command: object, cwd: Path) -> str:
    """Run, show on failure, return the output."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout


def main() -> None:
    """Core only: no training, no figures; they must be named with the command that installs them."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        call(sys.executable, "-m", "build", "--wheel", "--outdir", place, ROOT, cwd=ROOT)
        (wheel,) = place.glob("*.whl")
        venv.create(place / "empty", with_pip=True)
        python = place / "empty" / "bin" / "python"
        call(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=place)
        command = place / "empty" / "bin" / "nigradat"
        print(call(command, "--version", cwd=place).strip())
        print(call(command, "show", "sym-vgg-plus", cwd=place).splitlines()[-1])
        call(command, "simulate", "cohort", "--patients", "24", "--preset", "easy", cwd=place)
        refused = subprocess.run(
            [command, "train", "cohort", "run"], cwd=place, capture_output=True, text=True, check=False
        )
        assert refused.returncode == 2, refused
        assert "nigradat[train]" in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr, refused.stderr
        print(refused.stderr.strip())
        installed = call(python, "-m", "pip", "list", "--format=freeze", cwd=place)
        assert "torchvision" not in installed, "torchvision breaks a CPU torch; nothing may pull it in"


if __name__ == "__main__":
    main()
