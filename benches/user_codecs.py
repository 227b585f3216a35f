"""Codecs as a user of `gradient.optim` would write them: codes of others, and codes that are meant to fail."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gradient.optim import Codec

Packed = dict[str, Any]
TINY = torch.finfo(torch.float32).tiny


class BlockCodec(Codec):
    """One scale, the largest magnitude, for each run of `block_size` elements of the flattened tensor."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def encode(self, tensor: Tensor) -> Packed:
        flat = tensor.detach().float().flatten()
        blocks = functional.pad(flat, (0, -len(flat) % self.block_size)).view(-1, self.block_size)
        scales = blocks.abs().amax(1, keepdim=True)
        return {"codes": self.round(blocks / scales.clamp(min=TINY)), "scales": scales, "shape": list(tensor.shape)}

    def decode(self, packed: Packed, device: torch.device | str | None = None) -> Tensor:
        values = self.expand(packed["codes"].float()).mul_(packed["scales"])
        shape = packed["shape"]
        return values.flatten()[: math.prod(shape)].view(shape).to(device)

    def bytes(self, packed: Packed) -> int:
        return int(packed["codes"].nbytes + packed["scales"].nbytes)

    def round(self, shares: Tensor) -> Tensor:
        """Give the codes of shares of the scale, from -1 to 1."""
        raise NotImplementedError

    def expand(self, codes: Tensor) -> Tensor:
        """Give the shares that codes stand for."""
        raise NotImplementedError


class LinearUnsigned(BlockCodec):
    """Second moments in 255 even steps. Small ones of a block become zero: the control that must fail."""

    def __init__(self) -> None:
        super().__init__(64)

    def round(self, shares: Tensor) -> Tensor:
        return shares.mul(255).round_().to(torch.uint8)

    def expand(self, codes: Tensor) -> Tensor:
        return codes.div_(255)


class LinearSigned(BlockCodec):
    """First moments in 127 even steps each way."""

    def __init__(self) -> None:
        super().__init__(64)

    def round(self, shares: Tensor) -> Tensor:
        return shares.mul(127).round_().to(torch.int8)

    def expand(self, codes: Tensor) -> Tensor:
        return codes.div_(127)


class LinearTensor(LinearSigned):
    """The same with one scale for the whole tensor."""

    def encode(self, tensor: Tensor) -> Packed:
        scale = tensor.detach().float().abs().amax()
        codes = self.round(tensor.detach().float() / scale.clamp(min=TINY))
        return {"codes": codes, "scales": scale, "shape": list(tensor.shape)}


class Softsign(BlockCodec):
    """First moments as FlashOptim keeps them (arXiv:2602.23349): 2x / (1 + |x|) in 127 steps each way, blocks of 32."""

    def __init__(self) -> None:
        super().__init__(32)

    def round(self, shares: Tensor) -> Tensor:
        return (254 * shares / (1 + shares.abs())).round_().to(torch.int8)

    def expand(self, codes: Tensor) -> Tensor:
        codes = codes.div_(127)
        return codes / (2 - codes.abs())


class SquareRoot(BlockCodec):
    """Second moments as FlashOptim keeps them: square roots in 255 steps, to the nearest, blocks of 32."""

    def __init__(self) -> None:
        super().__init__(32)

    def round(self, shares: Tensor) -> Tensor:
        return shares.sqrt().mul_(255).round_().to(torch.uint8)

    def expand(self, codes: Tensor) -> Tensor:
        return codes.div_(255).square_()
