"""Files to tensors; `datasets/build.py` composes them from the configuration."""

from datasets.build import (
    Protocol,
    TestData,
    TrainData,
    build_splits,
    build_test,
    build_train,
    evaluated,
    identities,
    image_folder,
)

__all__ = [
    "Protocol",
    "TestData",
    "TrainData",
    "build_splits",
    "build_test",
    "build_train",
    "evaluated",
    "identities",
    "image_folder",
]
