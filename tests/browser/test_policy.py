"""What browsers are told to allow is enough for the page and for /docs; the ``page`` fixture fails on a complaint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

Watch = Callable[..., Any]


def test_page_and_docs_need_nothing_that_is_not_allowed(watch: Watch, page: Page) -> None:
    with watch("synthetic:640x360@15") as app:
        page.goto(app.url)
        expect(page.locator(".tile .state")).to_have_text("Live")
        page.goto(f"{app.url}/docs")
        operation = page.locator("#operations-default-cameras_api_cameras_get")
        operation.locator("button").first.click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        expect(
            operation.locator(".live-responses-table td.response-col_status:not(.col_header)")
        ).to_contain_text("200")
