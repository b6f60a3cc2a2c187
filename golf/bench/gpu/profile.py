"""Where the time of a training step goes: a table of kernels and a trace that chrome://tracing shows."""

from __future__ import annotations

from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from golf.bench import work
from golf.bench.gpu import training
from golf.bench.gpu.results import Found
from golf.optim.schedule import TrainingProgress
from golf.training.trainer import Trainer

STEPS = 2
SHOWN = 5


def profile_steps(trainer: Trainer, batch_tokens: int, folder: Path) -> Found:
    """Profile two steps; writes profile.txt and trace.json.gz, and names the largest parts."""
    device, batch = trainer.ranks.device, training.synthetic(trainer, batch_tokens)
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    work.synchronise(device)
    with profile(activities=activities) as profiler:
        for step in range(STEPS):
            trainer.update(batch, TrainingProgress(step, 0.5))
        work.synchronise(device)
    averages = profiler.key_averages()
    kind = "cuda" if cuda else "cpu"
    table = averages.table(sort_by=f"self_{kind}_time_total", row_limit=60, max_name_column_width=100)
    (folder / "profile.txt").write_text(table, encoding="utf-8")
    profiler.export_chrome_trace(str(folder / "trace.json.gz"))
    times = {each.key: each.self_device_time_total if cuda else each.self_cpu_time_total for each in averages}
    total = sum(times.values())
    largest = sorted(times.items(), key=lambda pair: -pair[1])[:SHOWN]
    shares = ", ".join(f"{name[:50]} {time / total:.1%}" for name, time in largest)
    numbers = {"milliseconds_a_step": {name: time / 1e3 / STEPS for name, time in times.items() if time}}
    return Found(f"{total / 1e3 / STEPS:.1f} ms of {kind} time a step: {shares}", numbers)
