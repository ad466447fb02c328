"""``python -m tests.infra.aws PORT``: AWS in a process, as moto makes it, to deploy into.

moto's REST APIs understand OpenAPI 3 only; what Chalice sends is Swagger 2.0 without a description, and its preflight
integrations have no URI. The document is put into that form before moto reads it, here, on the server's side. Its domain names
cannot be updated, and those of REST APIs are unknown to the newer API, by which Chalice looks for them and deletes them. And moto
deletes a stack's network in an order that it then refuses.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from typing import Any

from moto.apigateway.models import APIGatewayBackend, apigateway_backends
from moto.apigateway.responses import APIGatewayResponse
from moto.apigatewayv2.models import ApiGatewayV2Backend, ApiMapping
from moto.apigatewayv2.responses import ApiGatewayV2Response
from moto.apigatewayv2.urls import url_paths
from moto.ec2.exceptions import DependencyViolationError
from moto.ec2.models import EC2Backend
from moto.server import ThreadedMotoServer

_import, _put = APIGatewayBackend.import_rest_api, APIGatewayBackend.put_rest_api


def _understood(document: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in document.items() if name != "swagger"}
    for methods in rest["paths"].values():
        for method in methods.values():
            if isinstance(method, dict) and "x-amazon-apigateway-integration" in method:
                method["x-amazon-apigateway-integration"].setdefault("uri", "")
    return {"openapi": "3.0.0", **rest, "info": {"description": "", **rest["info"]}}


def _import_rest_api(self: APIGatewayBackend, api_doc: dict[str, Any], fail_on_warnings: bool) -> Any:
    return _import(self, _understood(api_doc), False)


def _put_rest_api(self: APIGatewayBackend, function_id: str, api_doc: dict[str, Any], *rest: Any, **more: Any) -> Any:
    return _put(self, function_id, _understood(api_doc), *rest, **more)


APIGatewayBackend.import_rest_api = _import_rest_api  # type: ignore[method-assign]
APIGatewayBackend.put_rest_api = _put_rest_api  # type: ignore[method-assign]


def _update_domain_name(self: APIGatewayResponse) -> Any:
    domain = self.backend.get_domain_name(self.path.rpartition("/")[2])
    for operation in json.loads(self.body)["patchOperations"]:
        name = re.sub("([A-Z])", r"_\1", operation["path"][1:]).lower()
        assert hasattr(domain, name)
        setattr(domain, name, operation["value"])
    return json.dumps(domain.to_json())


def _of_rest_apis(backend: ApiGatewayV2Backend) -> APIGatewayBackend:
    return apigateway_backends[backend.account_id][backend.region_name]


def _get_api_mappings(self: ApiGatewayV2Backend, domain_name: str) -> list[Any]:
    return [
        ApiMapping(mapping.rest_api_id, mapping.base_path.replace("(none)", ""), "1", domain_name, mapping.stage)
        for mapping in _of_rest_apis(self).get_base_path_mappings(domain_name)
    ]


def _delete_domain_name(self: ApiGatewayV2Backend, domain_name: str) -> None:
    _of_rest_apis(self).delete_domain_name(domain_name)


APIGatewayResponse.update_domain_name = _update_domain_name  # type: ignore[attr-defined]
ApiGatewayV2Backend.get_api_mappings = _get_api_mappings  # type: ignore[method-assign]
ApiGatewayV2Backend.delete_domain_name = _delete_domain_name  # type: ignore[method-assign]
url_paths["{0}/v2/tags/(?P<resource_arn>.+)/domainnames/(?P<name>[^/]+)$"] = ApiGatewayV2Response.dispatch
_delete_vpc = EC2Backend.delete_vpc


def _delete_vpc_whatever_depends(self: EC2Backend, vpc_id: str) -> Any:
    with suppress(DependencyViolationError):
        return _delete_vpc(self, vpc_id)
    return self.vpcs.pop(vpc_id)


EC2Backend.delete_vpc = _delete_vpc_whatever_depends  # type: ignore[method-assign]


if __name__ == "__main__":
    server = ThreadedMotoServer(port=int(sys.argv[1]), verbose=False)
    server.start()
    server._thread.join()  # type: ignore[union-attr]
