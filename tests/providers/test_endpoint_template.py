from __future__ import annotations

import pytest

from tornado_proxy.providers.endpoint_template import fold_ids


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/responses/resp_1", "/v1/responses/{id}"),
        ("/v1/responses/resp_1/cancel", "/v1/responses/{id}/cancel"),
        ("/v1/responses/compact", "/v1/responses/compact"),
        ("/v1/messages/batches/msgbatch_1/results", "/v1/messages/batches/{id}/results"),
        ("/v1/messages/batches", "/v1/messages/batches"),
        ("/v1/models/gpt-5.4", "/v1/models/{id}"),
        ("/v1/unknown/a/b", "/v1/unknown/a/b"),
        ("", ""),
    ],
)
def test_id_in_a_path_is_folded_into_the_endpoint(path: str, template: str) -> None:
    assert fold_ids(path) == template
