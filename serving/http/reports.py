"""The problems of one request; causes that the client may not know go to the log. Knows no routes."""

from dataclasses import dataclass, field

from serving.http.logs import log
from serving.http.problems import Problem, problem_of

HIDDEN = {"internal", "device", "store"}  # kinds of problems whose cause is only in the log


@dataclass(slots=True)
class Report:
    """A request's id and its problems as (kind, where): in the answer, an entry of it, or an event of a stream."""

    request_id: str
    problems: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, error: BaseException, where: str) -> Problem:
        """Returns what the client may know about an error, and records it; a hidden cause goes to the log."""
        problem = problem_of(error)
        self.problems.append((problem.kind, where))
        if problem.kind in HIDDEN:
            log.error("request failed", exc_info=error, extra={"request_id": self.request_id})
        return problem
