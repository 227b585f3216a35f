"""A state that did not change, copied and hashed, against BLAKE3 alone on the same threads; the fsyncs stand apart.

Runs the example `hot_path` of the object database, which has no Python in it.
"""

from __future__ import annotations

import subprocess

from harness import ROOT, RUNS, folder


def main() -> None:
    with folder() as path:
        command = ["cargo", "run", "--quiet", "--release", "-p", "gradient-odb", "--example", "hot_path", "--"]
        print(f"\ncopy, hash and look up 204 MB, without Python ({RUNS} rounds)", flush=True)
        subprocess.run([*command, str(path / "repo"), "204", str(RUNS)], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
