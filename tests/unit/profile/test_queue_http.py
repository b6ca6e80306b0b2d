import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bluesky_plugins.profile.queue_http import MAX_BODY, FiniteDoor, server_environment
from bluesky_plugins.settings import ConfigurationError, Settings


async def echo(request):
    return PlainTextResponse(await request.body())


async def post(body: bytes, content_type: str = "application/json"):
    import httpx

    app = FiniteDoor(Starlette(routes=[Route("/", echo, methods=["POST"])]))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://door"
    ) as client:
        return await client.post("/", content=body, headers={"content-type": content_type})


@pytest.mark.asyncio
async def test_body_that_is_fine_arrives_unchanged():
    assert (await post(b'{"a": [1, 2.5]}')).content == b'{"a": [1, 2.5]}'


@pytest.mark.asyncio
async def test_number_that_is_not_finite_is_answered_with_the_reason():
    answer = await post(b'{"a": NaN}')
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "a is nan; only finite numbers are taken",
    )


@pytest.mark.asyncio
async def test_uploaded_file_is_not_taken_for_json():
    assert (await post(b"[NaN]", "multipart/form-data; boundary=x")).status_code == 200


@pytest.mark.asyncio
async def test_body_without_end_is_refused():
    assert (await post(b" " * (MAX_BODY + 1))).status_code == 413


def test_server_without_a_key_does_not_start():
    with pytest.raises(ConfigurationError, match="api_key"):
        server_environment(Settings())


def test_key_that_the_server_would_not_take_is_refused_without_showing_it():
    with pytest.raises(ConfigurationError, match="letters and digits") as error:
        server_environment(Settings(http={"api_key": "not-a-good-key"}))
    assert "not-a-good-key" not in str(error.value)
