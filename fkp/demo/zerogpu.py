"""Work for a GPU where the Hub lends one (ZeroGPU): in another process, for as long as the work takes.

The page's small work stays on the CPU; what takes long is given to `lent`. Without the package `spaces`,
which every Gradio Space has, all stays as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fkp.pipeline import FaceKeypoints

T = TypeVar("T")

_moved: WeakKeyDictionary[FaceKeypoints, FaceKeypoints] = WeakKeyDictionary()


def lent(
    work: Callable[..., Generator[T]], model: FaceKeypoints, seconds: Callable[..., float]
) -> Callable[..., Generator[T]]:
    """`work(model, …)` as a function of the rest of its arguments, on a lent GPU where there is one.

    `work` is a generator function; `seconds` tells, from the same arguments without the model, how long it
    may take at most: a GPU is had the sooner the less is asked for. There, arguments and what it yields go
    from process to process and must be picklable, and it runs with a copy of the model. What it raises is
    raised here, and where no GPU can be had (a visitor's share of the day is used up) it runs without.
    To be called before the page is launched, and before CUDA is used in any way.
    """
    try:
        from spaces import GPU
    except ImportError:
        return lambda *given: work(model, *given)

    def there(*given: Any) -> Generator[T | _Failure]:
        try:
            yield from work(on_gpu(model), *given)
        except Exception as error:  # ZeroGPU would pass on no more than its class
            yield _Failure(error)

    borrowing: Callable[..., Generator[T | _Failure]] = GPU(there, duration=seconds)
    if borrowing is there:  # not on ZeroGPU: this process is the only one
        return lambda *given: work(on_gpu(model), *given)

    def here(*given: Any) -> Generator[T]:
        began = False
        with contextlib.closing(borrowing(*given)) as results:
            try:
                for result in results:
                    began = True
                    if isinstance(result, _Failure):
                        raise result.error
                    yield result
                return
            except Exception:
                if began:
                    raise
        yield from work(model, *given)

    return here


def on_gpu(model: FaceKeypoints) -> FaceKeypoints:
    """The model on the GPU, made once; the model itself where there is no GPU."""
    if model not in _moved:
        _moved[model] = model.to("auto")
    return _moved[model]


@dataclass(frozen=True)
class _Failure:
    """What went wrong in the other process."""

    error: Exception
