"""Keep what torch does while it exports from the modules of other threads."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.fx import _symbolic_trace

# torch exports, and loads graphs, one at a time.
LOCK = threading.RLock()


class _PatcherOfOneThread(_symbolic_trace._Patcher):
    """Patches methods of all modules, but calls of other threads go to the methods as they were."""

    def patch_method(
        self, cls: type, name: str, new_fn: Callable[..., Any], deduplicate: bool = True
    ) -> None:
        original, here = getattr(cls, name), threading.get_ident()

        @functools.wraps(new_fn)
        def patched(*args: Any, **kwargs: Any) -> Any:
            function = new_fn if threading.get_ident() == here else original
            return function(*args, **kwargs)

        super().patch_method(cls, name, patched, deduplicate)


@contextlib.contextmanager
def patching_one_thread() -> Iterator[None]:
    """Let ``torch.fx``, which patches every module of the process, patch for this thread alone.

    See PyTorch issue 112775.
    """
    torch_fx: Any = _symbolic_trace
    with LOCK:
        patcher, torch_fx._Patcher = torch_fx._Patcher, _PatcherOfOneThread
        try:
            yield
        finally:
            torch_fx._Patcher = patcher
