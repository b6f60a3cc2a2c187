# Every command of the project; `just` lists them. The first call sets up .venv (see _setup at the end).

set positional-arguments

# List the recipes
[private]
default:
    @{{ just_executable() }} --justfile {{ quote(justfile()) }} --list --unsorted

# Train, pack, score and judge a submission, e.g. submissions/hadamard-ve128
[no-exit-message]
run *args: _setup
    @.venv/bin/pgolf run "$@"

# Run every submission on both runners and print one table
[no-exit-message]
all *args: _setup
    @.venv/bin/pgolf all "$@"

# Switch each technique of a submission off in turn and tabulate the difference that it makes
[no-exit-message]
ablate *args: _setup
    @.venv/bin/pgolf ablate "$@"

# Check a submission in seconds: schema, rules, size estimate
[no-exit-message]
check *args: _setup
    @.venv/bin/pgolf check "$@"

# Score a finished run's artifact again and compare the ledgers
[no-exit-message]
rescore *args: _setup
    @.venv/bin/pgolf rescore "$@"

# Judge any program that speaks docs/protocol.md: score --contestant CMD --tokens FILE --tokenizer FILE
[no-exit-message]
score *args: _setup
    @.venv/bin/pgolf score "$@"

# List the runs, the newest first
[no-exit-message]
list *args: _setup
    @.venv/bin/pgolf list "$@"

# Compare two runs document by document
[no-exit-message]
compare *args: _setup
    @.venv/bin/pgolf compare "$@"

# Write a finished run as a record folder in the challenge's layout: export runs/NAME/pocket-... --out DIR
[no-exit-message]
export *args: _setup
    @.venv/bin/pgolf export "$@"

# Audit published record folders, or a checkout of them, without running anything: audit records/ --page audit.html
[no-exit-message]
audit *args: _setup
    @.venv/bin/pgolf audit "$@"

# Write the report of a finished run again
[no-exit-message]
report *args: _setup
    @.venv/bin/pgolf report "$@"

# Datasets: data prepare pocket|docs|fineweb, data verify
[no-exit-message]
data *args: _setup
    @.venv/bin/pgolf data "$@"

# Container images: image build cpu, image verify cpu, image lock cpu
[no-exit-message]
image *args: _setup
    @.venv/bin/pgolf image "$@"

# Show what this machine has and what is missing
[no-exit-message]
doctor *args: _setup
    @.venv/bin/pgolf doctor "$@"

# Remove cached wheels and leftovers of dead runs, never finished runs
[no-exit-message]
clean *args: _setup
    @.venv/bin/pgolf clean "$@"

# Run every test that can run here, a process a core; arguments go to pytest (-n 0: in this process)
[no-exit-message]
test *args: _setup
    @.venv/bin/python -m pytest --numprocesses auto --dist loadgroup "$@"

# The loop while editing: without the tests that are slow or need an engine, which it counts at the end
[no-exit-message]
test-quick *args: _setup
    @.venv/bin/python -m pytest --numprocesses auto --dist loadgroup -m "not slow and not engine" "$@"

# Compare training speed with the challenge's starting script on this CPU: bench --data DIR --script train_gpt.py
[no-exit-message]
bench *args: _setup
    @.venv/bin/python -m golf.bench "$@"

# Test public claims about techniques on trained models of the full shape: claims --data DIR --work DIR
[no-exit-message]
claims *args: _setup
    @.venv/bin/python -m golf.bench.claims "$@"

# Run every check that needs a GPU, with the torch that is installed; without a GPU it says so and stops
[no-exit-message]
gpu *args:
    @python=.venv/bin/python; [ -x $python ] || python=python3; $python -m golf.bench.gpu "$@"

# Check style and types
[no-exit-message]
lint: _setup
    @.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

lock_key := sha256(sha256_file("pyproject.toml") + sha256_file("requirements.lock") + sha256_file("torch.lock") + sha256_file("torch-cuda.lock"))

