"""Powers of two: inner products of rows of any length, without an over- or underflow on the way."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def scaled_rows(inputs: Float[Tensor, "*batch n d"]) -> tuple[Float[Tensor, "*batch n d"], Int[Tensor, "*batch n 1"]]:
    """Return the rows divided by powers of two, so that their largest entry lies in [1/2, 1), and the exponents.

    A row 0 stays. Products of rows are those of the inputs, rounding included, up to the power of two.

    >>> scaled_rows(torch.tensor([[3.0, 1.0], [0.0, 0.0]]))
    (tensor([[0.7500, 0.2500],
            [0.0000, 0.0000]]), tensor([[2],
            [0]], dtype=torch.int32))
    """
    exponent = torch.frexp(inputs.abs().amax(-1, keepdim=True))[1]
    return times_power(inputs, -exponent), exponent


def times_power(values: Tensor, exponent: Tensor) -> Tensor:
    """Return values 2^exponent, also where 2^exponent is no floating-point number.

    >>> times_power(torch.tensor([2.0**-1000], dtype=torch.float64), torch.tensor([1990])).item() == 2.0**990
    True
    """
    part = torch.div(exponent, 3, rounding_mode="floor")
    for share in (part, part, exponent - 2 * part):
        values = values * torch.exp2(share.to(values.dtype))
    return values
