"""The three routes of the first queue servers, as a custom router of bluesky-httpserver."""

from __future__ import annotations

from typing import Annotated, Any

from bluesky_httpserver.authentication import get_current_principal
from bluesky_httpserver.resources import SERVER_RESOURCES
from bluesky_httpserver.routers.core_api import queue_item_add_handler
from bluesky_httpserver.settings import get_settings
from bluesky_httpserver.utils import (
    get_api_access_manager,
    get_resource_access_manager,
    process_exception,
)
from fastapi import APIRouter, Depends, Security
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["router"]

router = APIRouter(prefix="/qs", tags=["old routes"])

OPEN_SECONDS = 60.0


class OldPlan(BaseModel):
    """A plan as it was written then."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="name of the plan")
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)


class AddToQueue(BaseModel):
    """Body of `/qs/add_to_queue`."""

    model_config = ConfigDict(extra="forbid")

    plan: OldPlan


def _scope(name: str) -> Any:
    return Security(get_current_principal, scopes=[name])


@router.post("/create_environment")
async def create_environment(principal: Annotated[Any, _scope("write:manager:control")]) -> Any:
    """Open the worker's environment, and answer when plans can be run in it."""
    manager = SERVER_RESOURCES.RM
    try:
        answer = await manager.environment_open()
        if answer["success"]:
            await manager.wait_for_idle(timeout=OPEN_SECONDS)
    except Exception:  # noqa: BLE001 - becomes the same HTTP error as in the server's own routes
        process_exception()
    return answer


@router.post("/add_to_queue")
async def add_to_queue(
    body: AddToQueue,
    principal: Annotated[Any, _scope("write:queue:edit")],
    settings: Annotated[Any, Depends(get_settings)],
    api_access: Annotated[Any, Depends(get_api_access_manager)],
    resource_access: Annotated[Any, Depends(get_resource_access_manager)],
) -> Any:
    """Add a plan at the end of the queue."""
    item = {"item_type": "plan", **body.plan.model_dump()}
    return await queue_item_add_handler(
        payload={"item": item},
        principal=principal,
        settings=settings,
        api_access_manager=api_access,
        resource_access_manager=resource_access,
    )


@router.post("/process_queue")
async def process_queue(principal: Annotated[Any, _scope("write:queue:control")]) -> Any:
    """Start what is in the queue."""
    try:
        return await SERVER_RESOURCES.RM.queue_start()
    except Exception:  # noqa: BLE001 - becomes the same HTTP error as in the server's own routes
        process_exception()
