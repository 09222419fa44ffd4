"""The way to the model server: V2 over HTTP, kept-alive connections, one attempt, a time limit.

In: a transaction, or its features. Out: `Scored`, reasons. 400 means the server finds the input invalid (`Rejected`);
anything else that is not 200, no connection or no answer in time is `Retryable`: Knative delivers again.
"""

from __future__ import annotations

import aiohttp
from yarl import URL

from tollgate import v2
from tollgate.decision import Contribution
from tollgate.errors import Reason, Rejected, Retryable
from tollgate.settings import Settings
from tollgate.transaction import Transaction


class ModelClient:
    """Made inside the running event loop. `headers` given to the calls carry ce-id (the sticky canary split and
    KServe's logger go by it) and the trace."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_ms = settings.model_timeout_ms
        self._fraud = URL(f"{settings.model_url}/v2/models/{settings.model_name}/infer")
        self._features = URL(f"{settings.model_url}/v2/models/{settings.model_name}-features/infer")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=settings.model_timeout_ms / 1000),
            headers={"content-type": "application/json"},
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def score(self, transaction: Transaction, headers: dict[str, str]) -> v2.Scored:
        """Probability and features of one transaction."""
        body = await self._post(self._fraud, v2.transactions_request([transaction]), headers)
        return v2.read_scores(body, 1)[0]

    async def reasons(self, features: list[float], headers: dict[str, str]) -> list[Contribution]:
        """What moved the score of one feature row, in the server's order."""
        body = await self._post(self._features, v2.reasons_request([features]), headers)
        return v2.read_reasons(body, 1)[0]

    async def close(self) -> None:
        """Let the connections go."""
        await self._session.close()

    async def _post(self, url: URL, body: bytes, headers: dict[str, str]) -> bytes:
        try:
            try:
                status, answer = await self._attempt(url, body, headers)
            except aiohttp.ServerDisconnectedError:
                # An idle connection that the server closed just now. Scoring changes nothing: ask on another.
                status, answer = await self._attempt(url, body, headers)
        except TimeoutError:
            raise Retryable(f"the model server did not answer within {self._timeout_ms} ms") from None
        except aiohttp.ClientError as error:
            raise Retryable(f"the model server is away: {type(error).__name__}") from None
        if status == 200:
            return answer
        said = v2.read_error(answer)
        if status == 400:
            raise Rejected(Reason.INVALID_FIELD, f"the model server refused it: {said or 'no reason given'}")
        raise Retryable(f"the model server answered {status}{f': {said}' if said else ''}")

    async def _attempt(self, url: URL, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        async with self._session.post(url, data=body, headers=headers) as response:
            return response.status, await response.read()
