"""The metrics that Prometheus reads under /metrics."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The numbers of one server, in a registry of its own."""

    def __init__(self, sizes: tuple[int, ...]):
        """Begins with zeros; `sizes` are the compiled batch sizes."""
        disable_created_metrics()  # The time at which each number began.
        self._registry = registry = CollectorRegistry()
        self._counted: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "jaxnets_requests", "Answered requests", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "jaxnets_request_seconds",
            "Seconds from a request's head to its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "jaxnets_images", "Images that a network was given", ["model"], registry=registry
        )
        self.batch = Histogram(
            "jaxnets_batch_images",
            "Images in a batch",
            ["model"],
            buckets=sizes,
            registry=registry,
        )
        self.padding = Counter(
            "jaxnets_padding_images", "Empty places in batches", ["model"], registry=registry
        )
        self.waiting = Gauge(
            "jaxnets_waiting_images", "Images that wait now", ["model"], registry=registry
        )
        self.version = Gauge(
            "jaxnets_model_info",
            "1 for what is served now",
            ["model", "version"],
            registry=registry,
        )
        self.feedback = Counter(
            "jaxnets_feedback", "Saved feedback", ["arm", "correct"], registry=registry
        )

    def saw_request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answered request; 0 is the status of one that was not answered."""
        if (route, status) not in self._counted:
            found = self.requests.labels(route, str(status)), self.seconds.labels(route)
            self._counted[route, status] = found
        counter, histogram = self._counted[route, status]
        counter.inc()
        histogram.observe(seconds)

    def saw_batch(self, model: str, images: int, size: int) -> None:
        """Counts a batch of so many images, padded to a size."""
        self.images.labels(model).inc(images)
        self.batch.labels(model).observe(images)
        self.padding.labels(model).inc(size - images)

    def text(self) -> bytes:
        """All numbers in Prometheus' format."""
        return generate_latest(self._registry)


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
