"""A program in code.pyz runs as one in a folder does: imports, tracebacks, sources, ranks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.base.paths import ROOT
from harness.run import bundle
from harness.run.bundle_finder import Finder


def packed(folder: Path, main: str, **modules: str) -> Path:
    """code.pyz of a package `golf` with this `main()` and these modules."""
    package = folder / "golf"
    package.mkdir()
    for name, text in {"__init__": "", "__main__": main, **modules}.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    (folder / "code.pyz").write_bytes(bundle.build(package).pyz)
    return folder / "code.pyz"


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )


FAILING = '''
    """Docstrings

    of several lines are blanked.
    """


    def fail(x: float) -> float:
        """Say why, and fail."""
        # not counted
        return 1 / x  # neither is this
    '''


def test_an_uncaught_error_shows_the_lines_of_the_sources_as_written(tmp_path: Path) -> None:
    main = "from golf.work import fail\n\n\ndef main():\n    # why\n    fail(0)  # here\n"
    pyz = packed(tmp_path, main, work=FAILING)
    done = run(pyz)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert f'  File "{pyz}/golf/__main__.py", line 6, in main\n    fail(0)\n' in done.stderr
    line = textwrap.dedent(FAILING).splitlines().index("    return 1 / x  # neither is this") + 1
    assert f'  File "{pyz}/golf/work.py", line {line}, in fail\n    return 1 / x\n' in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_compiler_of_kernels_gets_the_source_and_the_line_of_a_function(tmp_path: Path) -> None:
    """As Triton asks for it: inspect.getsourcelines of a decorated function, then compiling the text."""
    main = """
        import inspect, linecache
        from golf import work
        def main():
            linecache.checkcache()
            lines, first = inspect.getsourcelines(work.fail)
            print(first, "".join(lines), end="")
            print(inspect.getsourcefile(work.fail) == work.__file__)
            scope = {}
            exec("".join(lines), scope)
            print(scope["fail"](2), inspect.get_annotations(work.fail))
        """
    done = run(packed(tmp_path, main, work=FAILING))
    assert done.stdout.splitlines() == [
        "8 def fail(x: float) -> float:",
        "",
        "",
        "    return 1 / x",
        "True",
        "0.5 {'x': <class 'float'>, 'return': <class 'float'>}",
    ], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_triton_runs_a_kernel_of_the_bundle_under_its_interpreter(tmp_path: Path) -> None:
    kernel = """
        import triton
        import triton.language as tl

        @triton.jit
        def add(x, y, out, n, BLOCK: tl.constexpr):
            # not counted
            at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
            tl.store(out + at, tl.load(x + at, at < n) + tl.load(y + at, at < n), at < n)
        """
    main = """
        import torch
        from golf.kernel import add

        def main():
            x, out = torch.arange(100.0), torch.empty(100)
            add[(4,)](x, x, out, 100, BLOCK=32)
            print(torch.equal(out, 2 * x))
        """
    done = run(packed(tmp_path, main, kernel=kernel), TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert done.stdout == "True\n", done.stderr


def test_what_the_package_lacks_cannot_be_imported_and_nothing_else_is_taken(tmp_path: Path) -> None:
    main = """
        def main():
            import json
            print(json.__spec__.origin.endswith("json/__init__.py"))
            try:
                import golf.missing
            except ModuleNotFoundError as error:
                print(error)
        """
    pyz = packed(tmp_path, main.replace("import golf.missing", '__import__("golf.missing")'))
    done = run(pyz)
    assert done.stdout.splitlines() == ["True", "No module named 'golf.missing'"], done.stderr


def test_nothing_is_written_beside_the_bundle_and_the_exit_status_is_the_programs(tmp_path: Path) -> None:
    pyz = packed(tmp_path, "def main():\n    return 7\n")
    assert run(pyz).returncode == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code.pyz", "golf"]


@pytest.mark.slow
def test_the_launcher_starts_the_bundle_again_in_each_rank_and_a_rank_shows_its_lines(tmp_path: Path) -> None:
    main = """
        import os
        from golf.work import fail
        def main():
            os.write(1, f"rank {os.environ['RANK']} {fail(1)}\\n".encode())  # one write is not torn
            if os.environ["RANK"] == "1":
                fail(0)
        """
    pyz = packed(tmp_path, main, work=FAILING)
    done = run(
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0",
        "--local-addr=127.0.0.1",
        pyz,
        OMP_NUM_THREADS="1",
        TMPDIR=str(tmp_path),
    )
    assert sorted(done.stdout.splitlines()) == ["rank 0 1.0", "rank 1 1.0"], done.stderr
    assert f'"{pyz}/golf/work.py", line 11, in fail\n    return 1 / x\n' in done.stderr


@pytest.mark.slow
def test_the_contestants_modules_have_their_sources_as_counted(tmp_path: Path) -> None:
    built = bundle.build(ROOT / "golf")
    (tmp_path / "code.pyz").write_bytes(built.pyz)
    finder, counted = Finder(str(tmp_path / "code.pyz")), bundle.read(tmp_path / "code.pyz").sources
    for name, text in counted.items():
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        spec = finder.find_spec(module)
        assert spec.origin == f"{tmp_path}/code.pyz/{name}"
        assert finder.get_source(module) == text.decode()
        assert (spec.submodule_search_locations is not None) == name.endswith("__init__.py")
