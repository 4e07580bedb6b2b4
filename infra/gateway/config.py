"""The gateway's settings: one JSON file, written by the stage that starts it."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator

from infra.gateway.optout import DIRECTIVES
from schemas.base import Frozen

_PRODUCT = re.compile(r"[A-Za-z_-]+")


class GatewayConfig(Frozen):
    """Where the gateway's files lie, who it says it is, and its bounds.

    Attributes:
        table: SQLite file of URLs by key, read (`infra.gateway.table`).
        journal: SQLite file of attempts, written (`infra.gateway.journal`).
        spool: folder of bodies that may be asked for again.
        ready: file that is written when the gateway listens; holds {"port": …}.
        private_hosts: JSON file of hosts that are reached although they are private.
        attempts: after so many a transient failure is final.
        total_timeout: seconds for one response from request to last byte.
        idle_timeout: seconds without a byte; connect_timeout: seconds to connect, TLS included.
        allow_downgrade: whether a redirect may lead from https to http.
        host_rate: requests a second to one host; 0 is as many as it answers.
        host_connections, connections: requests at a time to one host, and in all.
        host_strikes: failures in a row after which a host is left alone.
        patience: seconds for which a request waits for its host's pause; beyond, it is deferred.
        longest_wait: seconds; what its host wants to be asked for only later is given up, and so is
            what it has put off for longer than that in all.
    """

    table: Path
    journal: Path
    spool: Path
    ready: Path
    user_agent: str
    private_hosts: Path | None = None
    attempts: int = Field(default=2, ge=1)
    max_bytes: int = Field(default=20_000_000, ge=1)
    total_timeout: float = Field(default=30.0, gt=0)
    idle_timeout: float = Field(default=10.0, gt=0)
    connect_timeout: float = Field(default=10.0, gt=0)
    max_redirects: int = Field(default=5, ge=0)
    allow_downgrade: bool = False
    host_rate: float = Field(default=10.0, ge=0)
    host_connections: int = Field(default=8, ge=1)
    connections: int = Field(default=256, ge=1)
    host_strikes: int = Field(default=32, ge=1)
    patience: float = Field(default=10.0, ge=0)
    longest_wait: float = Field(default=300.0, ge=0)
    opt_out_directives: frozenset[str] = DIRECTIVES

    @field_validator("user_agent")
    @classmethod
    def _honest(cls, value: str) -> str:
        return require_contact(value)

    @property
    def agent(self) -> str:
        """Our product token in lower case, by which robots.txt and headers address us."""
        return product_token(self.user_agent)


def require_contact(user_agent: str) -> str:
    """The user agent, if it starts with a product name and says how to reach who runs it.

    Raises:
        ValueError: saying what it should look like.
    """
    contact = re.search(r"https?://\S|mailto:\S|\S@\S", user_agent)
    if not (_PRODUCT.match(user_agent) and contact and user_agent.isprintable()):
        raise ValueError(
            f"user_agent {user_agent!r} must be a product name with a contact,"
            " like 'TapirBot/1.0 (+https://example.org/bot; bot@example.org)'"
        )
    return user_agent


def product_token(user_agent: str) -> str:
    """The product name that a user agent begins with, in lower case."""
    found = _PRODUCT.match(user_agent)
    return found[0].lower() if found else ""