# Make a working .venv; does nothing if the stamp, which is written last, names these lock files
[no-exit-message]
[private]
_setup:
    #!/usr/bin/env bash
    set -euo pipefail
    stamp=.venv/pgolf-stamp
    [ "$(cat $stamp 2>/dev/null)" = {{ lock_key }} ] && exit 0
    exec >&2  # stdout belongs to the command that the user asked for
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_HASHES=1 PIP_NO_DEPS=1 PIP_USER=0
    supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
    pip() { .venv/bin/python -m pip "$@"; }
    say() { echo "setup: $*"; }

    for python in python3 python python3.14 python3.13 python3.12 python3.11 ''; do
        [ -n "$python" ] && "$python" -c "$supported" 2>/dev/null && break
    done
    if [ -z "$python" ] && [ -s $stamp ] && .venv/bin/python -c "$supported" 2>/dev/null; then
        python=.venv/bin/python  # enough to bring a finished .venv up to date, but it cannot make itself anew
    fi
    if [ -z "$python" ]; then
        say "needs a Python from 3.11 to 3.14 on PATH and found none"
        say "hint: install one (a package manager, pyenv, conda) and run the same command again"; exit 2
    fi
    # One set-up at a time: two would delete each other's .venv. This shell and what it starts hold the lock
    if ! : 2>/dev/null >>.venv.lock; then
        say "cannot write .venv.lock in $PWD"
        say "hint: the set-up makes .venv beside it: the folder must be yours, with room on its disk"; exit 2
    fi
    exec 9>>.venv.lock
    "$python" -c '
    import fcntl
    try:
        fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("setup: another set-up is at work in this checkout: waiting for it", flush=True)
        fcntl.flock(9, fcntl.LOCK_EX)
    except OSError as error:
        print(f"setup: this file system has no locks ({error}): start no second set-up here", flush=True)
    '
    [ "$(cat $stamp 2>/dev/null)" = {{ lock_key }} ] && exit 0

    # Without a stamp the .venv may hold half-installed packages, which pip takes for complete: start over
    if [ ! -s $stamp ] || ! .venv/bin/python -c "$supported" 2>/dev/null; then
        say "making .venv with $("$python" --version); everything takes about two minutes the first time, torch most of it"
        if ! "$python" -m venv --clear .venv; then
            say "$python cannot make a virtual environment"
            say "hint: on Debian and Ubuntu: apt-get install python3-venv"; exit 2
        fi
    fi
    rm -f $stamp
    say "[1/3] $(grep -c '^[a-z]' requirements.lock) packages by hash, about half a minute"
    pip install -qq --only-binary :all: -r requirements.lock
    torch=$(grep -o '^torch==[0-9.]*' torch.lock)
    say "[2/3] $torch, 190 MB as a CPU build, some 3 GB as a CUDA build: whichever this machine's index settings prefer"
    quiet=-qq; [ -t 2 ] && quiet=
    # In two steps: given the hashes of both builds at once, pip would prefer an index to a folder of wheels.
    rm -rf .venv/wheels
    PIP_REQUIRE_HASHES=0 pip download $quiet --only-binary :all: --dest .venv/wheels "$torch"
    pip install -qq --no-index --find-links .venv/wheels -r torch.lock
    rm -rf .venv/wheels
    if .venv/bin/python -c 'import sys, importlib.metadata as m; sys.exit(not any(r.startswith(("nvidia-", "cuda-")) for r in m.requires("torch")))'; then
        say "this torch is a CUDA build: its own $(grep -c '^[a-z]' torch-cuda.lock) packages come too"
        pip install $quiet --only-binary :all: -r torch-cuda.lock
    fi
    say "[3/3] pgolf itself"
    PIP_REQUIRE_HASHES=0 pip install -qq --no-build-isolation -e .
    echo {{ lock_key }} > $stamp
    say "ready"
