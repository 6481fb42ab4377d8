"""A second, slow and simple integrator of the flow, to compare with: scipy's DOP853 in each mode, brentq, BVLS.

It shares no code with flowsim. Generic starts only (no repeated inputs, no start on a kink).

    f_i = sum_j v_j phi(w_j.x_i),   dv_j = sum_i q_i phi(z_ij),   dw_j = sum_i p_ij x_i,
    p_ij = E_ij (z_ij > 0), gamma E_ij (z_ij < 0), between the two on a kink;  E_ij = q_i b_j.

The MODE of the flow is an n x m integer array s: +1 active, -1 inactive, 0 sliding (z_ij held at 0).
In a mode the flow is a smooth ODE.  It is integrated to the first event, the mode is changed, and so on.

An event is a change from + to - of one entry of the "guard" vector h (see Flow.guards):
    s_ij z_ij                        for a sample that does not slide   -> 'crossing' or 'entry'
    p_ij - E_ij, gamma E_ij - p_ij   for a sample that slides           -> 'exit' (to active / inactive)
    sgn_j v_j                        sign-FA                            -> 'sign'
    sgn_j v_j                        GD, neuron j slides                -> NotImplementedError
Guards switched off just after an event ("unarmed": z is 0 up to rounding then) are armed again
once they exceed ARM.
"""

import itertools
from functools import partial

import numpy as np
from scipy.integrate import DOP853, solve_ivp
from scipy.optimize import lsq_linear, root_scalar

ARM = 1e-12  # an unarmed guard is armed once it is larger than this
WRONG = 1e-9  # an unarmed guard below -WRONG means that the chosen mode was wrong
END = 1e-9  # p closer than END * (interval length) to an end counts as at that end


def residual_weights(f, y, loss):
    n = len(y)
    if loss == "exponential":
        return np.exp(-y * f) * y / n
    if loss == "logistic":
        return y / (1.0 + np.exp(y * f)) / n
    if loss == "squared":
        return (y - f) / n
    raise ValueError(loss)


def box_least_norm(r, XA, lo, hi):
    """p minimising |r + XA^T p| with lo <= p <= hi, and its class: +1 at lo, -1 at hi, 0 inside."""
    p = lsq_linear(XA.T, -r, bounds=(lo, hi), method="bvls", tol=1e-15, max_iter=1000).x
    kind = np.where(p - lo <= END * (hi - lo), 1, np.where(hi - p <= END * (hi - lo), -1, 0))
    g = XA @ (r + XA.T @ p)  # dz/dt of the samples of A: check KKT
    tol = 1e-8 * (np.linalg.norm(r) + np.abs(lo).sum()) * np.linalg.norm(XA)
    assert np.all(g[kind == 1] > -tol) and np.all(g[kind == -1] < tol) and np.all(abs(g[kind == 0]) < tol)
    return p, kind


def first_root(g, ta, tb):
    """Root of g in [ta, tb], g(tb) < 0.

    Neurons with equal columns of the mode leave a kink at the same time, so g(ta) may already be 0 up to rounding.
    """
    ga = g(ta)
    assert ga > -WRONG
    return ta if ga <= 0 else float(root_scalar(g, bracket=(ta, tb), method="brentq", xtol=1e-15, rtol=1e-15).root)


