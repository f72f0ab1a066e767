"""Data that people bring: preference records and questions, rows, pictures."""

from perpo.data.checks import check_images, data_sha256, image_root_of
from perpo.data.preferences import (
    PreferenceRecord,
    Question,
    check_identity,
    read_preferences,
    read_questions,
    to_json,
    write_jsonl,
)

__all__ = [
    "PreferenceRecord",
    "Question",
    "check_identity",
    "check_images",
    "data_sha256",
    "image_root_of",
    "read_preferences",
    "read_questions",
    "to_json",
    "write_jsonl",
]
