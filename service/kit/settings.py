"""The service's settings: environment variables `BURNISH_…`, with the embedded defaults under one data folder."""

from __future__ import annotations

import os
import re
import secrets
from functools import cached_property
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.kit.networks import AllowedNetworks, Network, parse_networks
from service.kit.origins import parse_origins

LABEL = r"[A-Za-z0-9][A-Za-z0-9._=/-]{0,62}"
"""The form of a worker's label."""


def _count_checks() -> int:
    """Return how many checks of files may run at once: more than a machine has processors only make each other late."""
    return max(4, 2 * (os.cpu_count() or 1))


class SettingsError(Exception):
    """A setting is missing or wrong; the message is a sentence for the operator."""


class Settings(BaseSettings):
    """All settings. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="BURNISH_", frozen=True, extra="ignore", populate_by_name=True)

    data: Path = Path(".burnish")
    """The folder for everything that the embedded set-up keeps, and for the workers' caches."""
    database_url: str | None = None
    redis_url: str | None = None
    storage_url: str | None = None
    catalog: Path | None = None
    """A JSON file of base models; without it, the one that the package ships."""
    secret_key: SecretStr | None = Field(None, min_length=32)
    """Keys the HMAC of API keys. Embedded: made once in the data folder. In a cluster: the same for all."""

    storage_access_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("BURNISH_STORAGE_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
    )
    storage_secret_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("BURNISH_STORAGE_SECRET_KEY", "AWS_SECRET_ACCESS_KEY")
    )

    webhook_url: str | None = None
    webhook_secret: SecretStr | None = None
    """`whsec_` and the base64 of 24 to 64 bytes (Standard Webhooks)."""
    webhook_allowed_networks: str = ""
    """Networks (CIDR) and host names that projects' webhooks may go to although they are not public; by commas."""
    webhook_denied_networks: str = ""
    """Networks (CIDR) that projects' webhooks never go to, whatever else is allowed; by commas."""

    engine_url: str | None = Field(None, pattern=r"^(unix:///|https?://)\S+$")
    """Where the engine for chat listens: `unix:///path` or `http://host:port`. `burnish-server up` starts one."""
    engine_waiting: int = Field(32, ge=1)
    """How many conversations may wait for the engine; more are answered by 429."""
    engine_waiting_per_project: int = Field(8, ge=1)
    """How many of them may be one project's; at least one place is always left to the others."""
    engine_most_tokens: int = Field(1 << 17, ge=1)
    """The most tokens that a request may ask for: the limit of an answer times the number of answers."""
    engine_answer_seconds: float = Field(300.0, gt=0)
    """How long a model may work on one request; the answers then end with the `finish_reason` `length`."""
    engine_turn_seconds: float = Field(10.0, gt=0)
    """After so long a conversation pauses if another project's waits, and continues in its next turn."""
    engine_idle_seconds: float = Field(900.0, gt=0)
    """After so long without a conversation the engine frees its model's memory."""
    engine_max_tokens: int = Field(1024, ge=1)
    """The most tokens of an answer if the request names no limit."""
    inference_url: str | None = Field(None, pattern=r"^https?://\S+$")
    """An OpenAI-compatible inference server such as vLLM (its URL up to `/v1`): the engine
    asks it, and loads no model itself."""
    inference_key: SecretStr | None = None
    inference_adapters: Path | None = None
    """A folder that the engine and the inference server share: adapters are put there for it to load."""
    inference_conversations: int = Field(256, ge=1)
    """How many conversations the inference server has at once; more wait as they do for the engine."""
    inference_conversations_per_project: int = Field(64, ge=1)

    open_chats: int = Field(512, ge=1)
    """How many chats are open in one API process at once; more are answered by 429."""
    open_chats_per_project: int = Field(64, ge=1)
    open_event_streams: int = Field(1000, ge=1)
    """How many streams of events are open in one API process at once; more are answered by 429."""
    open_event_streams_per_project: int = Field(100, ge=1)
    stream_stall_seconds: float = Field(30.0, gt=0)
    """After so long in which a reader takes nothing of a stream, the stream is ended."""

    python_graders: Literal["off", "on"] = "off"
    """Whether `python` graders are run: code of the projects, shut in (docs/adr/0016-the-jail-of-python-graders.md)."""
    python_grader_processes: int | None = Field(None, ge=1, le=1024)
    """How many of them all API processes of a machine run at once; by default, as many as it has cores."""

    wandb_api_key: SecretStr | None = Field(
        None, min_length=1, validation_alias=AliasChoices("BURNISH_WANDB_API_KEY", "WANDB_API_KEY")
    )
    """With it, workers send the metrics of jobs that ask for it to Weights & Biases."""
    wandb_base_url: str | None = Field(
        None, pattern=r"^https?://\S+$", validation_alias=AliasChoices("BURNISH_WANDB_BASE_URL", "WANDB_BASE_URL")
    )
    """The address of another server of Weights & Biases than its makers'."""

    log_format: Literal["auto", "json", "text"] = "auto"
    """`auto` is text on a terminal, and JSON elsewhere."""
    metrics_address: str | None = None
    """Where the process answers Prometheus: `host:port`, `off`, or nowhere; port 0 is any free one."""

    max_connections: int = Field(4096, ge=8)
    """How many connections a process of the API has open at once; fewer if its limit of open files is low."""
    max_connections_per_address: int | None = Field(None, ge=1)
    """How many of them one address has (of IPv6, one /64); None is half of all. Trusted proxies have no limit."""
    trusted_proxies: str = ""
    """Networks (CIDR) of reverse proxies that `X-Forwarded-For` is believed of; by commas."""
    cors_origins: str = ""
    """Origins of web pages whose scripts may call the API, such as `https://app.example.com`; by commas, or `*`."""
    disk_reserve_bytes: int = Field(8 << 20, ge=0)
    """Kept free beside an embedded database, so that a full disk still lets objects be deleted; 0 keeps nothing."""

    organization: str = Field("burnish", pattern=r"^[a-z0-9-]{1,32}$")
    """Stands in the names of new jobs' models, `ft:{base}:{organization}:{suffix}:{id}`, and as `organization_id`."""
    max_file_bytes: int = Field(1 << 30, gt=0)
    max_line_bytes: int = Field(8 << 20, gt=0)
    max_unpacked_bytes: int = Field(8 << 30, gt=0)
    """The most that a file in gzip, zstd or Parquet may hold."""
    max_unpacked_ratio: int = Field(200, ge=1)
    """The most that it may hold as a multiple of its own size; 32 MiB always pass."""
    max_file_rows: int = Field(100_000_000, gt=0, lt=1 << 31)
    check_seconds_per_gib: float = Field(200.0, gt=0)
    """How much processor time the check of a file may take for each GiB that it may hold; 10 seconds always pass."""
    upload_checks: int = Field(default_factory=_count_checks, ge=1)
    """How many uploads an API process checks in processes at once; a quarter of them for one project."""
    job_checks: int = Field(default_factory=_count_checks, ge=1)
    """How many jobs have their files checked at once by a controller; a quarter of them of one project."""

    export_seconds: int = Field(7 * 86400, ge=3600)
    """How long an exported model is kept if its request does not say."""
    max_queued_exports: int = Field(100, ge=1)
    """How many exports of one project may wait for a worker; more are answered by 429."""

    quota_stored_bytes: int | None = Field(None, ge=0)
    """The quotas and rates of a project without ones of its own; None is unlimited."""
    quota_running_jobs: int | None = Field(None, ge=0)
    quota_queued_jobs: int | None = Field(None, ge=0)
    """Jobs that have not started or are paused."""
    quota_training_minutes: int | None = Field(None, ge=0)
    """Minutes a calendar month (UTC) that attempts at jobs may run, together."""
    rate_requests_per_minute: int | None = Field(None, ge=1)
    rate_tokens_per_minute: int | None = Field(None, ge=1)
    """Tokens of chat completions, questions and answers together."""

    requests_waiting: int = Field(256, ge=1)
    """How many requests of one project wait for their turn in one process of the API; more are answered by 429."""

    heartbeat_seconds: float = Field(10.0, gt=0)
    lease_seconds: float = Field(60.0, gt=0)
    poll_seconds: float = Field(0.5, gt=0)
    """How often the controller looks for work, and the worker for new events and a cancel."""
    stop_seconds: float = Field(60.0, gt=0)
    """How long a trainer may take to write a checkpoint after SIGTERM before it is killed."""
    max_failures: int = Field(3, ge=1)
    """How many failed attempts end a job, and how many crashes in a row without a newer checkpoint between."""
    retry_seconds: float = Field(10.0, ge=0)
    """How long a job waits after its first failed attempt; each time four times as long, ten minutes at most."""
    trainer_threads: int | None = Field(None, ge=1)
    """CPU threads of one trainer; by default, what OMP_NUM_THREADS says, else the machine's cores."""

    worker_gpus: int | None = Field(None, ge=0, le=1024)
    """How many GPUs a worker says it has; by default, those that `nvidia-smi` lists for it."""
    worker_gpu_memory_gb: float | None = Field(None, gt=0)
    """The memory of its GPU in GB (10⁹ bytes); by default, what `nvidia-smi` says."""
    worker_labels: str = ""
    """Words that jobs may ask for in `resources.labels`; by commas."""
    preview_seconds: float = Field(60.0, gt=0, le=600)
    """How long a preview of a job may take."""
    max_previews: int = Field(4, ge=1)
    """How many previews of one project may be under way; more are refused until one of them ends."""

    @field_validator("data")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _readable_networks(cls, value: str) -> str:
        AllowedNetworks.parse(value)
        return value

    @field_validator("trusted_proxies", "webhook_denied_networks")
    @classmethod
    def _readable_list(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _readable_origins(cls, value: str) -> str:
        return ",".join(parse_origins(value))

    @field_validator("inference_adapters")
    @classmethod
    def _absolute_adapters(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().resolve()

    @field_validator("metrics_address")
    @classmethod
    def _readable_address(cls, value: str | None) -> str | None:
        if value not in (None, "off"):
            _host_and_port(value)
        return value

    @field_validator("worker_labels")
    @classmethod
    def _readable_labels(cls, value: str) -> str:
        for label in filter(None, (part.strip() for part in value.split(","))):
            if not re.fullmatch(LABEL, label):
                raise ValueError(
                    f"{label[:70]!r} is not a label: use 1 to 63 letters, digits, . _ = / -, and commas between labels"
                )
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(
            ("postgresql://", "postgres://", "postgresql+psycopg://", "sqlite:///")
        ):
            raise ValueError("use postgresql://user:password@host/name, or sqlite:///file for one machine")
        return value

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                f"BURNISH_LEASE_SECONDS is {self.lease_seconds:g}; it must be at least twice "
                f"BURNISH_HEARTBEAT_SECONDS, which is {self.heartbeat_seconds:g}"
            )
        return self

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL: the setting, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{self.data / 'burnish.db'}"

    @cached_property
    def redis(self) -> str:
        """The Redis URL; embedded, Valkey's unix socket."""
        return self.redis_url or f"unix://{self.valkey_socket}"

    @cached_property
    def storage(self) -> str:
        """The blob store's URL."""
        return self.storage_url or f"file://{self.data / 'blobs'}"

    @property
    def metrics(self) -> tuple[str, int] | None:
        """Host and port where the process answers Prometheus; None if it does not."""
        return None if self.metrics_address in (None, "off") else _host_and_port(self.metrics_address)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of web pages that may call the API."""
        return tuple(filter(None, self.cors_origins.split(",")))

    @cached_property
    def proxies(self) -> tuple[Network, ...]:
        """The networks of the trusted proxies."""
        return parse_networks(self.trusted_proxies)

    @property
    def valkey_socket(self) -> Path:
        """Where the embedded Valkey listens: in a folder that only its owner may enter."""
        return self.data / "valkey" / "valkey.sock"

    @property
    def labels(self) -> frozenset[str]:
        """The labels of this machine's workers."""
        return frozenset(filter(None, (part.strip() for part in self.worker_labels.split(","))))

    @property
    def bases(self) -> Path:
        """Where workers keep base models that are ready to load."""
        return self.data / "bases"

    @property
    def hub(self) -> Path:
        """Where `models add` puts what it fetches from the hub."""
        return self.data / "hub"

    @property
    def work(self) -> Path:
        """Where workers lay out the folders of running trainers."""
        return self.data / "work"

    def hmac_key(self) -> bytes:
        """Return the key for the HMAC of API keys. Raises SettingsError if a cluster has none."""
        if self.secret_key is not None:
            return self.secret_key.get_secret_value().encode()
        if self.database_url is not None:
            raise SettingsError(
                "BURNISH_SECRET_KEY is not set. With BURNISH_DATABASE_URL every process needs the same secret of "
                "at least 32 characters, for example from `openssl rand -hex 32`."
            )
        return _key_from_file(self.data / "secret.key")


def load_settings() -> Settings:
    """Read the environment. Raises SettingsError with one sentence a wrong variable."""
    try:
        return Settings.model_validate({})
    except ValidationError as error:
        problems = (
            f"{_setting_name(item['loc'])}{item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError("; ".join(problems)) from error


def _setting_name(location: tuple[int | str, ...]) -> str:
    name = "_".join(str(part) for part in location).upper()
    return f"{name if name.startswith('BURNISH_') else f'BURNISH_{name}'}: " if name else ""


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        raise ValueError("use host:port, such as 127.0.0.1:9464 or [::1]:9464, or `off`")
    return host, port


def _key_from_file(path: Path) -> bytes:
    """Read the key, or make it; two processes that start together agree, because a link is made only once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes()
