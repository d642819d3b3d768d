"""Test sets: cases with checks, run on several models, scored and compared with an earlier run."""
