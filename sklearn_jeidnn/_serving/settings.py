"""What a service is allowed to do, and how long."""

from dataclasses import dataclass

from .._numbers import check_number, check_probability


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of a service; see :func:`sklearn_jeidnn.serving.create_app`."""

    max_batch: int = 256
    max_wait_ms: float = 0.0
    max_queue: int = 4096
    max_samples: int = 1024
    max_bytes: int = 2**23
    max_budgets: int = 8
    body_timeout: float = 10.0
    watch: bool = True
    alpha: float = 0.01
    confidence_level: float = 0.9
    max_remembered: int = 10_000

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_queue", "max_samples", "max_bytes"):
            check_number(getattr(self, name), name, least=1, whole=True)
        for name in ("max_budgets", "max_remembered"):
            check_number(getattr(self, name), name, least=0, whole=True)
        check_number(self.max_wait_ms, "max_wait_ms", least=0, most=60_000)
        check_number(self.body_timeout, "body_timeout", above=0)
        check_probability(self.alpha, "alpha")
        check_probability(self.confidence_level, "confidence_level")
