"""What a message of the crawl queue sets going."""

from __future__ import annotations

from chalicelib.crawl.context import Context
from chalicelib.crawl.directories import read_directory
from chalicelib.crawl.host_job import crawl_host
from chalicelib.crawl.orders import RETRY_SECONDS, Busy, Refused, carry_out
from chalicelib.crawl.queue import DirectoryJob, HostJob, Order, from_body
from chalicelib.crawl.repo_job import Deadline, sync_repo


def work(context: Context, body: str) -> None:
    """Do the job in a message. Raises only for our own faults, which the queue then brings back."""
    job = from_body(body)
    if isinstance(job, Order):
        try:
            carry_out(context, job)
        except Refused:
            pass  # which the audit log tells
        except Busy:
            context.queue.order(job, delay_seconds=RETRY_SECONDS)
    elif isinstance(job, HostJob):
        crawl_host(context, job.origin, refresh=job.refresh)
    elif isinstance(job, DirectoryJob):
        read_directory(context, job.origin)
    else:
        sync_repo(context, job.did, deadline=Deadline(context.settings.job_seconds))
