"""Students' networks as compiled programs, by `torch.compile`.

Every size of batch is compiled by itself, so that what a step computes does not depend on the batches before
it: a curve is the same whether its training was interrupted or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fgdd_fast.errors import SettingsError

# Sizes of batches, times architectures, that one process compiles; beyond it PyTorch would quietly go on
# without, and other arithmetic would change the curve.
LARGEST_NUMBER = 256


def compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """A network's forward pass, and its gradients, as a compiled program of the same parameters.

    It is compiled when it first runs (`compiler_errors`); networks of one architecture share programs.
    """
    import torch._dynamo as dynamo  # noqa: PLC0415 - takes a second, for those alone who compile

    settings: Any = dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, LARGEST_NUMBER)
    settings.fail_on_recompile_limit_hit = True
    forward: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False)
    return forward


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Explain what is wrong where a network cannot be compiled.

    Raises:
        SettingsError: it cannot.
    """
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415 - see `compiled`
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # noqa: PLC0415 - see `compiled`

    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise SettingsError(
            f"PyTorch could not compile a student: {reason}",
            "On a processor it needs a C++ compiler, such as g++. If there is one, delete "
            f"{cache_dir()}, which an interrupted run may have left half written. Or leave out --compile.",
        ) from error
