"""Search: by words, by meaning, by both, and messages like one that is known."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import Provide
from litestar.params import Parameter
from psycopg import AsyncConnection

from adapters.embeddings import Embedders
from adapters.postgres import ReadPool
from api.common import WaitFor, until_reached
from api.filters import NO_FILTERS, Filters, search_filters
from api.fusion import Hit, Way, fused
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from domain.masking import mask
from sql import queries

_SEARCH: Final = queries("search", "apsycopg")
_FILTERS: Final = {"filters": Provide(search_filters, sync_to_thread=False)}

#: Hits that each way contributes to the fusion at least, and three for each that is asked for. Beyond 200 the search
#: by meaning would compare every vector.
_DEPTH: Final = 60
_DEPTH_MAX: Final = 200
#: The least cosine of a hit by meaning, unless another is asked for. Chosen for the offline embedder, on the
#: tuning half of benchmarks/quality: of two texts that mean the same, four in five are nearer.
THRESHOLD: Final = 0.2
#: How often a search begins again because the tenant's model changed under it.
_TRIES: Final = 3
_NO_MODEL: Final = (
    "the model that this tenant's messages were embedded with is not part of this installation, so they can't be "
    "searched by meaning until `evosense reembed` has moved them to another; mode=text finds them by their words"
)

Mode = Literal["hybrid", "semantic", "text"]
Words = Annotated[
    str,
    Parameter(
        min_length=1,
        max_length=2000,
        description='what to look for; by words: all of them, "a phrase", -without, this OR that',
    ),
]
HowMany = Annotated[int, Parameter(ge=1, le=100, required=False)]
Threshold = Annotated[
    float,
    Parameter(
        ge=-1,
        le=1,
        required=False,
        description="the least cosine of a hit by meaning; the default suits the offline embedder",
    ),
]


@get("/search", dependencies=_FILTERS, conflicts=True)
async def search(
    services: Services,
    principal: Principal,
    filters: Filters,
    q: Words,
    mode: Annotated[
        Mode, Parameter(required=False, description="hybrid: by words and by meaning; semantic; text")
    ] = "hybrid",
    limit: HowMany = 20,
    threshold: Threshold = THRESHOLD,
    wait_for: WaitFor = None,
) -> list[Hit]:
    """Messages that say or mean what `q` says, best first. docs/search.md explains modes, syntax and scores."""
    # What no text can have and PostgreSQL does not take.
    words = mask(q.replace("\0", " "))
    if not words.strip():
        raise ProblemError(400, "query.q: it is empty: say what to look for")
    await until_reached(services, wait_for)
    try:
        return await find(
            services.reads,
            services.embedders,
            principal.tenant_id,
            words,
            mode=mode,
            limit=limit,
            threshold=threshold,
            filters=filters,
        )
    except ModelMissing:
        raise ProblemError(409, _NO_MODEL) from None


class ModelMissing(Exception):
    """The tenant's vectors are of a model that is not part of this installation."""


async def find(
    reads: ReadPool,
    embedders: Embedders,
    tenant_id: UUID,
    words: str,
    *,
    mode: Mode = "hybrid",
    limit: int = 20,
    threshold: float = THRESHOLD,
    filters: Filters = NO_FILTERS,
) -> list[Hit]:
    """The best `limit` messages of a tenant. `words` are masked, and not blank.

    Raises `ModelMissing` where nothing but the meaning was asked for and there is no model to compare it by.
    """
    depth = min(_DEPTH_MAX, max(_DEPTH, 3 * limit)) if mode == "hybrid" else limit
    found: dict[Way, list[Any]] = {}
    if mode != "semantic":
        async with reads.as_tenant(tenant_id) as conn:
            rows = _SEARCH.by_words(conn, words=words, depth=depth, **msgspec.structs.asdict(filters))
            found["text"] = [row async for row in rows]
    if mode != "text":
        meaning = await _meaning_of(reads, embedders, tenant_id, words, depth, threshold, filters)
        if meaning is None and mode == "semantic":
            raise ModelMissing
        found["meaning"] = meaning or []
    return fused(found, limit)


@get("/messages/{identifier:int}/similar", dependencies=_FILTERS, conflicts=True)
async def similar(
    identifier: int,
    services: Services,
    principal: Principal,
    filters: Filters,
    limit: HowMany = 20,
    threshold: Threshold = THRESHOLD,
    wait_for: WaitFor = None,
) -> list[Hit]:
    """Other messages that mean nearly what this one means, best first."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _SEARCH.vector_of(conn, id=identifier)
        if row is None:
            raise ProblemError(404, f"there is no message {identifier}")
        if row["vector"] is None:
            raise ProblemError(409, f"message {identifier} has no vector yet: try again when it has been analysed")
        found = await _by_meaning(
            conn, principal.tenant_id, row["vector"], row["model"], limit, threshold, filters, without=identifier
        )
    return fused({"meaning": found}, limit)


async def _meaning_of(
    reads: ReadPool,
    embedders: Embedders,
    tenant_id: UUID,
    words: str,
    depth: int,
    threshold: float,
    filters: Filters,
) -> list[Any] | None:
    """Hits by meaning, compared by the model that answers for the tenant; None where it is not here."""
    async with reads.as_tenant(tenant_id) as conn:
        model = await _model_of(conn, tenant_id)
    for _ in range(_TRIES):
        embedder = embedders.default if model is None else embedders.get(model)
        if embedder is None:
            return None
        vector = _as_text((await embedder.embed([words]))[0])
        async with reads.as_tenant(tenant_id) as conn:
            found = await _by_meaning(conn, tenant_id, vector, embedder.model_name, depth, threshold, filters)
            # Where another model was adopted meanwhile, the vectors of this one may be gone.
            if (now := await _model_of(conn, tenant_id)) in (model, embedder.model_name):
                break
            model = now
    return found


async def _model_of(conn: AsyncConnection[Any], tenant_id: UUID) -> str | None:
    row = await _SEARCH.model_of(conn, tenant_id=tenant_id)
    model: str | None = row["model"]
    return model


async def _by_meaning(
    conn: AsyncConnection[Any],
    tenant_id: UUID,
    vector: str,
    model: str,
    depth: int,
    threshold: float,
    filters: Filters,
    without: int | None = None,
) -> list[Any]:
    rows = _SEARCH.by_meaning(
        conn,
        tenant_id=tenant_id,
        vector=vector,
        model=model,
        depth=depth,
        threshold=threshold,
        without=without,
        **msgspec.structs.asdict(filters),
    )
    return [row async for row in rows]


def _as_text(vector: bytes) -> str:
    floats = memoryview(vector).cast("f")
    return f"[{','.join(map(repr, floats))}]"


HANDLERS: list[Any] = [search, similar]
