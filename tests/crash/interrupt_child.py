"""A training loop that people interrupt with Ctrl-C in a notebook and go on with, once at each of many moments."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

import torch
from fork_server import reporter

from gradient import GradientEngine


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--interrupts", type=int, required=True)
    options = parser.parse_args()
    report = reporter(options.reports)
    torch.set_num_threads(1)
    # Whoever started the tests in the background had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = torch.nn.Linear(1024, 768)
    with GradientEngine.attach(model, workspace="w", repo="r") as engine:
        step = engine.commit(1).step
        seconds = 0.05
        while options.interrupts:
            step += 1
            with torch.no_grad():
                model.weight.add_(1.0)
            began = time.monotonic()
            timer = threading.Timer(random.uniform(0, 1.2 * seconds), os.kill, [os.getpid(), signal.SIGINT])
            try:
                timer.start()
                engine.commit(step)
                seconds = 0.8 * seconds + 0.2 * (time.monotonic() - began)
                # It comes yet: whatever runs when it does is not what is tested.
                while True:
                    time.sleep(0.01)
            except KeyboardInterrupt:
                options.interrupts -= 1
                timer.join()
            # What a script does that was interrupted: it commits what it has, and goes on.
            step += 1
            handle = engine.commit(step)
            report(handle=str(handle), id=handle.id)


if __name__ == "__main__":
    main()
