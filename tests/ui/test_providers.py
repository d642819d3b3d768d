"""Links to the OpenID Connect providers in Streamlit's secrets."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit import auth_util, config, user_info

from core.ui.account import providers
from core.ui.account.providers import SecretsProviders


@pytest.mark.parametrize("prefix", ["", "paddock", "/a/b/"])
def test_provider_link_works_below_a_prefix(monkeypatch: pytest.MonkeyPatch, prefix: str):
    real = config.get_option

    def option(name: str) -> Any:
        return prefix if name == "server.baseUrlPath" else real(name)

    monkeypatch.setattr(config, "get_option", option)
    monkeypatch.setattr(user_info, "encode_provider_token", lambda name: f"token-of-{name}")
    monkeypatch.setattr(auth_util, "validate_auth_credentials", lambda name: None)
    monkeypatch.setattr(providers, "_names", lambda: ["default"])
    [(address, _)] = SecretsProviders().links()
    assert address == "auth/login?provider=token-of-default"
