"""From evidence to a verdict: rules, decision, report and export."""
