"""Client of Amazon Rekognition's CompareFaces, by boto3, which finds keys and region in the environment."""

from typing import Any

from visor.core.errors import UserError
from visor.services.base import Comparison, ComparisonService, ImageRejected, MatchedFace

THRESHOLD = 80.0  # the service's own default
MAX_IMAGE_BYTES = 5 << 20
STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # of PNG and JPEG, all that it reads
REFUSED = {"ImageTooLargeException", "InvalidImageFormatException", "InvalidS3ObjectException", "ValidationException"}
ADVICE = {
    "AccessDeniedException": "allow rekognition:CompareFaces to the key in the environment",
    "UnrecognizedClientException": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "InvalidSignatureException": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ExpiredTokenException": "renew AWS_SESSION_TOKEN",
    "ThrottlingException": "run again later: what it answered is remembered",
    "ProvisionedThroughputExceededException": "run again later: what it answered is remembered",
}


def connect(url: str | None) -> ComparisonService:
    """Return Rekognition in the region that the environment names, or at another endpoint ``url``.

    Raises:
        UserError: boto3 is not installed, or there is no region.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UserError("boto3 is missing, which speaks to Rekognition; pip install 'visor[cloud]'") from None
    patient = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60)
    try:
        client = boto3.client("rekognition", endpoint_url=url, config=patient)
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"rekognition cannot be reached ({error}); set AWS_DEFAULT_REGION and the keys") from None
    return of_client(client)


def of_client(client: Any) -> ComparisonService:
    """Return the service that a boto3 client speaks to."""
    from botocore.exceptions import BotoCoreError, ClientError

    def compare(one: bytes, other: bytes) -> Comparison:
        for image in (one, other):
            _require_readable(image)
        try:
            found = client.compare_faces(
                SourceImage={"Bytes": one}, TargetImage={"Bytes": other}, SimilarityThreshold=0.0, QualityFilter="NONE"
            )
        except ClientError as error:
            return _of_error(error.response.get("Error", {}).get("Code", "no code"))
        except BotoCoreError as error:
            raise UserError(
                f"rekognition does not answer ({type(error).__name__}); check the AWS_ variables and the network"
            ) from None
        return _answer(found)

    return ComparisonService("rekognition", f"rekognition {client.meta.endpoint_url}", THRESHOLD, compare)


def _require_readable(image: bytes) -> None:
    if not image.startswith(STARTS):
        raise ImageRejected("neither PNG nor JPEG, all that Rekognition reads")
    if len(image) > MAX_IMAGE_BYTES:
        raise ImageRejected(f"more than {MAX_IMAGE_BYTES >> 20} MiB, the most that Rekognition takes")


def _of_error(code: str) -> Comparison:
    if code == "InvalidParameterException":  # this is how it says that there is no face; not, in which picture
        return Comparison(None, (), "either")
    if code in REFUSED:
        raise ImageRejected(f"Rekognition says {code}")
    raise UserError(f"rekognition refuses ({code}); {ADVICE.get(code, 'see its documentation')}")


def _answer(found: dict[str, Any]) -> Comparison:
    """Return what CompareFaces says; its boxes are shares of the second picture's sides, which it does not tell."""
    likest = [float(match["Similarity"]) for match in found.get("FaceMatches", [])]
    unlike = len(found.get("UnmatchedFaces", []))
    if not likest and not unlike:
        return Comparison(None, (), "target")
    faces = (*(MatchedFace(None, similarity) for similarity in likest), *[MatchedFace(None, 0.0)] * unlike)
    return Comparison(max(likest, default=0.0), faces)
