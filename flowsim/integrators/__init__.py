"""Integrators: each module has `integrate(flow, weights, t_final, ...) -> Path`; `flowsim.solve` chooses one by name.

runge_kutta     torchdiffeq's adaptive Runge-Kutta methods, for networks of any depth
"""
