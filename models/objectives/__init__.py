"""Objectives: how a backbone becomes a language model, a classifier or a generator."""
