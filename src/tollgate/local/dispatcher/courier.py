"""Carries one event to its destination as the delivery spec says: attempts, back-off, reply, dead letter.

In: an event from `pump`. Out: `carry` returns when the event is durable elsewhere: the subscriber took it and its
reply is in the Broker, or it is in the dead-letter sink with the reason. It never gives up on Kafka itself.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import msgspec

from tollgate.errors import Reason, Rejected, Retryable
from tollgate.events import CloudEvent, from_http, is_event, to_http
from tollgate.local.dispatcher.delivery import Delivery, Verdict, retry_after, verdict
from tollgate.local.dispatcher.manifests import Destination, Service, Topic
from tollgate.local.dispatcher.metrics import DEAD_LETTERS, RETRIES
from tollgate.local.dispatcher.writer import Writer

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 1024 * 1024
_ERROR_BYTES = 1024
_NO_ANSWER = 500  # what Knative writes into knativeerrorcode when there was no HTTP status
_REASONS = frozenset(Reason)


@dataclass(slots=True)
class Answer:
    """What a destination said: a status, up to some of its body, perhaps a reply event."""

    status: int
    body: bytes = b""
    retry_after: float | None = None
    reply: CloudEvent | None = None


@dataclass(slots=True)
class Courier:
    """One KafkaSource's or Trigger's way out. `slots` bounds the requests in flight (waiting for a retry is free)."""

    name: str
    destination: Destination
    delivery: Delivery
    dead_letter: Destination
    reply_to: Topic | None
    writer: Writer
    http: aiohttp.ClientSession
    slots: asyncio.Semaphore
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def carry(self, event: CloudEvent, where: str) -> str:
        """Deliver `event` (read at `where`, for the log); answers the result: delivered, replied, dead_letter."""
        for attempt in range(self.delivery.retry + 1):
            if attempt:
                RETRIES.labels(self.name).inc()
            answer = await self._send(self.destination, event)
            outcome = verdict(answer.status)
            if outcome is Verdict.DELIVERED:
                if answer.reply is None or self.reply_to is None:
                    return "delivered"
                answer = await self._send(self.reply_to, answer.reply)
                if verdict(answer.status) is Verdict.DELIVERED:
                    return "replied"
                break
            if outcome is Verdict.HOPELESS:
                break
            if attempt < self.delivery.retry:
                await self.sleep(self.delivery.wait(attempt, answer.retry_after))
        await self._bury(event, answer, where)
        return "dead_letter"

    async def _send(self, destination: Destination, event: CloudEvent) -> Answer:
        if isinstance(destination, Service):
            return await self._post(destination.url, event)
        return await self._write(destination, event)

    async def _write(self, topic: Topic, event: CloudEvent) -> Answer:
        """Write to Kafka, as long as it takes: the event came from there, it can wait there too."""
        if len(event.data) > MAX_EVENT_BYTES:
            return _refusal(
                413, Reason.OVERSIZE, f"the data is {len(event.data)} bytes, the Broker takes {MAX_EVENT_BYTES}"
            )
        return await self._write_any(topic, event)

    async def _write_any(self, topic: Topic, event: CloudEvent) -> Answer:
        attempt = 0
        while True:
            try:
                await self.writer.put(topic, event)
                return Answer(202)
            except Rejected as rejected:
                return _refusal(413, rejected.reason, rejected.detail)
            except Retryable as trouble:
                log.warning("%s: topic %s: %s", self.name, topic.name, trouble)
                await self.sleep(min(5.0, self.delivery.wait(attempt)))
                attempt += 1

    async def _post(self, url: str, event: CloudEvent) -> Answer:
        headers, body = to_http(event)
        try:
            async with (
                self.slots,
                asyncio.timeout(self.delivery.timeout),
                self.http.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                content = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Answer(_NO_ANSWER, f"no answer: {type(error).__name__}".encode())
        except ValueError:  # an attribute that no HTTP header can hold, written to the topic by somebody else
            return _refusal(400, Reason.INVALID_FIELD, "the event cannot be sent over HTTP")
        answer = Answer(response.status, content)
        if verdict(response.status) is not Verdict.DELIVERED:
            answer.retry_after = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            return answer
        if not content and "ce-specversion" not in response.headers:
            return answer
        try:
            lower = {name.lower(): value for name, value in response.headers.items()}
            if not is_event(lower):
                raise Rejected(Reason.INVALID_FIELD, "the subscriber answered a body that is no CloudEvent")
            answer.reply = from_http(lower, content)
        except Rejected as rejected:
            return _refusal(422, rejected.reason, f"reply refused: {rejected.detail}")
        return answer

    async def _bury(self, event: CloudEvent, answer: Answer, where: str) -> None:
        """Write the event with Knative's error attributes to the dead-letter sink, until that succeeds."""
        target = self.destination.url if isinstance(self.destination, Service) else f"kafka:{self.destination.name}"
        reason = _reason(answer)
        letter = event.with_extensions(
            {
                "knativeerrordest": target,
                "knativeerrorcode": str(answer.status),
                "knativeerrordata": base64.b64encode(answer.body[:_ERROR_BYTES]).decode(),
            }
        )
        log.warning("%s: %s goes to the dead letter: status %d, %s", self.name, where, answer.status, reason)
        attempt = 0
        while True:
            if isinstance(self.dead_letter, Topic):
                refused = await self._write_any(self.dead_letter, letter)
            else:
                refused = await self._post(self.dead_letter.url, letter)
            if verdict(refused.status) is Verdict.DELIVERED:
                break
            if letter.data and refused.status == 413:  # too large even there: keep its attributes, id and offset
                letter = msgspec.structs.replace(letter, data=b"")
                continue
            log.error("%s: %s: the dead-letter sink answered %d", self.name, where, refused.status)
            await self.sleep(min(5.0, self.delivery.wait(attempt)))
            attempt += 1
        DEAD_LETTERS.labels(reason).inc()


def _refusal(status: int, reason: Reason, detail: str) -> Answer:
    return Answer(status, msgspec.json.encode({"reason": reason, "detail": detail}))


def _reason(answer: Answer) -> Reason:
    """The reason from the closed list: what the subscriber's body says, else what the status tells."""
    if verdict(answer.status) is Verdict.RETRY:
        return Reason.EXHAUSTED
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Reason.INVALID_FIELD
    told = said.get("reason") if isinstance(said, dict) else None
    return Reason(told) if told in _REASONS else Reason.INVALID_FIELD
