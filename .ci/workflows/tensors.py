"""Print every tensor of a commit as the wheel reads it: path and SHA-256, as the second reader prints them."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from gradient import Repo
from gradient.stored import StoredTensor


def walk(path: str, value: Any) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors below a value."""
    if isinstance(value, StoredTensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from walk(f"{path}/{key}", below)
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            yield from walk(f"{path}/{number}", below)


with Repo.open(sys.argv[1]) as repo:
    for path, tensor in walk("", repo.state(sys.argv[2])):
        print(path.removeprefix("/"), hashlib.sha256(tensor.bytes()).hexdigest())
