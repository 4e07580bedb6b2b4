"""A local S3 server (moto's) for tests of everything that a store on S3 must do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "tapir-test"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3 on loopback and point the environment's credentials at it; a fresh bucket's URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        try:
            yield f"s3://{BUCKET}/store"
        finally:
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            server.stop()
