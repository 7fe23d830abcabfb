"""Start Python in a child process without running what happens to lie in the current folder."""

from __future__ import annotations

import sys


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the words of the command that runs a module with packages from where this process has them.

    `python -m MODULE` looks in the current folder first, for the module and for all that it imports, so a
    folder with a `json.py` in it would have its code run. Here the child's search path is this process's own
    before anything is imported. The program gets `arguments` as `sys.argv[1:]`.
    """
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", code, *arguments]
