"""What docs/optimizers.md shows runs as it is written, from the first snippet to the last."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/optimizers.md"


def test_snippets_run_one_after_the_other_and_print_what_is_said(capsys):
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    for snippet in snippets:
        exec(compile(snippet, str(PAGE), "exec"), names)
    said = re.search(r"print\(.*\)  # ([\d,]+) bytes", PAGE.read_text())
    assert len(snippets) == 3
    assert capsys.readouterr().out.split()[0] == said[1].replace(",", "")

    optimizer, model = names["optimizer"], names["model"]
    model(names["torch"].randn(32, 256)).sum().backward()
    optimizer.step()
    kinds = [type(optimizer.store.entries[param]["exp_avg"]).__name__ for param in (model[0].weight, model[2].weight)]
    assert kinds == ["Tensor", "Tensor"]  # warming up, and in full
    gradient, halves = names["gradient"], names["Halves"]()
    codecs = gradient.optim.ConfigurablePolicy({"exp_avg": halves})
    wrapped = gradient.wrap(names["torch"].optim.AdamW(model.parameters()), codecs)
    wrapped.step()
    wrapped.step()
    assert wrapped.store.stats()["exp_avg"].num_coded == 4
