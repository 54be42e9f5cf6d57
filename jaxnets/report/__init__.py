"""Shows a network or runs: summary, report, evaluation, trace."""
