"""Client of Amazon Rekognition's CompareFaces by boto3, which reads keys and region from the environment."""

from typing import Any

from visor.core.errors import UserError
from visor.services.base import Comparison, ComparisonService, ImageRejected, MatchedFace

THRESHOLD = 80.0  # the service's own default
MAX_IMAGE_BYTES = 5 << 20
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # of PNG and JPEG, the only formats it reads
REJECTED = {"ImageTooLargeException", "InvalidImageFormatException", "InvalidS3ObjectException", "ValidationException"}
ADVICE = {
    "AccessDeniedException": "allow rekognition:CompareFaces to the key in the environment",
    "UnrecognizedClientException": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "InvalidSignatureException": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ExpiredTokenException": "renew AWS_SESSION_TOKEN",
    "ThrottlingException": "run again later, answers so far are cached",
    "ProvisionedThroughputExceededException": "run again later, answers so far are cached",
}


def connect(url: str | None) -> ComparisonService:
    """Return Rekognition in the environment's region or at ``url``; raises ``UserError`` without boto3 or a region."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UserError("boto3, the client of Rekognition, is missing; pip install 'visor[cloud]'") from None
    config = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60)
    try:
        return from_client(boto3.client("rekognition", endpoint_url=url, config=config))
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"rekognition cannot be reached ({error}); set AWS_DEFAULT_REGION and the keys") from None


def from_client(client: Any) -> ComparisonService:
    """Return the service behind a boto3 client."""
    from botocore.exceptions import BotoCoreError, ClientError

    def compare(source: bytes, target: bytes) -> Comparison:
        for image in (source, target):
            if not image.startswith(SIGNATURES):
                raise ImageRejected("neither PNG nor JPEG, the only formats that Rekognition reads")
            if len(image) > MAX_IMAGE_BYTES:
                raise ImageRejected(f"more than {MAX_IMAGE_BYTES >> 20} MiB, the maximum of Rekognition")
        images = {"SourceImage": {"Bytes": source}, "TargetImage": {"Bytes": target}}
        try:
            response = client.compare_faces(**images, SimilarityThreshold=0.0, QualityFilter="NONE")
        except ClientError as error:
            return _handle_error(error.response.get("Error", {}).get("Code", "no code"))
        except BotoCoreError as error:
            kind = type(error).__name__
            raise UserError(f"rekognition does not answer ({kind}); check the AWS_ variables and the network") from None
        return _comparison(response)

    return ComparisonService("rekognition", f"rekognition {client.meta.endpoint_url}", THRESHOLD, compare)


def _handle_error(code: str) -> Comparison:
    if code == "InvalidParameterException":  # reports that an image shows no face, but not which
        return Comparison(None, (), "either")
    if code in REJECTED:
        raise ImageRejected(f"Rekognition reports {code}")
    raise UserError(f"rekognition rejects the request ({code}); {ADVICE.get(code, 'see its documentation')}")


def _comparison(response: dict[str, Any]) -> Comparison:
    """Parse an answer of CompareFaces; its boxes are shares of the second image's sides, which it does not report."""
    similarities = [float(match["Similarity"]) for match in response.get("FaceMatches", [])]
    similarities += [0.0] * len(response.get("UnmatchedFaces", []))
    if not similarities:
        return Comparison(None, (), "target")
    return Comparison(max(similarities), tuple(MatchedFace(None, similarity) for similarity in similarities))
