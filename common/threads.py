"""How many threads NumPy and torch compute with. Imports neither of them."""

import sys


def use_threads(count: int) -> None:
    """From now on, in this process, for the libraries that are loaded.

    On small arrays a second thread waits longer than it works, and beside a busy process many times
    longer.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    try:
        # comes with scikit-learn
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(count)
