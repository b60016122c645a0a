"""Admits requests, upgrades and frames: models, prices, objects, capacity, stops."""
