"""Looking at networks, runs and predictions: figures, summary, trace, report and page."""
