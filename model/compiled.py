"""Parts of a method that torch.compile fuses, where it is asked for: COMPILE.

They are those that a method names (`Method.compiled`): of RAM the image tower and the ladder, whose shapes are the same
in every batch. The first call takes seconds to a minute, another size of batches as much again; results differ from
the eager ones by rounding, so the default leaves everything as it is. `graphs` replays CUDA graphs on a GPU, which
takes the launching of kernels off the CPU; elsewhere it is `on`. Not measured on a GPU; docs/performance.md says what
it gives on a CPU.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch

from model.method import Method, ModelError

__all__ = ["compile_parts"]

BACKEND = "inductor"
MODES = {"on": None, "graphs": "reduce-overhead"}


def compile_parts(method: Method, how: str) -> None:
    """Puts compiled functions in the place of the parts of a method; its weights and their names stay.

    Args:
        method: whose `compiled` names functions of its submodules; the first begins a batch.
        how: off, on or graphs.

    Raises:
        ModelError: if there is nothing to compile; and when a part is called first, if the machine cannot compile.
    """
    if how == "off":
        return
    if not method.compiled:
        raise ModelError(f"COMPILE {how}: of {method.title} nothing can be compiled; set COMPILE off")
    for number, path in enumerate(method.compiled):
        owner, _, name = path.rpartition(".")
        part = attrgetter(owner)(method)
        setattr(part, name, _compiled(getattr(part, name), how, begins=number == 0))


def _compiled(function: Callable[..., Any], how: str, *, begins: bool) -> Callable[..., Any]:
    quick = torch.compile(function, backend=BACKEND, mode=MODES[how] if BACKEND == "inductor" else None)

    def run(*args: Any, **options: Any) -> Any:
        if begins:
            torch.compiler.cudagraph_mark_step_begin()  # what graphs gave in the batch before may be written over
        try:
            return quick(*args, **options)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error.inner_exception).strip().partition("\n")[0]
            raise ModelError(f"COMPILE {how}: torch.compile fails here, {reason}; set COMPILE off") from error

    return run
