"""Fused CPU kernels, compiled by numba (optional): custom operators of torch, and single steps.

Each stands beside a plain torch form of models/backbones, which is its reference and what runs
where numba is not installed.
"""
