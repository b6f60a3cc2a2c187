"""The verdict of `pgolf score` on the terminal, for people. Nothing is decided or read here."""

from __future__ import annotations

from typing import Any

from harness.base.console import new_console, print_lines
from harness.base.text import count
from harness.run.cpu_use import busy_sentence
from harness.run.plan import profile_limits
from harness.verdict import report
from harness.verdict.headline import standing


def show(verdict: dict[str, Any], details: bool) -> None:
    """The verdict on stdout for people: the number and what is shown first, then what does not pass."""
    console = new_console()
    print_lines(console, f"{_result(verdict)}\n{_decision(verdict)}", report.STYLE[verdict["verdict"]])
    report.print_section(console, _notes(verdict))
    report.print_findings(console, report.findings(verdict), details)
    guarantee = [verdict["certificate"]["guarantee"]] if details and verdict["certificate"] else []
    last = [f"not judged: {verdict['not_judged']}", f"kept in {verdict['run_dir']}"]
    report.print_section(console, [*guarantee, *last])


def _result(verdict: dict[str, Any]) -> str:
    if verdict["bpb"] is None:
        return f"no score; {standing(verdict)}"
    return (
        f"{verdict['bpb']:.5f} bits per byte ({verdict['nats_per_token']:.5f} nats a token, "
        f"{verdict['scored_tokens']:,} tokens, {verdict['scored_bytes']:,} bytes); {standing(verdict)}"
    )


def _decision(verdict: dict[str, Any]) -> str:
    """The verdict with its rules, then what was asked and what was assumed."""
    rules = f" by {', '.join(verdict['decided_by'])}" if verdict["decided_by"] else ""
    told = [
        f"{name} {verdict[name]}{' (assumed)' if name in verdict['assumed'] else ''}"
        for name in ("seed", "track")
    ]
    seconds = verdict["limits"]["score_seconds"]
    usual = seconds == profile_limits(verdict["profile"]).score_seconds
    clock = "" if usual else f", score clock of {seconds:g} s instead of the profile's"
    return (
        f"{verdict['verdict'].upper()}{rules}: {', '.join(told)}, profile {verdict['profile']}, "
        f"{verdict['runner']} runner{clock}"
    )


def _notes(verdict: dict[str, Any]) -> list[str]:
    """Why there is no score, or what it took, its certificate, and the attempts before it."""
    if verdict["bpb"] is None:
        lines = str(verdict["reason"]).split("\n")
    else:
        lines = [
            f"contestant {verdict['score_seconds']:.2f} s; judge {verdict['judge_cpu_seconds']:.2f} s of "
            f"CPU, {verdict['judge_cpu_seconds_per_million_tokens']:.3f} s a million tokens",
            *report.certificate_lines(verdict),
        ]
    if busy := busy_sentence(verdict["others_cpu_share"], verdict["stolen_cpu_share"]):
        lines.append(busy)
    if verdict["earlier"]:
        lines.append(f"{count(len(verdict['earlier']), 'earlier attempt')} kept beside this one")
    return lines