class Flow:
    def __init__(self, X, y, W0, v0, rule, b, gamma, loss):
        self.X, self.y, self.gamma, self.rule, self.loss = X, y, gamma, rule, loss
        self.n, self.d = X.shape
        self.m = len(v0)
        self.K = X @ X.T
        self.s = np.sign(X @ W0.T).astype(int)  # the mode
        assert np.all(self.s != 0), "start on a kink"
        self.b = None if b is None else np.asarray(b, float)
        self.sgn = np.sign(v0)  # sign-FA: b_j; GD: only for the guard
        self.armed = np.ones(2 * self.n * self.m + self.m, bool)

    def unpack(self, u):
        return u[: self.m], u[self.m :].reshape(self.m, self.d)

    def drives(self, u):
        """phi(z), q, E, p at the state u, in the present mode."""
        v, W = self.unpack(u)
        slope = np.where(self.s > 0, 1.0, np.where(self.s < 0, self.gamma, 0.0))
        Z = self.X @ W.T
        Phi = slope * Z  # a sliding sample has z = 0
        q = residual_weights(Phi @ v, self.y, self.loss)
        bj = {"fa": self.b, "gd": v, "sign-fa": self.sgn}[self.rule]
        E = np.outer(q, bj)
        P = slope * E
        for j in range(self.m):
            S = self.s[:, j] == 0
            if S.any():  # dz_S/dt = K_SS p_S + K_SR p_R = 0
                P[S, j] = -np.linalg.solve(self.K[np.ix_(S, S)], self.K[np.ix_(S, ~S)] @ P[~S, j])
        return Z, Phi, q, E, P

    def rhs(self, t, u):
        _Z, Phi, q, _E, P = self.drives(u)
        return np.concatenate([Phi.T @ q, (P.T @ self.X).ravel()])

    def guards(self, u):
        v, _ = self.unpack(u)
        Z, _Phi, _q, E, P = self.drives(u)
        slides = self.s == 0
        h1 = np.where(slides, P - E, self.s * Z)
        h2 = np.where(slides, self.gamma * E - P, 1.0)
        watch = {"fa": np.zeros(self.m, bool), "gd": slides.any(axis=0), "sign-fa": np.ones(self.m, bool)}[self.rule]
        return np.concatenate([h1.ravel(), h2.ravel(), np.where(watch, self.sgn * v, 1.0)])

    def set_mode(self, i, j, value):
        """Change one entry of the mode; the new z-guard starts at 0, so it is not armed yet."""
        self.s[i, j] = value
        self.armed[i * self.m + j] = value == 0

    def project(self, u, j, kinks):
        """Put w_j on the kinks z_ij = 0, i in kinks (orthogonal projection)."""
        _v, W = self.unpack(u)  # W is a view of u
        A = self.X[kinks]
        for _ in range(2):
            W[j] -= A.T @ np.linalg.solve(A @ A.T, A @ W[j])

    def handle(self, t, u, k):
        """Change the mode at the event of guard k; returns the list of events."""
        n, m = self.n, self.m
        v, _W = self.unpack(u)
        if k >= 2 * n * m:  # v_j = 0
            j = k - 2 * n * m
            if (self.s[:, j] == 0).any():
                raise NotImplementedError(f"v_{j} = 0 at t = {t} while neuron {j} slides ({self.rule})")
            v[j] = 0.0
            self.sgn[j] *= -1
            self.armed[k] = False
            return [(t, "sign", None, j)]
        i, j = divmod(k % (n * m), m)
        S = np.flatnonzero(self.s[:, j] == 0)
        if self.s[i, j] == 0:  # p_ij at an end: tangential exit
            self.project(u, j, S)
            self.set_mode(i, j, +1 if k < n * m else -1)
            return [(t, "exit", i, j)]
        on = np.append(S, i)  # w_j has arrived at the kink of sample i
        if len(on) >= self.d:
            raise NotImplementedError(f"neuron {j} arrives at w = 0 at t = {t}")
        self.project(u, j, on)
        E = self.drives(u)[3]
        side, events = self.s[i, j], []
        if E[i, j] < 0 and self.gamma < 1:  # attracting: part of the box problem
            A = on
        else:  # repelling (or no kink): crossed
            A = S
            self.set_mode(i, j, -side)
            events.append((t, "crossing", i, j))
        if len(A):
            slope = np.where(self.s[:, j] > 0, 1.0, self.gamma)
            slope[A] = 0.0
            r = self.X.T @ (slope * E[:, j])
            _, kinds = box_least_norm(r, self.X[A], E[A, j], self.gamma * E[A, j])
            for a, kind in zip(A, kinds, strict=True):
                if a == i:
                    assert kind != side  # it cannot turn back
                    self.set_mode(a, j, kind)
                    events.append((t, "entry" if kind == 0 else "crossing", a, j))
                elif kind != 0:  # the jump of the velocity throws it out
                    self.set_mode(a, j, kind)
                    events.append((t, "exit", a, j))
        return events


def solve(X, y, W0, v0, rule, b, gamma, loss, T, max_step=None, points=40, rtol=1e-12):
    """-> (W_T, v_T, events), events a list of (time, kind, i, j) (i None for 'sign')."""
    X, y, W0, v0 = (np.array(a, float) for a in (X, y, W0, v0))
    flow = Flow(X, y, W0, v0, rule, b, gamma, loss)
    tolerances = {"rtol": rtol, "atol": 1e-14, "max_step": T / 200 if max_step is None else max_step}
    t, u, events = 0.0, np.concatenate([v0, W0.ravel()]), []
    while t < T:  # one mode
        if rule == "gd":
            flow.sgn = np.sign(flow.unpack(u)[0])
        t, u, hit = one_mode(flow, t, u, T, points, tolerances)
        if hit is not None:
            events += flow.handle(t, u, hit)
    v, W = flow.unpack(u)
    return W.copy(), v.copy(), events


def one_mode(flow, t, u, T, points, tolerances):
    """From (t, u) to the first event, or to T: time, state, the guard that fired or None."""
    solver = DOP853(flow.rhs, t, u, T, **tolerances)
    while solver.status == "running":  # one step
        start, state = solver.t, solver.y.copy()
        solver.step()
        assert solver.status != "failed"
        dense = solver.dense_output()
        for ta, tb in itertools.pairwise(np.linspace(start, solver.t, points + 1)):
            h = flow.guards(dense(tb))
            bad = ~flow.armed & (h < -WRONG)
            if bad.any():
                raise RuntimeError(f"wrong mode at t = {tb}, guards {np.flatnonzero(bad)}")
            fired = np.flatnonzero(flow.armed & (h < 0))
            if len(fired):
                guard = lambda s, k, dense=dense: flow.guards(dense(s))[k]  # noqa: E731
                time, k = min((first_root(partial(guard, k=k), ta, tb), k) for k in fired)
                if time > start:  # step again, to the event exactly
                    state = solve_ivp(flow.rhs, (start, time), state, method="DOP853", **tolerances).y[:, -1].copy()
                return time, state, k
            flow.armed |= h > ARM
    return T, solver.y.copy(), None
