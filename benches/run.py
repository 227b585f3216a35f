"""All benches: `make bench`. Figures depend on the machine; compare only figures of one run."""

from __future__ import annotations

import coding
import deltas
import history
import memory
import optimizer_memory
import optimizer_step
import snapshot
import unchanged
from harness import describe


def main() -> None:
    describe()
    snapshot.main()
    unchanged.main()
    history.main()
    coding.main()
    deltas.main()
    memory.main()
    optimizer_memory.main()
    optimizer_step.main()


if __name__ == "__main__":
    main()
