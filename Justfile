# Every command of the project; `just` lists them. The first call sets up .venv (see _setup at the end).
#
# A recipe that takes paths runs where it is called ([no-cd]), so that they mean what the caller's shell completes.
# `test`, `test-quick` and `lint` run at the root: they look at the whole checkout, and pytest names tests from there.

set positional-arguments

root := quote(justfile_directory())
bin := quote(justfile_directory() / ".venv/bin")

# List the recipes, and the submissions that they can run
[private]
default:
    @{{ just_executable() }} --justfile {{ quote(justfile()) }} --list --unsorted
    @printf '\nSubmissions in %s:\n' {{ root }}
    @for each in submissions/*/manifest.yaml; do [ ! -e "$each" ] || echo "    ${each%/manifest.yaml}"; done

# Train, pack, score and judge a submission, e.g. submissions/hadamard-ve128
[no-cd]
[no-exit-message]
run *args: _setup
    @{{ bin }}/pgolf run "$@"

# Run every submission on both runners and print one table
[no-cd]
[no-exit-message]
all *args: _setup
    @{{ bin }}/pgolf all "$@"

# Switch each technique of a submission off in turn and tabulate the difference that it makes
[no-cd]
[no-exit-message]
ablate *args: _setup
    @{{ bin }}/pgolf ablate "$@"

# Check a submission in seconds: schema, rules, size estimate
[no-cd]
[no-exit-message]
check *args: _setup
    @{{ bin }}/pgolf check "$@"

# Score a finished run's artifact again and compare the ledgers
[no-cd]
[no-exit-message]
rescore *args: _setup
    @{{ bin }}/pgolf rescore "$@"

# Judge any program that speaks docs/protocol.md: score --contestant CMD --tokens FILE --tokenizer FILE
[no-cd]
[no-exit-message]
score *args: _setup
    @{{ bin }}/pgolf score "$@"

# List the runs, the newest first
[no-cd]
[no-exit-message]
list *args: _setup
    @{{ bin }}/pgolf list "$@"

# Compare two runs document by document
[no-cd]
[no-exit-message]
compare *args: _setup
    @{{ bin }}/pgolf compare "$@"

# Write a finished run as a record folder in the challenge's layout: export runs/NAME/pocket-... --out DIR
[no-cd]
[no-exit-message]
export *args: _setup
    @{{ bin }}/pgolf export "$@"

# Audit published record folders, or a checkout of them, without running anything: audit records/ --page audit.html
[no-cd]
[no-exit-message]
audit *args: _setup
    @{{ bin }}/pgolf audit "$@"

# Compare lossless coders on a trained checkpoint: bytes beside Shannon's bound, seconds: codecs CHECKPOINT
[no-cd]
[no-exit-message]
codecs *args: _setup
    @{{ bin }}/pgolf codecs "$@"

# Write the report of a finished run again
[no-cd]
[no-exit-message]
report *args: _setup
    @{{ bin }}/pgolf report "$@"

# Datasets: data prepare pocket|docs|fineweb, data verify
[no-cd]
[no-exit-message]
data *args: _setup
    @{{ bin }}/pgolf data "$@"

# Container images: image build cpu, image verify cpu, image lock cpu
[no-cd]
[no-exit-message]
image *args: _setup
    @{{ bin }}/pgolf image "$@"

# Show what this machine has and what is missing
[no-cd]
[no-exit-message]
doctor *args: _setup
    @{{ bin }}/pgolf doctor "$@"

# Remove cached wheels and leftovers of dead runs, never finished runs
[no-cd]
[no-exit-message]
clean *args: _setup
    @{{ bin }}/pgolf clean "$@"

# Run every test that can run here, a process a core; arguments go to pytest (-n 0: in this process)
[no-exit-message]
test *args: _setup
    @.venv/bin/python -m pytest --numprocesses auto --dist loadgroup "$@"

# The loop while editing: without the tests that are slow or need an engine, which it counts at the end
[no-exit-message]
test-quick *args: _setup
    @.venv/bin/python -m pytest --numprocesses auto --dist loadgroup -m "not slow and not engine" "$@"

# Compare training speed with the challenge's starting script on this CPU: bench --data DIR --script train_gpt.py
[no-cd]
[no-exit-message]
bench *args: _setup
    @{{ bin }}/python -P -m golf.bench "$@"

# Test public claims about techniques on trained models of the full shape: claims --data DIR --work DIR
[no-cd]
[no-exit-message]
claims *args: _setup
    @{{ bin }}/python -P -m golf.bench.claims "$@"

# Score packed models under several window rules: windows --data DIR runs/NAME/pocket-.../seed-*
[no-cd]
[no-exit-message]
windows *args: _setup
    @{{ bin }}/python -P -m golf.bench.windows "$@"

# Measure golf on a GPU in one call of under nine minutes, with the torch that is installed; --rehearse: on a CPU
[no-cd]
[no-exit-message]
gpu *args:
    @python={{ bin }}/python; [ -x "$python" ] || python=python3; PYTHONSAFEPATH=1 PYTHONPATH={{ root }} "$python" -m golf.bench.gpu "$@"

# Gather what `just gpu` needs on a bare machine, in build/gpu: gpu-carry --data DIR --script train_gpt.py
[no-cd]
[no-exit-message]
gpu-carry *args: _setup
    @{{ bin }}/python -P -m golf.bench.gpu.carry "$@"

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
    unset ${!PYTHON@}  # PYTHONHOME and PYTHONPATH name another Python's packages
    supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
    # Of pip's settings on this machine only those of the index count: PIP_TARGET and the like would move packages
    pip() { .venv/bin/python -P harness/base/pip_settings.py "$@"; }
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
    pip install -qq --require-hashes --no-deps --only-binary :all: -r requirements.lock
    torch=$(grep -o '^torch==[0-9.]*' torch.lock)
    say "[2/3] $torch, 190 MB as a CPU build, some 3 GB as a CUDA build: whichever this machine's index settings prefer"
    quiet=-qq; [ -t 2 ] && quiet=
    # In two steps: given the hashes of both builds at once, pip would prefer an index to a folder of wheels.
    rm -rf .venv/wheels
    pip download $quiet --no-deps --only-binary :all: --dest .venv/wheels "$torch"
    pip install -qq --require-hashes --no-deps --no-index --find-links .venv/wheels -r torch.lock
    rm -rf .venv/wheels
    if .venv/bin/python -c 'import sys, importlib.metadata as m; sys.exit(not any(r.startswith(("nvidia-", "cuda-")) for r in m.requires("torch")))'; then
        say "this torch is a CUDA build: its own $(grep -c '^[a-z]' torch-cuda.lock) packages come too"
        pip install $quiet --require-hashes --no-deps --only-binary :all: -r torch-cuda.lock
    fi
    say "[3/3] pgolf itself"
    pip install -qq --no-deps --no-build-isolation -e .
    echo {{ lock_key }} > $stamp
    say "ready"
