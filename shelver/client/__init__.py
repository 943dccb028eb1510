"""The typed HTTP client of the service: `Client`, and `AsyncClient` with the same methods.

::

    from shelver.client import Client

    with Client("http://127.0.0.1:8000", email="ann@example.org", password="four words are enough") as shelver:
        answer = shelver.predict(title="Folding deck chair, beech")
        print(answer.path, answer.confidence)
        shelver.give_feedback(answer.prediction_id, "accept")

Machines give `api_key=` in place of both. A token that has expired is renewed; a request that was refused for the
moment, or got lost, is made again where that is safe, and no answer is waited for longer than `timeout_s`.

call.py           one request, and how its answer is read
accounts.py, answers.py, records.py, reviewing.py, configuration.py
                  what each operation sends, and what its answer is: the service's own payloads
pictures.py       a picture as a path, an address or bytes
errors.py         what is raised: `ApiError` where the service refused, `NoAnswerError` where none answered
exchange.py       one call from its first attempt to its answer, as steps that a client carries out
following.py      the events of a job over connections that may break
clients.py        the two clients
"""

from shelver.client.answers import product, vectors
from shelver.client.clients import AsyncClient, Client
from shelver.client.errors import (
    ApiError,
    ChangedError,
    InvalidError,
    NoAnswerError,
    NotAllowedError,
    NotFoundError,
    NotSignedInError,
    UnavailableError,
)
from shelver.client.following import JobEvent
from shelver.decide import Policy
from shelver.errors import InputError
from shelver.service.answers.payloads import ProbabilitiesRow, ProductIn
from shelver.service.jobs.payloads import (
    EvaluateParams,
    ImportParams,
    JobIn,
    MappingIn,
    PredictParams,
    ResetDemoParams,
    TrainParams,
)
from shelver.service.products.payloads import PictureIn, ProductBody
from shelver.service.reviews.payloads import Verdict

__all__ = [
    "ApiError",
    "AsyncClient",
    "ChangedError",
    "Client",
    "EvaluateParams",
    "ImportParams",
    "InputError",
    "InvalidError",
    "JobEvent",
    "JobIn",
    "MappingIn",
    "NoAnswerError",
    "NotAllowedError",
    "NotFoundError",
    "NotSignedInError",
    "PictureIn",
    "Policy",
    "PredictParams",
    "ProbabilitiesRow",
    "ProductBody",
    "ProductIn",
    "ResetDemoParams",
    "TrainParams",
    "UnavailableError",
    "Verdict",
    "product",
    "vectors",
]
