"""A second, slow and simple implementation of the flow, and runs of it that the integrators must reproduce."""
