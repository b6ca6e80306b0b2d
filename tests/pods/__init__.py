"""Tests in the pods. A package, so that the pods go down when its last test is over."""
